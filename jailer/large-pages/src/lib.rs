//! Files in memory, in large pages where the kernel makes them.
//!
//! A guest's first touch of a page is an exit and two faults, and where nested paging is emulated that is most of a restore. What all
//! guests of a host read and nobody writes (the guest program, a function's code, a kernel's text) is one file in memory, mapped by
//! each: as one large page it is touched for the first time once.
//!
//! The kernel's settings for large pages (`/sys/kernel/mm/transparent_hugepage`) are the operator's: most leave files in memory
//! small. So they are put together by request, `MADV_COLLAPSE` of Linux 6.1, which asks no setting but a `deny`.
#![allow(unsafe_code, reason = "a mapping of a file that nobody reads, to name its pages by")]

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::num::NonZeroUsize;
use std::ptr::null_mut;

/// Bytes of a large page.
pub const LARGE_PAGE: usize = 2 << 20;
/// `MADV_COLLAPSE`, of asm-generic/mman-common.h.
const COLLAPSE: libc::c_int = 25;

/// Puts the pages of a file in memory (a memfd, or a file of a tmpfs) together, from `offset` on `len` bytes, both of whole large
/// pages; holes among them become pages of zeroes. To be called before anybody maps them, and once: it waits for every processor.
///
/// # Errors
/// As the kernel has it: `EINVAL` before 6.1, or where it makes no large pages; `ENOMEM` where none are to be had. Nothing has
/// changed then that a reader could see.
pub fn gather(file: impl AsFd, offset: u64, len: NonZeroUsize) -> Result<(), Errno> {
    let len = len.get();
    if !len.is_multiple_of(LARGE_PAGE) || !offset.is_multiple_of(LARGE_PAGE as u64) {
        return Err(Errno::INVAL);
    }
    let whole = len.checked_add(LARGE_PAGE).ok_or(Errno::NOMEM)?;
    // SAFETY: 1. no fixed address, so nothing that is there is replaced.
    let reserved = unsafe { mmap_anonymous(null_mut(), whole, ProtFlags::empty(), MapFlags::PRIVATE) }?;
    let start = reserved.addr().next_multiple_of(LARGE_PAGE) - reserved.addr();
    // SAFETY: 1. `start` is less than a large page, and that much more than `len` was reserved.
    let start = unsafe { reserved.byte_add(start) };
    // SAFETY: 1. the range lies in what was reserved above, where nothing is; 2. nobody reads through it, so that it is nothing to
    // anybody whether the file changes.
    let mapped =
        unsafe { mmap(start, len, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::FIXED, file, offset) };
    let advise = |start, advice| {
        // SAFETY: 1. the range is ours; 2. either advice changes how the file's pages lie, never their contents.
        match unsafe { libc::madvise(start, len, advice) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    };
    // Linux 6.1 puts nothing together where this mapping has no pages yet.
    let gathered = mapped.and_then(|start| {
        let _ = advise(start, libc::MADV_POPULATE_READ);
        advise(start, COLLAPSE)
    });
    // SAFETY: 1. exactly what was reserved here, of which nobody else knows.
    let _ = unsafe { munmap(reserved, whole) };
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::io::{pread, pwrite};

    /// Contents stay, holes stay zero, whatever this kernel makes of the request.
    #[test]
    fn contents_stay() {
        let file = memfd_create("large", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 2 * LARGE_PAGE as u64).unwrap();
        let written = [(0, 7_u8), (LARGE_PAGE as u64 - 1, 8), (LARGE_PAGE as u64 + 5000, 9)];
        for (at, byte) in written {
            pwrite(&file, &[byte], at).unwrap();
        }
        let len = NonZeroUsize::new(2 * LARGE_PAGE).unwrap();
        let gathered = gather(&file, 0, len);
        assert!(matches!(gathered, Ok(()) | Err(Errno::INVAL | Errno::NOMEM | Errno::AGAIN)), "{gathered:?}");
        let mut bytes = vec![1; len.get()];
        assert_eq!(pread(&file, &mut bytes, 0), Ok(bytes.len()));
        for (at, byte) in written {
            assert_eq!(std::mem::take(&mut bytes[usize::try_from(at).unwrap()]), byte);
        }
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn parts_of_large_pages_are_refused() {
        let file = memfd_create("large", MemfdFlags::CLOEXEC).unwrap();
        for (offset, len) in [(4096, LARGE_PAGE), (0, 4096), (0, usize::MAX)] {
            assert!(gather(&file, offset, NonZeroUsize::new(len).unwrap()).is_err());
        }
    }
}
