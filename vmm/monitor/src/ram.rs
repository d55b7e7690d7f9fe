//! Guest memory: reservations, their slots, and volatile access by guest-physical address.
//!
//! Nothing here ever makes a Rust reference into guest memory.

use crate::sys::{FileUse, Reservation};
use kvm_ioctls::VmFd;
use rustix::fd::BorrowedFd;
use std::io;
use std::sync::Arc;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, ReadVolatile, WriteVolatile,
};
use warren_boot::{GuestMemory, OutOfRange};

/// One bank: a reservation that is a memory slot.
#[derive(Debug)]
struct Bank {
    base: GuestAddress,
    reservation: Reservation,
}

/// All of a guest's memory. Clones share it.
#[derive(Clone, Debug)]
pub struct Ram {
    // Before `banks`: regions are dropped before what they lie over.
    regions: GuestMemoryMmap,
    banks: Vec<Arc<Bank>>,
}

/// Why guest memory could not be made: the host's fault.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// No address space.
    #[error("cannot reserve {len} bytes of address space")]
    Reserve {
        /// How much.
        len: u64,
        /// Why.
        source: io::Error,
    },
    /// KVM refused the slot.
    #[error("KVM refuses a memory slot of {len} bytes")]
    Slot {
        /// How large.
        len: u64,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// Banks overlap, which the plan rules out.
    #[error("memory banks overlap")]
    Overlap,
    /// A file could not be mapped.
    #[error("cannot map {what}")]
    Map {
        /// Which file.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Ram {
    /// No memory.
    #[must_use]
    pub fn empty() -> Self {
        Self { regions: GuestMemoryMmap::new(), banks: Vec::new() }
    }

    /// Adds a bank as the next memory slot. Earlier clones do not see it.
    pub fn add_bank(&mut self, vm: &VmFd, base: u64, len: u64) -> Result<(), RamError> {
        self.add(vm, base, len, false)
    }

    /// The same, with a log of written pages.
    pub fn add_logged_bank(&mut self, vm: &VmFd, base: u64, len: u64) -> Result<(), RamError> {
        self.add(vm, base, len, true)
    }

    fn add(&mut self, vm: &VmFd, base: u64, len: u64, logged: bool) -> Result<(), RamError> {
        let too_large = |_| RamError::Reserve { len, source: io::ErrorKind::OutOfMemory.into() };
        let reservation = Reservation::new(usize::try_from(len).map_err(too_large)?)
            .map_err(|source| RamError::Reserve { len, source })?;
        let base = GuestAddress(base);
        let slot = u32::try_from(self.banks.len()).unwrap_or(u32::MAX);
        reservation.attach(vm, slot, base, logged).map_err(|source| RamError::Slot { len, source })?;
        let region = reservation.region(base).ok_or(RamError::Overlap)?;
        self.regions = self.regions.insert_region(Arc::new(region)).map_err(|_| RamError::Overlap)?;
        self.banks.push(Arc::new(Bank { base, reservation }));
        Ok(())
    }

    /// Bytes in all banks.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.regions.iter().map(GuestMemoryRegion::len).sum()
    }

    /// Whether there is no bank.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.banks.is_empty()
    }

    /// Puts pages of a file at a guest-physical address.
    pub fn map_file(
        &self,
        what: &'static str,
        gpa: u64,
        len: u64,
        file: (BorrowedFd<'_>, u64),
        usage: FileUse,
    ) -> Result<(), RamError> {
        let (bank, at, len) = self.locate(gpa, len).map_err(|source| RamError::Map { what, source })?;
        let (fd, offset) = file;
        bank.reservation.map_file(at, len, fd, offset, usage).map_err(|source| RamError::Map { what, source })
    }

    /// Asks for huge pages; a host without them goes on with small ones.
    pub fn advise_huge(&self, gpa: u64, len: u64) {
        if let Ok((bank, at, len)) = self.locate(gpa, len) {
            let _ = bank.reservation.advise_huge(at, len);
        }
    }

    /// Copies `bytes` to `gpa`.
    pub fn put(&self, gpa: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        self.regions.write_slice(bytes, GuestAddress(gpa)).map_err(|_| OutOfRange { gpa, len: bytes.len() })
    }

    /// Fills `bytes` from `gpa`.
    pub fn get(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), OutOfRange> {
        let len = bytes.len();
        self.regions.read_slice(bytes, GuestAddress(gpa)).map_err(|_| OutOfRange { gpa, len })
    }

    /// One read from a descriptor straight into guest memory; how many bytes came.
    pub fn fill_from(&self, gpa: u64, len: usize, source: &mut impl ReadVolatile) -> io::Result<usize> {
        let mut slice = self.regions.get_slice(GuestAddress(gpa), len).map_err(io::Error::other)?;
        source.read_volatile(&mut slice).map_err(volatile_error)
    }

    /// One write from guest memory straight into a descriptor; how many bytes went.
    pub fn send_to(&self, gpa: u64, len: usize, target: &mut impl WriteVolatile) -> io::Result<usize> {
        let slice = self.regions.get_slice(GuestAddress(gpa), len).map_err(io::Error::other)?;
        target.write_volatile(&slice).map_err(volatile_error)
    }

    fn locate(&self, gpa: u64, len: u64) -> io::Result<(&Bank, usize, usize)> {
        let found = self.banks.iter().rev().find(|bank| bank.base.0 <= gpa);
        let bank = found.ok_or(io::ErrorKind::InvalidInput)?;
        let size = |value: u64| usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
        Ok((bank, size(gpa - bank.base.0)?, size(len)?))
    }
}

/// The I/O error inside vm-memory's, so that callers see `WouldBlock` and the like.
fn volatile_error(error: vm_memory::VolatileMemoryError) -> io::Error {
    match error {
        vm_memory::VolatileMemoryError::IOError(source) => source,
        other => io::Error::other(other),
    }
}

impl GuestMemory for Ram {
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        self.put(gpa, bytes)
    }

    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), OutOfRange> {
        self.get(gpa, bytes)
    }
}
