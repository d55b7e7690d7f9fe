//! A tap device that somebody else made: what it is, and what its frames look like.

use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::ioctl_fionbio;
use std::fs::File;
use std::io;

/// Why a descriptor is no tap that can be used: whoever made it is at fault.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// It is none.
    #[error("the descriptor is no tap device")]
    NotOne(#[source] io::Error),
    /// It was made otherwise.
    #[error("the tap device must be made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR and nothing else of these")]
    Flags,
    /// The kernel refused.
    #[error("the tap device cannot be set up")]
    SetUp(#[source] io::Error),
}

const WANTED: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
const COMPARED: libc::c_int = WANTED | libc::IFF_TUN;

/// Makes one, for whoever stands in the jailer's place (tests, benches): a sealed VMM opens nothing.
pub fn make(name: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: 1. all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = libc::c_char::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(WANTED).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: 1. TUNSETIFF reads and writes one ifreq, which lives through the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } {
        0 => Ok(file.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Checks it, and makes its frames begin with a header of `header_len` bytes and its reads not wait.
pub fn set_up(tap: BorrowedFd<'_>, header_len: u32) -> Result<(), TapError> {
    // SAFETY: 1. all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: 1. TUNGETIFF writes one ifreq, which lives through the call; another kind of file refuses.
    if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) } != 0 {
        return Err(TapError::NotOne(io::Error::last_os_error()));
    }
    // SAFETY: 1. the call above filled the flags of the union.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    if flags & COMPARED != WANTED {
        return Err(TapError::Flags);
    }
    let header_len = libc::c_int::try_from(header_len).unwrap_or(0);
    // SAFETY: 1. TUNSETVNETHDRSZ reads one int, which lives through the call.
    if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const header_len) } != 0 {
        return Err(TapError::SetUp(io::Error::last_os_error()));
    }
    ioctl_fionbio(tap, true).map_err(|error| TapError::SetUp(error.into()))
}

/// Tells the kernel which frames its reader takes: partial checksums, and TCP segments over IPv4 and IPv6.
pub fn set_offload(tap: BorrowedFd<'_>, (checksums, tcp4, tcp6): (bool, bool, bool)) -> io::Result<()> {
    let flag = |on: bool, flag: libc::c_uint| if on { flag } else { 0 };
    let flags =
        flag(checksums, libc::TUN_F_CSUM) | flag(tcp4, libc::TUN_F_TSO4) | flag(tcp6, libc::TUN_F_TSO6);
    // SAFETY: 1. TUNSETOFFLOAD takes a plain number.
    match unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
