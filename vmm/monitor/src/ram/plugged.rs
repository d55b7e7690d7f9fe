//! Memory that comes and goes in blocks while a guest runs.

use super::{Ram, RamError};
use crate::sys::Reservation;
use kvm_ioctls::VmFd;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_memory::GuestAddress;

/// A bank of blocks that are there or not. The guest sees it through its bank's view, where those that are not cannot be touched;
/// everybody here through another, where all can: a device that still writes to a block that goes harms nobody.
#[derive(Debug)]
pub(super) struct Pluggable {
    base: u64,
    len: u64,
    block: u64,
    plugged: Vec<AtomicBool>,
    /// The guest's view, in KVM's slot.
    guest: Reservation,
}

impl Ram {
    /// Adds a bank of blocks, none of them there yet, as the next memory slot. At most one, and the last.
    pub fn add_pluggable_bank(&mut self, vm: &VmFd, base: u64, len: u64, block: u64) -> Result<(), RamError> {
        let slot = u32::try_from(self.banks.len()).unwrap_or(u32::MAX);
        self.add_blocks(base, len, block)?;
        let attached =
            self.pluggable.as_ref().map(|bank| bank.guest.attach(vm, slot, GuestAddress(base), false));
        attached.unwrap_or(Ok(())).map_err(|source| RamError::Slot { len, source })
    }

    fn add_blocks(&mut self, base: u64, len: u64, block: u64) -> Result<(), RamError> {
        let failed = |source| RamError::Reserve { len, source };
        let size = |value: u64| usize::try_from(value).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()));
        let guest = Reservation::shared(size(len)?).map_err(failed)?;
        let own = guest.view().map_err(failed)?;
        guest.open(0, size(len)?, false).map_err(failed)?;
        let plugged = (0..len / block).map(|_| AtomicBool::new(false)).collect();
        self.insert(GuestAddress(base), own)?;
        self.pluggable = Some(Arc::new(Pluggable { base, len, block, plugged, guest }));
        Ok(())
    }

    /// Blocks come or go, from a byte of the pluggable bank on. What was in those that go, the host has again; those that come
    /// are zero.
    pub fn plug(&self, at: u64, len: u64, there: bool) -> io::Result<()> {
        let bank = self.pluggable.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let size = |value: u64| usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
        let numbers = size(at / bank.block)?..size(at.saturating_add(len) / bank.block)?;
        let blocks = bank.plugged.get(numbers).ok_or(io::ErrorKind::InvalidInput)?;
        let mark = |there| blocks.iter().for_each(|block| block.store(there, Ordering::SeqCst));
        if there {
            // A device may have written to a block on its way out.
            self.give_back(bank.base + at, len)?;
            bank.guest.open(size(at)?, size(len)?, true)?;
            mark(true);
        } else {
            mark(false);
            bank.guest.open(size(at)?, size(len)?, false)?;
            self.give_back(bank.base + at, len)?;
        }
        Ok(())
    }

    /// Whether none of a range lies in blocks that are not there.
    #[must_use]
    pub fn is_plugged(&self, gpa: u64, len: u64) -> bool {
        let Some(bank) = &self.pluggable else { return true };
        let end = gpa.saturating_add(len).min(bank.base.saturating_add(bank.len));
        let start = gpa.max(bank.base);
        if start >= end {
            return true;
        }
        let number = |at: u64| usize::try_from((at - bank.base) / bank.block).unwrap_or(usize::MAX);
        let blocks = bank.plugged.get(number(start)..=number(end - 1));
        blocks.is_some_and(|blocks| blocks.iter().all(|block| block.load(Ordering::SeqCst)))
    }

    /// [`Ram::detached`] with blocks behind it.
    pub fn detached_with_blocks(
        base: u64,
        len: u64,
        blocks: (u64, u64),
        block: u64,
    ) -> Result<Self, RamError> {
        let mut ram = Self::detached(base, len)?;
        ram.add_blocks(blocks.0, blocks.1, block)?;
        Ok(ram)
    }
}
