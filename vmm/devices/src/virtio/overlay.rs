//! A disk over a base: which of its sectors are its own, and which are the base's still.
//!
//! ```text
//!  the base's --written, discarded, zeroed--> its own, for ever
//! ```
//! A request is whole sectors, so a sector has one holder and nothing is ever copied up. What is its own is in the disk's file;
//! a sector that was discarded is its own and a hole there. The map is a bit a sector, 2 MiB for 8 GiB, all of it zero at first.

use super::block::SECTOR;
use alloc::vec;
use alloc::vec::Vec;

/// Sectors of a word of the map.
const WORD: u64 = 64;

/// Who has a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The base.
    Base,
    /// The disk itself.
    Own,
}

/// Sectors in a row with one holder, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Who has them.
    pub holder: Holder,
    /// First byte on the disk, and so in either file.
    pub offset: u64,
    /// Bytes, more than 0.
    pub len: u64,
}

/// The map of one disk.
#[derive(Clone, Debug)]
pub struct Overlay {
    own: Vec<u64>,
    sectors: u64,
}

impl Overlay {
    /// Of a disk of so many bytes, all of it the base's.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let sectors = bytes / SECTOR;
        let words = usize::try_from(sectors.div_ceil(WORD)).unwrap_or(usize::MAX);
        Self { own: vec![0; words], sectors }
    }

    /// Bytes of the disk, whole sectors.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.sectors * SECTOR
    }

    /// The first part of a piece of the disk: as long as it has one holder. `None` of no bytes, and behind the disk's end.
    #[must_use]
    pub fn part(&self, offset: u64, len: u64) -> Option<Part> {
        let first = offset / SECTOR;
        let end = offset.saturating_add(len).div_ceil(SECTOR).min(self.sectors);
        if len == 0 || first >= end {
            return None;
        }
        let is_own = self.word(first / WORD) >> (first % WORD) & 1 == 1;
        let other = |index| if is_own { !self.word(index) } else { self.word(index) };
        let mut at = first;
        while at < end {
            let rest = other(at / WORD) >> (at % WORD);
            if rest != 0 {
                at += u64::from(rest.trailing_zeros());
                break;
            }
            at = (at / WORD + 1) * WORD;
        }
        let holder = if is_own { Holder::Own } else { Holder::Base };
        Some(Part { holder, offset, len: (at.min(end) * SECTOR - offset).min(len) })
    }

    /// A piece of the disk is its own from now on. What lies behind the disk's end is nobody's.
    pub fn take(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).div_ceil(SECTOR).min(self.sectors);
        let mut at = offset / SECTOR;
        while at < end {
            let count = (WORD - at % WORD).min(end - at);
            let mask = (u64::MAX >> (WORD - count)) << (at % WORD);
            if let Some(word) = usize::try_from(at / WORD).ok().and_then(|index| self.own.get_mut(index)) {
                *word |= mask;
            }
            at += count;
        }
    }

    fn word(&self, index: u64) -> u64 {
        usize::try_from(index).ok().and_then(|index| self.own.get(index)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: u64 = 300;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, u64, u8),
        Zero(u64, u64),
        Read(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let piece = || {
            let len = prop_oneof![1_u64..5, 1_u64..DISK];
            (0..DISK, len).prop_map(|(at, len)| (at, len.min(DISK - at)))
        };
        prop_oneof![
            (piece(), 1_u8..255).prop_map(|((at, len), byte)| Step::Write(at, len, byte)),
            piece().prop_map(|(at, len)| Step::Zero(at, len)),
            piece().prop_map(|(at, len)| Step::Read(at, len)),
        ]
    }

    fn read(overlay: &Overlay, (base, own): (&[u8], &[u8]), at: u64, len: u64) -> Vec<u8> {
        let (mut offset, end) = (at * SECTOR, (at + len) * SECTOR);
        let mut bytes = Vec::new();
        while let Some(part) = overlay.part(offset, end - offset) {
            assert!(part.offset == offset && part.len > 0 && part.len <= end - offset);
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset + part.len).unwrap();
            bytes.extend_from_slice(match part.holder {
                Holder::Base => &base[range],
                Holder::Own => &own[range],
            });
            offset += part.len;
        }
        bytes
    }

    proptest! {
        /// The model is an array of bytes: what is read is what was written last, or the base.
        #[test]
        fn a_disk_is_an_array_of_bytes(steps in prop::collection::vec(step(), 1..40)) {
            let base: Vec<u8> = (0..DISK).flat_map(|sector| vec![u8::try_from(sector % 251).unwrap(); 512]).collect();
            // Never read where it was not written: a mistake shows.
            let mut own = vec![0xEE_u8; base.len()];
            let (mut model, mut overlay) = (base.clone(), Overlay::new(base.len() as u64));
            for step in steps {
                let bytes = |at: u64, len: u64| {
                    usize::try_from(at * SECTOR).unwrap()..usize::try_from((at + len) * SECTOR).unwrap()
                };
                match step {
                    Step::Write(at, len, byte) => {
                        own[bytes(at, len)].fill(byte);
                        model[bytes(at, len)].fill(byte);
                        overlay.take(at * SECTOR, len * SECTOR);
                    }
                    Step::Zero(at, len) => {
                        own[bytes(at, len)].fill(0);
                        model[bytes(at, len)].fill(0);
                        overlay.take(at * SECTOR, len * SECTOR);
                    }
                    Step::Read(at, len) => {
                        prop_assert_eq!(&read(&overlay, (&base, &own), at, len), &model[bytes(at, len)]);
                    }
                }
            }
            prop_assert_eq!(read(&overlay, (&base, &own), 0, DISK), model);
        }

        /// Nothing panics, and nothing lies behind the end, whatever is asked.
        #[test]
        fn any_numbers_are_answered(offset: u64, len: u64, at: u64, count: u64) {
            let mut overlay = Overlay::new(DISK * SECTOR);
            overlay.take(offset, len);
            if let Some(part) = overlay.part(at, count) {
                prop_assert!(part.len <= count && part.offset.saturating_add(part.len) <= DISK * SECTOR);
            }
        }
    }

    #[test]
    fn parts_are_as_long_as_they_can_be() {
        let mut overlay = Overlay::new(1000 * SECTOR);
        assert_eq!(
            overlay.part(0, u64::MAX),
            Some(Part { holder: Holder::Base, offset: 0, len: 1000 * SECTOR })
        );
        overlay.take(63 * SECTOR, 130 * SECTOR);
        let part = |holder, at, len| Some(Part { holder, offset: at * SECTOR, len: len * SECTOR });
        assert_eq!(overlay.part(0, 1000 * SECTOR), part(Holder::Base, 0, 63));
        assert_eq!(overlay.part(63 * SECTOR, 1000 * SECTOR), part(Holder::Own, 63, 130));
        assert_eq!(overlay.part(193 * SECTOR, 1000 * SECTOR), part(Holder::Base, 193, 807));
        assert_eq!(overlay.part(1000 * SECTOR, 1), None);
        assert_eq!(overlay.part(5, 0), None);
    }
}
