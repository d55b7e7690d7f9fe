//! Faults of guest memory that another process resolves (userfaultfd).

use super::Reservation;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::io;
use std::mem::ManuallyDrop;

/// linux/userfaultfd.h.
const USERFAULTFD_IOC_NEW: libc::Ioctl = request(0xAA00);
const UFFDIO_API: libc::Ioctl = request(0xC018_AA3F);
const UFFDIO_REGISTER: libc::Ioctl = request(0xC020_AA00);
const UFFD_API: u64 = 0xAA;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;

/// As the C library takes it.
#[allow(clippy::cast_possible_wrap, reason = "request numbers are 32 bits; C libraries differ in their sign")]
const fn request(number: u32) -> libc::Ioctl {
    number as libc::Ioctl
}

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// A userfaultfd of this process.
///
/// It is never closed: with its last descriptor the kernel forgets the registrations, and whoever waits for a page goes on with
/// zeroes in it. A pager that dies holds one, this process the other until it is gone itself.
#[derive(Debug)]
pub struct Userfault(ManuallyDrop<OwnedFd>);

impl Userfault {
    /// Makes one by a descriptor of /dev/userfaultfd, which needs no privilege and resolves the kernel's own faults too: KVM's.
    pub fn new(device: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: 1. the argument is a number; the kernel touches no memory of ours.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: 1. the kernel has just opened it for this call, so it is nobody else's.
        let made = unsafe { OwnedFd::from_raw_fd(fd) };
        // No feature is asked for: none that would make a call of ours wait until the pager has read of it.
        let mut api = Api { version: UFFD_API, features: 0, ioctls: 0 };
        // SAFETY: 1. UFFDIO_API reads and writes one `uffdio_api`, which lives through the call.
        match unsafe { libc::ioctl(made.as_raw_fd(), UFFDIO_API, &raw mut api) } {
            0 => Ok(Self(ManuallyDrop::new(made))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whoever touches a page of a part that is not there waits for it from now on. The part's address.
    pub fn register(&self, memory: &Reservation, at: usize, len: usize) -> io::Result<u64> {
        let start = memory.part(at, len)?.addr() as u64;
        let mode = UFFDIO_REGISTER_MODE_MISSING;
        let mut register = Register { start, len: len as u64, mode, ioctls: 0 };
        // SAFETY: 1. UFFDIO_REGISTER reads and writes one `uffdio_register`, which lives through the call; 2. the range is
        // a reservation's (`part`), which holds guest memory only: what another process puts there is read by volatile
        // accesses and trusted as little as what the guest writes.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) } {
            0 => Ok(start),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
