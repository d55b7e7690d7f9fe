//! A VMM writes a guest's memory down as runs of pages, one behind the other. As an image it is addressed as the guest addresses
//! it, so that the same page of two snapshots of one guest lies in the same window.

use crate::cut::Source;
use std::io;

/// Runs of memory that lie one behind the other in a file, at their addresses.
#[derive(Debug)]
pub struct Linear<S> {
    packed: S,
    /// Address, bytes, and where they begin in the file; ascending.
    runs: Vec<(u64, u64, u64)>,
}

impl<S: Source> Linear<S> {
    /// Of runs (address and bytes) that ascend, as a snapshot's state has them; `None` if they do not, or are not what is packed.
    #[must_use]
    pub fn new(packed: S, runs: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let (mut placed, mut offset, mut end) = (Vec::new(), 0_u64, 0_u64);
        for (at, len) in runs {
            if at < end {
                return None;
            }
            placed.push((at, len, offset));
            end = at.checked_add(len)?;
            offset = offset.checked_add(len)?;
        }
        (offset == packed.bytes()).then_some(Self { packed, runs: placed })
    }

    fn from(&self, at: u64) -> impl Iterator<Item = &(u64, u64, u64)> {
        let first = self.runs.partition_point(|(start, len, _)| start + len <= at);
        self.runs.iter().skip(first)
    }
}

impl<S: Source> Source for Linear<S> {
    fn bytes(&self) -> u64 {
        self.runs.last().map_or(0, |(at, len, _)| at + len)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let end = at.saturating_add(out.len() as u64);
        for (start, len, offset) in self.from(at).take_while(|(start, ..)| *start < end) {
            let (from, to) = (at.max(*start), end.min(start + len));
            let index = |value: u64| usize::try_from(value - at).unwrap_or(usize::MAX);
            let part = out.get_mut(index(from)..index(to)).unwrap_or_default();
            self.packed.read_at(offset + (from - start), part)?;
        }
        Ok(())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok(self.from(from).next().map(|(start, ..)| from.max(*start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_that_are_none() {
        let packed = || vec![1; 30];
        assert!(Linear::new(packed(), [(0, 10), (5, 20)]).is_none(), "over each other");
        assert!(Linear::new(packed(), [(0, 10), (50, 21)]).is_none(), "more than there is");
        assert!(Linear::new(packed(), [(0, 30), (u64::MAX, 1)]).is_none(), "past the end");
        assert!(Linear::new(packed(), [(0, 10), (50, 20)]).is_some());
    }

    proptest! {
        #[test]
        fn every_byte_is_at_its_address(
            steps in prop::collection::vec((0_u64..20, 0_u64..20), 0..8), at in 0_u64..200, len in 0_usize..200,
        ) {
            let (mut runs, mut end) = (Vec::new(), 0);
            for (gap, len) in steps {
                runs.push((end + gap, len));
                end += gap + len;
            }
            let total: u64 = runs.iter().map(|run| run.1).sum();
            let packed: Vec<u8> = (1..=u8::try_from(total).unwrap()).collect();
            let mut model = vec![0; 1000];
            let mut next = packed.iter();
            for (at, len) in &runs {
                for to in &mut model[usize::try_from(*at).unwrap()..usize::try_from(at + len).unwrap()] {
                    *to = *next.next().unwrap();
                }
            }
            let linear = Linear::new(packed, runs).unwrap();
            let mut out = vec![7; len];
            linear.read_at(at, &mut out).unwrap();
            let from = usize::try_from(at).unwrap();
            prop_assert_eq!(&out[..], &model[from..from + len]);
            let data = model.iter().skip(from).position(|byte| *byte != 0).map(|more| (from + more) as u64);
            prop_assert!(linear.next_data(at).unwrap() <= data || data.is_none());
        }
    }
}
