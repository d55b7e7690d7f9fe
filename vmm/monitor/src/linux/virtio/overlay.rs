//! A disk over a base: reads come from whoever has the sectors, writes go to the disk's own file.
//!
//! ```text
//!  read   own sectors ------------------> the disk's file
//!         the base's, of a file --------> that file, which every copy of the guest reads in place
//!                   , of a pager -------> a mapping whose missing pages are waited for, and given back again
//!  write, discard, zeroes --------------> the disk's file; those sectors are its own from then on
//! ```
//! What a pager brought is this process's memory, and the guest caches what it reads: so it is given back after every
//! 8 MiB, and comes again if it is read again. A request is worked on in pieces, so that one long one keeps no more.

use crate::linux::load::Base;
use crate::linux::machine::LinuxError;
use crate::paging::{PagerError, Paging};
use crate::ram::Ram;
use crate::sys::userfault::Userfault;
use crate::sys::vectored::Direction;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use warren_abi::window::PAGE_SIZE;
use warren_devices::virtio::Range;
use warren_devices::virtio::overlay::{Holder, Overlay, Part};
use warren_state::wasm::Area;
use warren_vmm_protocol::pager::AROUND_PAGES;

/// Most bytes of a paged base that are kept in memory.
const KEPT_BYTES: u64 = 8 << 20;
/// Most bytes of a base that are read at once.
const PIECE_BYTES: u64 = 1 << 20;
/// What comes at once of a paged base.
const AROUND_BYTES: u64 = AROUND_PAGES as u64 * PAGE_SIZE;

/// What lies under a disk's file.
#[derive(Debug)]
pub struct Under {
    overlay: Overlay,
    base: Reads,
}

#[derive(Debug)]
enum Reads {
    File(OwnedFd),
    Paged(PagedDisk),
}

/// A base that a pager brings.
#[derive(Debug)]
pub struct PagedDisk {
    bytes: Ram,
    len: u64,
    /// Bytes that may have come since the last were given back.
    kept: u64,
}

impl PagedDisk {
    /// Hands a base of so many bytes, whole pages, to the pager behind a socket.
    pub fn begin(len: u64, userfault: &Userfault, socket: OwnedFd) -> Result<(Self, Paging), PagerError> {
        let bytes = Ram::detached(0, len).map_err(PagerError::Disk)?;
        let paging = Paging::begin(&bytes, &[Area { gpa: 0, len }], &[], (userfault, socket))?;
        Ok((Self { bytes, len, kept: 0 }, paging))
    }

    fn read(&mut self, offset: u64, into: &[Range], len: u64, ram: &Ram) -> io::Result<()> {
        let copied = ram.copy_from(&self.bytes, offset, into);
        let first = offset / AROUND_BYTES;
        self.kept += ((offset + len).div_ceil(AROUND_BYTES) - first) * AROUND_BYTES;
        if self.kept >= KEPT_BYTES {
            self.bytes.give_back(0, self.len)?;
            self.kept = 0;
        }
        copied
    }
}

impl Under {
    /// A base under a disk of so many bytes.
    pub fn new(base: Base, len: u64) -> Result<Self, LinuxError> {
        let base = match base {
            Base::File(file) => Reads::File(file),
            Base::Paged(disk) => Reads::Paged(disk),
            Base::Pager(_) => return Err(LinuxError::Other("a disk that no pager was asked for".into())),
        };
        Ok(Self { overlay: Overlay::new(len), base })
    }

    /// Fills ranges from the disk, whose own sectors are in `file`.
    pub fn read(&mut self, file: BorrowedFd<'_>, offset: u64, into: &[Range], ram: &Ram) -> io::Result<()> {
        let end = offset + into.iter().map(|range| u64::from(range.len)).sum::<u64>();
        let (mut at, mut rest) = (offset, Rest { ranges: into, passed: 0 });
        while let Some(Part { holder, offset, len }) = self.overlay.part(at, end - at) {
            let len = if holder == Holder::Base { len.min(PIECE_BYTES) } else { len };
            let into = rest.take(len);
            match (holder, &mut self.base) {
                (Holder::Own, _) => ram.transfer(file, offset, &into, Direction::Read)?,
                (Holder::Base, Reads::File(base)) => {
                    ram.transfer(base.as_fd(), offset, &into, Direction::Read)?;
                }
                (Holder::Base, Reads::Paged(disk)) => disk.read(offset, &into, len, ram)?,
            }
            at += len;
        }
        if at == end { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// All of the disk is the base's again.
    pub fn begin_again(&mut self) {
        self.overlay = Overlay::new(self.overlay.bytes());
    }

    /// These bytes are in the disk's own file now.
    pub fn written(&mut self, offset: u64, len: u64) {
        self.overlay.take(offset, len);
    }
}

/// Ranges of which some bytes were taken.
struct Rest<'a> {
    ranges: &'a [Range],
    /// Of the first.
    passed: u32,
}

impl Rest<'_> {
    fn take(&mut self, len: u64) -> Vec<Range> {
        let (mut taken, mut left) = (Vec::new(), len);
        while let Some((first, later)) = self.ranges.split_first()
            && left > 0
        {
            let rest = first.len - self.passed;
            let now = rest.min(u32::try_from(left).unwrap_or(u32::MAX));
            taken.push(Range { gpa: first.gpa + u64::from(self.passed), len: now });
            left -= u64::from(now);
            self.passed += now;
            if now == rest {
                (self.ranges, self.passed) = (later, 0);
            }
        }
        taken
    }
}
