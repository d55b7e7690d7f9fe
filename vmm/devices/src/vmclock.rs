//! The clock's page (Linux, include/uapi/linux/vmclock-abi.h, version 1), as far as it says when a clock was disturbed:
//! after a snapshot or a move, nothing that the guest measured of its counter holds.
//!
//! It names no counter and tells no time: the KVM clock does that.

use serde::{Deserialize, Serialize};

/// Bytes of the structure.
pub const LEN: usize = 104;
/// Bytes of the page that holds it, which a guest maps.
pub const PAGE_LEN: u32 = 0x1000;

const MAGIC: u32 = 0x4B4C_4356;
const VERSION: u16 = 1;
const COUNTER_INVALID: u8 = 0xFF;
/// Time since an epoch that nobody knows.
const TIME_MONOTONIC: u8 = 2;
const SEQUENCE: usize = 12;
const MARKER: usize = 16;

/// The page's changing part, as it stands and as it is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmClock {
    /// Even; odd while the page is being written.
    sequence: u32,
    /// Another number after each disturbance.
    marker: u64,
}

/// Bytes to be written at an offset of the page.
pub type Write = (usize, [u8; 8]);

impl VmClock {
    /// Whether it can have come there: nobody writes the page.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.sequence.is_multiple_of(2)
    }

    /// The structure as a guest first sees it.
    #[must_use]
    pub fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let head = u64::from(MAGIC) | u64::from(PAGE_LEN) << 32;
        let kind = u64::from(VERSION) | u64::from(COUNTER_INVALID) << 16 | u64::from(TIME_MONOTONIC) << 24;
        let words = [head, kind | u64::from(self.sequence) << 32, self.marker];
        for (to, from) in bytes.iter_mut().zip(words.iter().flat_map(|word| word.to_le_bytes())) {
            *to = from;
        }
        bytes
    }

    /// The clock was disturbed: three writes, to be made in this order. A reader that sees an odd sequence, or another
    /// than before, reads again.
    #[must_use]
    pub fn disturb(&mut self) -> [Write; 3] {
        let busy = self.word();
        self.marker = self.marker.wrapping_add(1);
        let busy = busy.wrapping_add(1 << 32);
        self.sequence = self.sequence.wrapping_add(2);
        [
            (SEQUENCE - 4, busy.to_le_bytes()),
            (MARKER, self.marker.to_le_bytes()),
            (SEQUENCE - 4, self.word().to_le_bytes()),
        ]
    }

    /// The eight bytes that hold the sequence, and before it what never changes.
    fn word(&self) -> u64 {
        let bytes = self.bytes();
        let (_, rest) = bytes.split_at(SEQUENCE - 4);
        rest.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn the_constant_part_is_as_the_header_says() {
        let bytes = VmClock::default().bytes();
        assert_eq!(bytes[..4], *b"VCLK");
        assert_eq!((word(&bytes, 4), bytes[8], bytes[9], bytes[10], bytes[11]), (0x1000, 1, 0, 0xFF, 2));
        assert!(bytes[12..].iter().all(|byte| *byte == 0), "status unknown, no flag");
    }

    #[test]
    fn a_disturbance_is_seen_whole_or_not_at_all() {
        let mut clock = VmClock::default();
        let mut page = clock.bytes();
        for round in 1..5_u32 {
            let mut sequences = alloc::vec::Vec::new();
            for (at, bytes) in clock.disturb() {
                page[at..at + 8].copy_from_slice(&bytes);
                sequences.push(word(&page, SEQUENCE));
            }
            assert_eq!(sequences, [round * 2 - 1, round * 2 - 1, round * 2]);
            assert_eq!(page, clock.bytes());
            assert_eq!(word(&page, MARKER), round);
        }
    }
}
