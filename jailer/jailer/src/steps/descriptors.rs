//! Descriptors: the listed ones in their places, no other.

use super::Child;
use crate::sys;
use rustix::{
    fs::{FileType, OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat},
    io::Errno,
    net::{AddressFamily, SocketType, sockopt},
    pipe::fcntl_getpipe_size,
};
use std::os::fd::{BorrowedFd, RawFd};
use warren_sandbox_plan::plan::DescriptorKind;

/// The lowest number a source may have, so that putting one in its place never overwrites another.
pub(crate) const FIRST_FREE: RawFd = 64;

/// Puts the sources at 0, 1, ...; after them the status socket and the program, which exec closes.
pub(super) fn arrange(places: usize, child: &mut Child<'_>) -> Result<(), Errno> {
    if places != child.sources.len() {
        return Err(Errno::INVAL);
    }
    let mut next: RawFd = 0;
    for source in child.sources {
        sys::place(*source, next, false)?;
        next += 1;
    }
    sys::place(child.status, next, true)?;
    child.status = next;
    sys::place(child.program, next + 1, true)?;
    child.program = next + 1;
    sys::close_from(next + 2)
}

/// Whether a descriptor of a request is what the plan says; the jailer asks before it makes anything.
pub(crate) fn check(kind: DescriptorKind, fd: BorrowedFd<'_>) -> Result<(), &'static str> {
    // Nothing here asks a file system before it is known to be the kernel's own: one that its user serves (FUSE) could
    // let the jailer wait for ever.
    match kind {
        DescriptorKind::Listener => {
            let listens = sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
                && sockopt::socket_type(fd) == Ok(SocketType::STREAM)
                && sockopt::socket_acceptconn(fd) == Ok(true);
            if listens { Ok(()) } else { Err("a listening Unix stream socket") }
        }
        DescriptorKind::Log => {
            let fits = fcntl_getpipe_size(fd).is_ok() || sockopt::socket_type(fd).is_ok();
            if fits { Ok(()) } else { Err("a pipe or a socket") }
        }
        DescriptorKind::SealedMemory => {
            let wanted = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW;
            match fcntl_get_seals(fd) {
                Ok(seals) if seals.contains(wanted) => Ok(()),
                _ => Err("a memfd sealed against writing and resizing"),
            }
        }
        DescriptorKind::Packets => {
            let fits = sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
                && sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET);
            if fits { Ok(()) } else { Err("a Unix packet socket") }
        }
        // What was opened as a folder is one: the kernel keeps the flag, and nobody can set it later. Only with this flag,
        // so that no file system is asked.
        DescriptorKind::Folder { .. } => match fcntl_getfl(fd) {
            Ok(flags) if flags.contains(OFlags::DIRECTORY) && flags & OFlags::RWMODE == OFlags::RDONLY => {
                Ok(())
            }
            _ => Err("a folder, opened as one (O_DIRECTORY)"),
        },
        // Files that know seals are memfds (or files on tmpfs): no directory, no device, no disk.
        DescriptorKind::Memory => match fcntl_get_seals(fd) {
            Ok(_) if is_regular(fd) => Ok(()),
            _ => Err("a memfd"),
        },
    }
}

fn is_regular(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}
