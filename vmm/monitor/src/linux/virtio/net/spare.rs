//! Buffers of the driver's that no frame took yet, as one list of ranges: frames come by the thousand, buffers as often as
//! frames fill them.

use super::super::BadRequest;
use warren_devices::virtio::{Chain, Range};

/// One buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    /// To give it back by.
    pub(super) head: u16,
    /// Bytes.
    pub(super) len: u32,
    ranges: usize,
}

/// Several, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Spare {
    buffers: Vec<Buffer>,
    ranges: Vec<Range>,
    room: u32,
}

impl Spare {
    pub(super) fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Bytes in all of them.
    pub(super) fn room(&self) -> u32 {
        self.room
    }

    /// One more.
    pub(super) fn push(&mut self, head: u16, chain: &Chain) -> Result<(), BadRequest> {
        let len = chain.writable_len();
        self.room = self.room.checked_add(len).ok_or(BadRequest("buffers beyond all measure"))?;
        self.buffers.push(Buffer { head, len, ranges: chain.writable().len() });
        self.ranges.extend(chain.writable());
        Ok(())
    }

    /// The ranges of all, or of the first alone.
    pub(super) fn ranges(&self, all: bool) -> &[Range] {
        let first = self.buffers.first().map_or(0, |buffer| buffer.ranges);
        let count = if all { self.ranges.len() } else { first };
        self.ranges.get(..count).unwrap_or_default()
    }

    /// How many buffers so many bytes take.
    pub(super) fn needed(&self, len: u32) -> usize {
        let mut left = len;
        let filled = |buffer: &&Buffer| {
            let wanted = left > 0;
            left = left.saturating_sub(buffer.len);
            wanted
        };
        self.buffers.iter().take_while(filled).count()
    }

    /// Takes the first ones.
    pub(super) fn take(&mut self, count: usize) -> Vec<Buffer> {
        let taken: Vec<Buffer> = self.buffers.drain(..count.min(self.buffers.len())).collect();
        self.ranges.drain(..taken.iter().map(|buffer| buffer.ranges).sum::<usize>().min(self.ranges.len()));
        self.room -= taken.iter().map(|buffer| buffer.len).sum::<u32>();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::Ram;
    use proptest::prelude::*;

    proptest! {
        /// Frames of any length over buffers of any shape: each buffer once, in order, with its own ranges.
        #[test]
        fn buffers_go_as_they_came(
            shapes in prop::collection::vec(prop::collection::vec(1_u32..50, 1..4), 0..20),
            frames in prop::collection::vec(0_u32..200, 0..20),
        ) {
            let ram = Ram::detached(0, 1 << 20).unwrap();
            let (mut spare, mut model) = (Spare::default(), Vec::new());
            for (head, lens) in (0_u16..).zip(&shapes) {
                let mut chain = Chain::default();
                for (at, len) in (0_u64..).zip(lens) {
                    chain.add(&ram, Range { gpa: u64::from(head) * 1000 + at * 100, len: *len }, true).unwrap();
                }
                spare.push(head, &chain).unwrap();
                model.push((head, chain));
            }
            for frame in frames {
                let all: Vec<Range> = model.iter().flat_map(|(_, chain)| chain.writable()).copied().collect();
                prop_assert_eq!(spare.ranges(true), &all[..]);
                prop_assert_eq!(spare.ranges(false), model.first().map_or(&[][..], |(_, chain)| chain.writable()));
                prop_assert_eq!(spare.room(), model.iter().map(|(_, chain)| chain.writable_len()).sum::<u32>());
                let count = spare.needed(frame);
                let holds = |count: usize| model.iter().take(count).map(|(_, chain)| chain.writable_len()).sum::<u32>();
                prop_assert!(count == model.len() || holds(count) >= frame);
                prop_assert!(count == 0 || holds(count - 1) < frame);
                let taken = spare.take(count);
                let gone: Vec<_> = model.drain(..count).map(|(head, chain)| (head, chain.writable_len())).collect();
                prop_assert_eq!(taken.iter().map(|buffer| (buffer.head, buffer.len)).collect::<Vec<_>>(), gone);
                prop_assert_eq!((spare.len(), spare.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
