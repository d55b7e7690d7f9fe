//! Memory that is filled apart from where it will lie, and put there when it is complete.
//!
//! ```text
//!  hold: nobody can touch the range --filled--> complete --release--> it is memory as any other
//! ```
//! A guest that touches the range too soon leaves KVM as one that touches no memory at all: its vCPU may try again later.

use super::{Bank, Ram, RamError};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A range of guest memory that is held back.
#[derive(Debug)]
pub struct Held {
    bank: Arc<Bank>,
    /// Where in the bank.
    at: usize,
    /// What is filled, at the addresses that it will have; zero at first.
    pub fresh: Ram,
}

impl Ram {
    /// Holds back a part of a bank, of huge pages where the host has some. Until it is released nobody here may touch it: only
    /// a guest's vCPU can, and gets no further.
    pub fn hold(&self, range: &Range<u64>) -> Result<Held, RamError> {
        let failed = |source| RamError::Hold { source };
        let len = range.end.saturating_sub(range.start);
        let (bank, at, size) = self.locate(range.start, len).map_err(failed)?;
        let fresh = Self::detached(range.start, len)?;
        fresh.advise_huge(range.start, len);
        bank.reservation.open(at, size, false).map_err(failed)?;
        Ok(Held { bank: Arc::clone(bank), at, fresh })
    }
}

impl Held {
    /// Puts it in place.
    pub fn release(self) -> io::Result<()> {
        let moves = |bank: &Arc<Bank>| self.bank.reservation.replace(self.at, &bank.reservation);
        self.fresh.banks.iter().try_for_each(moves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_held_is_in_place_once_it_is_released() {
        let ram = Ram::detached(0, 8 * MIB).unwrap();
        ram.put(2 * MIB - 1, &[1]).unwrap();
        ram.put(6 * MIB, &[2]).unwrap();
        let held = ram.hold(&(2 * MIB..6 * MIB)).unwrap();
        held.fresh.put(2 * MIB, &[3]).unwrap();
        held.fresh.put(6 * MIB - 1, &[4]).unwrap();
        assert!(held.fresh.put(6 * MIB, &[5]).is_err(), "no more than was held");
        held.release().unwrap();
        let mut read = [0; 2];
        ram.get(2 * MIB - 1, &mut read).unwrap();
        assert_eq!(read, [1, 3]);
        ram.get(6 * MIB - 1, &mut read).unwrap();
        assert_eq!(read, [4, 2]);
        ram.get(4 * MIB, &mut read).unwrap();
        assert_eq!(read, [0, 0], "what nobody filled is zero");
    }

    #[test]
    fn no_more_than_a_bank_is_held() {
        let ram = Ram::detached(0, 4 * MIB).unwrap();
        assert!(ram.hold(&(2 * MIB..6 * MIB)).is_err());
        assert!(ram.put(3 * MIB, &[1]).is_ok(), "nothing was closed");
    }
}
