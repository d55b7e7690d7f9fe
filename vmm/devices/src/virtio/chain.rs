//! A request as its device sees it: ranges of guest memory, those to read first, then those to write.

use alloc::vec::Vec;

/// A range of guest-physical addresses that was found to be memory, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub gpa: u64,
    /// Bytes, more than 0.
    pub len: u32,
}

/// A request. Holding one proves that the driver put what the device reads before what it writes, that all of it is
/// memory, and that both lengths fit 32 bits. It proves nothing about what stands there, which may change at any time:
/// read it once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    readable: Vec<Range>,
    writable: Vec<Range>,
    readable_len: u32,
    writable_len: u32,
}

/// Why descriptors are no request: always the driver's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Something to read after something to write (2.7.4.2).
    #[error("a readable descriptor behind a writable one")]
    Order,
    /// More than 32 bits can count (2.7.5.2).
    #[error("more than 4 GiB in one request")]
    TooLong,
    /// A range that is not memory.
    #[error("{len} bytes at {gpa:#x} are not memory")]
    NotMemory {
        /// Where.
        gpa: u64,
        /// How many.
        len: u32,
    },
}

/// The range is not memory: a defect here, since ranges are judged when a [`Chain`] is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outside guest memory")]
pub struct OutsideMemory;

/// Guest memory as devices see it.
pub trait Memory {
    /// Whether all of a range is memory.
    fn contains(&self, range: Range) -> bool;
    /// Fills `bytes` from `gpa`.
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory>;
    /// Writes `bytes` at `gpa`.
    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), OutsideMemory>;
}

impl Chain {
    /// Adds the next descriptor. Empty ones are passed over: they ask for nothing.
    pub fn add(&mut self, memory: &impl Memory, range: Range, writable: bool) -> Result<(), ChainError> {
        if range.len == 0 {
            return Ok(());
        }
        if !memory.contains(range) {
            return Err(ChainError::NotMemory { gpa: range.gpa, len: range.len });
        }
        if !writable && !self.writable.is_empty() {
            return Err(ChainError::Order);
        }
        let (ranges, len) = if writable {
            (&mut self.writable, &mut self.writable_len)
        } else {
            (&mut self.readable, &mut self.readable_len)
        };
        *len = len.checked_add(range.len).ok_or(ChainError::TooLong)?;
        ranges.push(range);
        Ok(())
    }

    /// What the device reads.
    #[must_use]
    pub fn readable(&self) -> &[Range] {
        &self.readable
    }

    /// What the device writes.
    #[must_use]
    pub fn writable(&self) -> &[Range] {
        &self.writable
    }

    /// Bytes the device reads.
    #[must_use]
    pub fn readable_len(&self) -> u32 {
        self.readable_len
    }

    /// Bytes the device writes.
    #[must_use]
    pub fn writable_len(&self) -> u32 {
        self.writable_len
    }

    /// Copies readable bytes from the first on, as many as there are and `bytes` holds; how many.
    pub fn copy_up_to(&self, memory: &impl Memory, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for range in &self.readable {
            let rest = bytes.get_mut(done..).unwrap_or_default();
            let take = rest.len().min(usize::try_from(range.len).unwrap_or(usize::MAX));
            match rest.get_mut(..take).map(|now| memory.read(range.gpa, now)) {
                Some(Ok(())) if take > 0 => done += take,
                _ => break,
            }
        }
        done
    }

    /// Copies the first `N` readable bytes, if there are as many.
    pub fn copy_head<const N: usize>(&self, memory: &impl Memory) -> Option<[u8; N]> {
        let mut head = [0; N];
        (self.copy_up_to(memory, &mut head) == N).then_some(head)
    }
}

/// The part of `ranges` from `skip` of at most `len` bytes.
#[must_use]
pub fn slice(ranges: &[Range], skip: u32, len: u32) -> Vec<Range> {
    let (mut skip, mut left) = (skip, len);
    let mut out = Vec::with_capacity(ranges.len());
    for range in ranges {
        let passed = skip.min(range.len);
        skip -= passed;
        let taken = (range.len - passed).min(left);
        left -= taken;
        if taken > 0 {
            out.push(Range { gpa: range.gpa + u64::from(passed), len: taken });
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use core::cell::RefCell;
    use proptest::prelude::*;

    /// Memory from 0.
    #[derive(Debug)]
    pub(crate) struct Flat(pub(crate) RefCell<Vec<u8>>);

    impl Flat {
        pub(crate) fn new(len: usize) -> Self {
            Self(RefCell::new(alloc::vec![0; len]))
        }

        fn span(&self, gpa: u64, len: usize) -> Result<core::ops::Range<usize>, OutsideMemory> {
            let start = usize::try_from(gpa).map_err(|_| OutsideMemory)?;
            let end = start.checked_add(len).ok_or(OutsideMemory)?;
            if end <= self.0.borrow().len() { Ok(start..end) } else { Err(OutsideMemory) }
        }
    }

    impl Memory for Flat {
        fn contains(&self, range: Range) -> bool {
            self.span(range.gpa, range.len as usize).is_ok()
        }
        fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
            bytes.copy_from_slice(&self.0.borrow()[self.span(gpa, bytes.len())?]);
            Ok(())
        }
        fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
            let span = self.span(gpa, bytes.len())?;
            self.0.borrow_mut()[span].copy_from_slice(bytes);
            Ok(())
        }
    }

    /// A chain over memory that is there.
    pub(crate) fn chain(memory: &Flat, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> Chain {
        let mut chain = Chain::default();
        for (ranges, write) in [(readable, false), (writable, true)] {
            for (gpa, len) in ranges {
                chain.add(memory, Range { gpa: *gpa, len: *len }, write).unwrap();
            }
        }
        chain
    }

    #[test]
    fn rules() {
        let memory = Flat::new(0x1000);
        let mut one = chain(&memory, &[(0, 16)], &[(0x20, 1)]);
        let range = |gpa, len| Range { gpa, len };
        assert_eq!(one.add(&memory, range(0, 1), false), Err(ChainError::Order));
        for (gpa, len) in [(0xFFF, 2), (u64::MAX, 1), (u64::MAX - 1, u32::MAX), (0x1000, 1)] {
            assert_eq!(one.add(&memory, range(gpa, len), true), Err(ChainError::NotMemory { gpa, len }));
        }
        assert_eq!(one.add(&memory, range(u64::MAX, 0), true), Ok(()), "asks for nothing");
        assert_eq!((one.readable_len(), one.writable_len()), (16, 1));
    }

    #[test]
    fn lengths_do_not_wrap() {
        struct All;
        impl Memory for All {
            fn contains(&self, _: Range) -> bool {
                true
            }
            fn read(&self, _: u64, _: &mut [u8]) -> Result<(), OutsideMemory> {
                Ok(())
            }
            fn write(&self, _: u64, _: &[u8]) -> Result<(), OutsideMemory> {
                Ok(())
            }
        }
        let mut one = Chain::default();
        one.add(&All, Range { gpa: 0, len: u32::MAX }, false).unwrap();
        assert_eq!(one.add(&All, Range { gpa: 0, len: 1 }, false), Err(ChainError::TooLong));
    }

    proptest! {
        #[test]
        fn a_head_is_what_stands_there_however_it_is_cut(cuts in prop::collection::vec(1_u32..20, 0..10)) {
            let memory = Flat::new(250);
            memory.0.borrow_mut().iter_mut().zip(0..).for_each(|(byte, at)| *byte = at);
            let mut ranges = Vec::new();
            let mut at = 0;
            for len in cuts {
                ranges.push((at, len));
                at += u64::from(len);
            }
            let one = chain(&memory, &ranges, &[]);
            let head = one.copy_head::<16>(&memory);
            prop_assert_eq!(head.is_some(), at >= 16);
            if let Some(head) = head {
                prop_assert!(head.iter().zip(0..).all(|(byte, at)| *byte == at));
            }
        }

        #[test]
        fn slices_are_the_bytes_between(lens in prop::collection::vec(1_u32..9, 0..8), skip in 0_u32..40, len in 0_u32..40) {
            let ranges: Vec<Range> =
                lens.iter().enumerate().map(|(i, len)| Range { gpa: i as u64 * 100, len: *len }).collect();
            let flat = |ranges: &[Range]| -> Vec<u64> {
                ranges.iter().flat_map(|r| r.gpa..r.gpa + u64::from(r.len)).collect()
            };
            let expect: Vec<u64> = flat(&ranges).into_iter().skip(skip as usize).take(len as usize).collect();
            prop_assert_eq!(flat(&slice(&ranges, skip, len)), expect);
        }
    }
}
