//! The userfaultfd of another process: its faults, and what is put there.
#![allow(unsafe_code, reason = "the pager's one module for ioctls, and for what the kernel opens in them")]

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSliceMut;
use warren_chunks::pages::PAGE_BYTES;

/// linux/userfaultfd.h.
const UFFDIO_WAKE: libc::Ioctl = request(0x8010_AA02);
const UFFDIO_COPY: libc::Ioctl = request(0xC028_AA03);
const UFFDIO_ZEROPAGE: libc::Ioctl = request(0xC020_AA04);
const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
const UFFD_EVENT_FORK: u8 = 0x13;
/// As the C library takes it.
#[allow(clippy::cast_possible_wrap, reason = "request numbers are 32 bits; C libraries differ in their sign")]
const fn request(number: u32) -> libc::Ioctl {
    number as libc::Ioctl
}

/// `struct uffd_msg`.
const MESSAGE_BYTES: usize = 32;
/// Faults read at once.
const MESSAGES: usize = 16;
/// How often the kernel may ask to try again while the process changes its mappings.
const TRIES: u32 = 1000;

/// `struct uffdio_range`.
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct Zero {
    range: Range,
    mode: u64,
    zeroed: i64,
}

/// Why a VMM is served no more.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The descriptor is no userfaultfd: the VMM's fault.
    #[error("the descriptor is no userfaultfd")]
    NotOne,
    /// It tells of something else than pages that are missing, which nobody asked it for: the VMM's fault.
    #[error("the userfaultfd tells of event {0:#x}")]
    Event(u8),
    /// Its memory does not hold still: the VMM's fault.
    #[error("the VMM's mappings do not hold still")]
    Unstable,
    /// The VMM is gone.
    #[error("the VMM is gone")]
    Gone,
    /// The VMM's memory is used up.
    #[error("the VMM may have no more memory")]
    NoMemory,
    /// The kernel refuses.
    #[error("the kernel refuses a page")]
    Refused(#[source] Errno),
}

/// What became of pages that were to be put somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// So many bytes are there now.
    Done(usize),
    /// Something was there already.
    Present,
    /// Nothing of the VMM is there any more.
    NoPlace,
}

/// A descriptor that was found to be a userfaultfd, of an address space that is not ours. Reading it never blocks.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

impl Userfault {
    /// Of what a VMM sent; `first` is an address and a length that it offered.
    pub fn judge(fd: OwnedFd, (start, len): (u64, u64)) -> Result<Self, FaultError> {
        let found = Self(fd);
        // Anything else that a VMM could send knows no such request, and one that is not set up refuses it.
        found.wake(start, len).map_err(|_| FaultError::NotOne)?;
        Ok(found)
    }

    /// Addresses that threads wait for, as many as there are now and fit.
    pub fn faults(&self, into: &mut Vec<u64>) -> Result<(), FaultError> {
        let mut bytes = [0; MESSAGE_BYTES * MESSAGES];
        let len = match self.read(&mut bytes) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(FaultError::Refused(error)),
        };
        let (messages, _) = bytes.get(..len).unwrap_or_default().as_chunks::<MESSAGE_BYTES>();
        let mut other = None;
        for message in messages {
            match message[0] {
                UFFD_EVENT_PAGEFAULT => into.extend(number(message, 16)),
                event => {
                    if event == UFFD_EVENT_FORK {
                        close_forked(message);
                    }
                    other = Some(event);
                }
            }
        }
        other.map_or(Ok(()), |event| Err(FaultError::Event(event)))
    }

    /// Whether it may block is a flag that the VMM can change at any time, so each read says for itself that it must not.
    /// Kernels before 6.10 cannot be told so: there it is set again before each read.
    fn read(&self, bytes: &mut [u8]) -> Result<usize, Errno> {
        let current = u64::MAX;
        match rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(bytes)], current, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP) => {
                rustix::io::ioctl_fionbio(&self.0, true)?;
                rustix::io::read(&self.0, bytes)
            }
            done => done,
        }
    }

    /// Copies whole pages to an address where nothing is, and wakes who waits for them.
    pub fn copy(&self, to: u64, pages: &[u8]) -> Result<Put, FaultError> {
        debug_assert!(pages.len().is_multiple_of(PAGE_BYTES), "whole pages");
        self.put(to, |put| {
            let from = pages.as_ptr().addr() as u64;
            let mut copy = Copy { to, from, len: pages.len() as u64, mode: 0, copied: 0 };
            // SAFETY: 1. UFFDIO_COPY reads and writes one `uffdio_copy`, which lives through the call; 2. it reads `len` bytes
            // at `from`, which is `pages`; 3. it writes to the other process alone, where nothing of ours can be.
            let done = unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_COPY, &raw mut copy) };
            *put = copy.copied;
            done
        })
    }

    /// Puts zeroes to an address where nothing is, and wakes who waits for them.
    pub fn zero(&self, to: u64, len: usize) -> Result<Put, FaultError> {
        self.put(to, |put| {
            let mut zero = Zero { range: Range { start: to, len: len as u64 }, mode: 0, zeroed: 0 };
            // SAFETY: 1. UFFDIO_ZEROPAGE reads and writes one `uffdio_zeropage`, which lives through the call; 2. it writes to
            // the other process alone.
            let done = unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_ZEROPAGE, &raw mut zero) };
            *put = zero.zeroed;
            done
        })
    }

    fn put(&self, to: u64, mut call: impl FnMut(&mut i64) -> libc::c_int) -> Result<Put, FaultError> {
        for _ in 0..TRIES {
            let mut put = 0;
            if call(&mut put) == 0 {
                return Ok(Put::Done(usize::try_from(put).unwrap_or(0)));
            }
            match Errno::from_io_error(&std::io::Error::last_os_error()) {
                // A part of it is there.
                Some(Errno::AGAIN) if put > 0 => return Ok(Put::Done(usize::try_from(put).unwrap_or(0))),
                Some(Errno::AGAIN) => std::thread::yield_now(),
                Some(Errno::EXIST) => {
                    // Whoever put it there has woken all who waited then; one may have come since.
                    let _ = self.wake(to, PAGE_BYTES as u64);
                    return Ok(Put::Present);
                }
                Some(Errno::NOENT) => return Ok(Put::NoPlace),
                Some(Errno::SRCH) => return Err(FaultError::Gone),
                Some(Errno::NOMEM) => return Err(FaultError::NoMemory),
                Some(error) => return Err(FaultError::Refused(error)),
                None => return Err(FaultError::Refused(Errno::IO)),
            }
        }
        Err(FaultError::Unstable)
    }

    fn wake(&self, start: u64, len: u64) -> Result<(), Errno> {
        let range = Range { start, len };
        // SAFETY: 1. UFFDIO_WAKE reads one `uffdio_range`, which lives through the call.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_WAKE, &raw const range) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn number(message: &[u8; MESSAGE_BYTES], at: usize) -> Option<u64> {
    message.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// A message of a fork has a descriptor that reading it has opened here.
fn close_forked(message: &[u8; MESSAGE_BYTES]) {
    let fd = message.get(8..).and_then(|rest| rest.first_chunk()).map(|bytes| i32::from_ne_bytes(*bytes));
    if let Some(fd) = fd.filter(|fd| *fd > 2) {
        // SAFETY: 1. the kernel has just opened it in the read that this message came by, so it is nobody else's.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_userfaultfd_is_found_out() {
        let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        for fd in [memory, pipe, bell] {
            assert!(matches!(Userfault::judge(fd, (1 << 20, 4096)), Err(FaultError::NotOne)));
        }
    }
}
