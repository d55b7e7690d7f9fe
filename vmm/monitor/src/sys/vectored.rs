//! I/O straight into and out of guest memory in several pieces: of files at a position, of sockets as they come.

use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use vm_memory::VolatileSlice;
use vm_memory::volatile_memory::PtrGuardMut;

/// Most pieces of one call (the kernel's UIO_MAXIOV).
pub const PIECES_MAX: usize = 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the file into memory.
    Read,
    /// From memory into the file.
    Write,
}

/// One call for the first [`PIECES_MAX`] pieces; how many bytes went.
pub fn transfer(
    file: BorrowedFd<'_>,
    pieces: &[VolatileSlice<'_>],
    offset: u64,
    direction: Direction,
) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let guards: Vec<_> = pieces.iter().take(PIECES_MAX).map(VolatileSlice::ptr_guard_mut).collect();
    let vectors = vectors(&guards);
    let count = libc::c_int::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let call = match direction {
        Direction::Read => libc::preadv,
        Direction::Write => libc::pwritev,
    };
    // SAFETY: 1. every vector is a live piece of guest memory, held by its guard through the call; 2. no Rust reference
    // points into guest memory, so the kernel may write there; 3. `count` is the length of `vectors`.
    let done = unsafe { call(file.as_raw_fd(), vectors.as_ptr(), count, offset) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// One call on a descriptor that has no position; how many bytes went.
pub fn transfer_stream(
    stream: BorrowedFd<'_>,
    pieces: &[VolatileSlice<'_>],
    direction: Direction,
) -> io::Result<usize> {
    let guards: Vec<_> = pieces.iter().take(PIECES_MAX).map(VolatileSlice::ptr_guard_mut).collect();
    let vectors = vectors(&guards);
    let count = libc::c_int::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let call = match direction {
        Direction::Read => libc::readv,
        Direction::Write => libc::writev,
    };
    // SAFETY: 1. every vector is a live piece of guest memory, held by its guard through the call; 2. no Rust reference
    // points into guest memory, so the kernel may write there; 3. `count` is the length of `vectors`.
    let done = unsafe { call(stream.as_raw_fd(), vectors.as_ptr(), count) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// One call that writes some bytes and then pieces of guest memory; how many bytes went.
pub fn send_behind(stream: BorrowedFd<'_>, head: &[u8], pieces: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let guards: Vec<_> = pieces.iter().take(PIECES_MAX - 1).map(VolatileSlice::ptr_guard_mut).collect();
    let mut all = vec![libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() }];
    all.extend(vectors(&guards));
    let count = libc::c_int::try_from(all.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: 1. `head` and every piece live through the call, and writing only reads them; 2. `count` is the length of
    // `all`.
    let done = unsafe { libc::writev(stream.as_raw_fd(), all.as_ptr(), count) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

fn vectors(guards: &[PtrGuardMut]) -> Vec<libc::iovec> {
    let vector = |guard: &PtrGuardMut| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() };
    guards.iter().map(vector).collect()
}

/// Frees or zeroes part of a file: the two modes of `fallocate` that a disk needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hole {
    /// The blocks are given back.
    Punch,
    /// The bytes read as zeroes, blocks may stay.
    Zero,
}

/// Makes a hole that does not change the file's size.
pub fn make_hole(file: BorrowedFd<'_>, offset: u64, len: u64, hole: Hole) -> io::Result<()> {
    let mode = match hole {
        Hole::Punch => libc::FALLOC_FL_PUNCH_HOLE,
        Hole::Zero => libc::FALLOC_FL_ZERO_RANGE,
    } | libc::FALLOC_FL_KEEP_SIZE;
    let number = |value| libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    // SAFETY: 1. plain numbers and an open descriptor; it touches no memory.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, number(offset)?, number(len)?) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
