//! Guest memory: reservations, their slots, and volatile access by guest-physical address.
//!
//! Nothing here ever makes a Rust reference into guest memory.

pub mod held;
pub mod paged;
pub mod plugged;

use crate::sys::pool::{HugePage, PoolError};
use crate::sys::vectored::{Direction, send_behind, transfer, transfer_stream};
use crate::sys::{FileUse, Reservation};
use kvm_ioctls::VmFd;
use plugged::Pluggable;
use rustix::fd::BorrowedFd;
use std::io;
use std::sync::Arc;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, ReadVolatile,
    VolatileMemoryError, VolatileSlice, WriteVolatile,
};
use warren_boot::{GuestMemory, OutOfRange};
use warren_devices::virtio::Range;

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
    pluggable: Option<Arc<Pluggable>>,
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
    /// No huge pages.
    #[error(transparent)]
    Pool(#[from] PoolError),
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
    /// A part could not be held back.
    #[error("cannot hold memory back")]
    Hold {
        /// Why.
        source: io::Error,
    },
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
        Self { regions: GuestMemoryMmap::new(), banks: Vec::new(), pluggable: None }
    }

    /// Adds a bank as the next memory slot. Earlier clones do not see it.
    pub fn add_bank(&mut self, vm: &VmFd, base: u64, len: u64) -> Result<(), RamError> {
        self.add(vm, base, Self::reserve(len)?, false)
    }

    /// The same, with a log of written pages.
    pub fn add_logged_bank(&mut self, vm: &VmFd, base: u64, len: u64) -> Result<(), RamError> {
        self.add(vm, base, Self::reserve(len)?, true)
    }

    /// The same of huge pages that the host has set aside.
    pub fn add_huge_bank(&mut self, vm: &VmFd, base: u64, len: u64, page: HugePage) -> Result<(), RamError> {
        self.add(vm, base, Reservation::of_pool(len, page)?, false)
    }

    fn add(&mut self, vm: &VmFd, base: u64, reservation: Reservation, logged: bool) -> Result<(), RamError> {
        let len = reservation.bytes() as u64;
        let base = GuestAddress(base);
        let slot = u32::try_from(self.banks.len()).unwrap_or(u32::MAX);
        reservation.attach(vm, slot, base, logged).map_err(|source| RamError::Slot { len, source })?;
        self.insert(base, reservation)
    }

    fn reserve(len: u64) -> Result<Reservation, RamError> {
        let too_large = |_| RamError::Reserve { len, source: io::ErrorKind::OutOfMemory.into() };
        Reservation::new(usize::try_from(len).map_err(too_large)?)
            .map_err(|source| RamError::Reserve { len, source })
    }

    fn insert(&mut self, base: GuestAddress, reservation: Reservation) -> Result<(), RamError> {
        let region = reservation.region(base).ok_or(RamError::Overlap)?;
        self.regions = self.regions.insert_region(Arc::new(region)).map_err(|_| RamError::Overlap)?;
        self.banks.push(Arc::new(Bank { base, reservation }));
        Ok(())
    }

    /// One bank that is no machine's slot: for tests and fuzzing of what only reads and writes memory.
    pub fn detached(base: u64, len: u64) -> Result<Self, RamError> {
        let mut ram = Self::empty();
        ram.insert(GuestAddress(base), Self::reserve(len)?)?;
        Ok(ram)
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

    /// Whether files can be put over it ([`Self::map_file`]).
    #[must_use]
    pub fn takes_files(&self) -> bool {
        self.banks.iter().all(|bank| bank.reservation.takes_files())
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

    /// The reverse: how memory begins.
    pub fn refuse_huge(&self, gpa: u64, len: u64) {
        if let Ok((bank, at, len)) = self.locate(gpa, len) {
            let _ = bank.reservation.refuse_huge(at, len);
        }
    }

    /// Gives whole pages back to the host, as far as they are memory; the guest may touch them again at any time.
    pub fn give_back(&self, gpa: u64, len: u64) -> io::Result<()> {
        let end = gpa.saturating_add(len);
        for bank in &self.banks {
            let (first, last) = (bank.base.0, bank.base.0 + bank.reservation.bytes() as u64);
            let (from, to) = (gpa.max(first), end.min(last));
            if from < to {
                let size = |value: u64| usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
                bank.reservation.give_back(size(from - first)?, size(to - from)?)?;
            }
        }
        Ok(())
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

    /// Fills `len` bytes at `gpa` from a file, or fails when it ends before.
    pub fn fill(&self, file: BorrowedFd<'_>, offset: u64, gpa: u64, len: u64) -> io::Result<()> {
        let (mut offset, mut gpa, mut left) = (offset, gpa, len);
        while left > 0 {
            let now = u32::try_from(left).unwrap_or(1 << 30);
            self.transfer(file, offset, &[Range { gpa, len: now }], Direction::Read)?;
            (offset, gpa, left) = (offset + u64::from(now), gpa + u64::from(now), left - u64::from(now));
        }
        Ok(())
    }

    /// Moves all bytes of some ranges from or to a file, or fails when it ends before.
    pub fn transfer(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        ranges: &[Range],
        direction: Direction,
    ) -> io::Result<()> {
        let mut pieces = self.pieces(ranges)?;
        let mut offset = offset;
        let mut rest = pieces.as_mut_slice();
        while !rest.is_empty() {
            let done = match transfer(file, rest, offset, direction) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(done) => done,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            offset += done as u64;
            rest = advance(rest, done).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Fills some ranges with what stands from an address of other memory on.
    pub fn copy_from(&self, other: &Self, at: u64, ranges: &[Range]) -> io::Result<()> {
        let mut at = at;
        for piece in self.pieces(ranges)? {
            let len = u32::try_from(piece.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            let mut into = piece;
            for from in other.pieces(&[Range { gpa: at, len }])? {
                from.copy_to_volatile_slice(into);
                into = into.offset(from.len()).map_err(io::Error::other)?;
            }
            at += u64::from(len);
        }
        Ok(())
    }

    /// One call that moves bytes of some ranges from or to what has no position; how many went.
    pub fn transfer_stream(
        &self,
        stream: BorrowedFd<'_>,
        ranges: &[Range],
        direction: Direction,
    ) -> io::Result<usize> {
        transfer_stream(stream, &self.pieces(ranges)?, direction)
    }

    /// One call that writes `head` and then the bytes of some ranges.
    pub fn send_behind(&self, stream: BorrowedFd<'_>, head: &[u8], ranges: &[Range]) -> io::Result<usize> {
        send_behind(stream, head, &self.pieces(ranges)?)
    }

    fn pieces(&self, ranges: &[Range]) -> io::Result<Vec<VolatileSlice<'_>>> {
        let mut pieces = Vec::with_capacity(ranges.len());
        for range in ranges {
            for piece in self.regions.get_slices(GuestAddress(range.gpa), range.len as usize) {
                pieces.push(piece.map_err(io::Error::other)?);
            }
        }
        Ok(pieces)
    }

    /// The regions, for what walks rings in them.
    #[must_use]
    pub(crate) fn regions(&self) -> &GuestMemoryMmap {
        &self.regions
    }

    fn locate(&self, gpa: u64, len: u64) -> io::Result<(&Arc<Bank>, usize, usize)> {
        let found = self.banks.iter().rev().find(|bank| bank.base.0 <= gpa);
        let bank = found.ok_or(io::ErrorKind::InvalidInput)?;
        let size = |value: u64| usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
        Ok((bank, size(gpa - bank.base.0)?, size(len)?))
    }
}

/// What is left of some pieces after their first `done` bytes.
fn advance<'a, 'b>(
    pieces: &'a mut [VolatileSlice<'b>],
    mut done: usize,
) -> Result<&'a mut [VolatileSlice<'b>], VolatileMemoryError> {
    let mut whole = 0;
    while let Some(first) = pieces.get(whole).filter(|first| first.len() <= done) {
        done -= first.len();
        whole += 1;
    }
    let rest = pieces.get_mut(whole..).unwrap_or_default();
    if let Some(first) = rest.first_mut() {
        *first = first.offset(done)?;
    }
    Ok(rest)
}

/// The I/O error inside vm-memory's, so that callers see `WouldBlock` and the like.
fn volatile_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(source) => source,
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
