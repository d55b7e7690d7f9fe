//! What `/tmp` may hold: bytes, and a charge for each entry's bookkeeping.

use crate::Errno;

/// Charged for a file, directory or link beside its name and bytes: node, entries in two trees, name.
pub(super) const ENTRY_COST: u64 = 512;

/// Bytes in use against a limit, and against what memory there is.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    limit: u64,
    used: u64,
    room: fn() -> u64,
}

impl Quota {
    /// At most `limit` bytes, and never more than `room` says there are.
    #[must_use]
    pub const fn new(limit: u64, room: fn() -> u64) -> Self {
        Self { limit, used: 0, room }
    }

    /// The most that can be in use; no file is longer.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use, bookkeeping included.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// Takes `bytes`, or nothing and ENOSPC.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Errno> {
        if bytes > self.limit.saturating_sub(self.used) || bytes > (self.room)() {
            return Err(Errno::NoSpc);
        }
        self.used += bytes;
        Ok(())
    }

    pub(super) const fn give(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// What an entry of this name costs.
    pub(super) const fn entry_cost(name: &str) -> u64 {
        ENTRY_COST + name.len() as u64
    }
}
