//! Descriptors that the process was started with.
#![allow(unsafe_code, reason = "a descriptor that is known by its number alone cannot be owned safely")]

use rustix::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::io;

/// Takes over a descriptor of the plan. Each number may be taken once, before anything else is opened.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: 1. the borrow ends with this function, before anything could close the number; 2. asked of a number that is not
    // open, the kernel only refuses.
    let there = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(there, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: 1. it was just seen open; 2. at the start of the process nothing else owns it; 3. the caller takes each once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
