//! Work for the first disk and the network card, for measuring them.

use super::aio::many_at_once;
use super::check;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// The host's end of the card, and this one's.
const HOST: (&str, u16) = ("10.77.0.1", 5001);
const GUEST: [u8; 4] = [10, 77, 0, 2];
/// What direct transfers are aligned to.
const ALIGNMENT: usize = 4096;
const PIECE: usize = 64 << 10;

/// `[kind, size, count, depth]`: see the program's table.
pub(super) fn disk([kind, size, count, depth]: [u64; 4]) -> Result<()> {
    let disk = File::options().read(true).write(kind != 0).custom_flags(libc::O_DIRECT).open("/dev/vda")?;
    let size = usize::try_from(size).map_err(Error::other)?;
    let depth = usize::try_from(depth).map_err(Error::other)?;
    // One piece of memory for each request on its way.
    let mut room = vec![0x5A; size * depth.max(1) + ALIGNMENT];
    let skip = room.as_ptr().align_offset(ALIGNMENT);
    let pieces = room.get_mut(skip..).ok_or(ErrorKind::InvalidInput)?;
    if depth > 1 {
        return many_at_once(&disk, kind != 0, pieces, (size, count));
    }
    let piece = pieces.get_mut(..size).ok_or(ErrorKind::InvalidInput)?;
    for offset in (0..count).map(|at| at * size as u64) {
        match kind {
            0 => disk.read_exact_at(piece, offset)?,
            _ => disk.write_all_at(piece, offset)?,
        }
    }
    Ok(())
}

/// The other side tells what was asked by the same numbers.
pub(super) fn card(kind: u64, count: u64) -> Result<()> {
    set_up()?;
    let mut stream = TcpStream::connect(HOST)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind.to_le_bytes(), count.to_le_bytes()].concat())?;
    let mut piece = vec![0x5A; PIECE];
    match kind {
        0 => {
            for _ in 0..count.div_ceil(PIECE as u64) {
                stream.write_all(&piece)?;
            }
            // All of it has come.
            stream.read_exact(&mut [0])
        }
        1 => {
            let mut left = count;
            while left > 0 {
                match stream.read(&mut piece)? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    got => left = left.saturating_sub(got as u64),
                }
            }
            Ok(())
        }
        _ => {
            for _ in 0..count {
                stream.write_all(&[1])?;
                stream.read_exact(&mut [0])?;
            }
            Ok(())
        }
    }
}

/// Gives the card its address; once more changes nothing.
fn set_up() -> Result<()> {
    // SAFETY: plain numbers; the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?) };
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
        *to = libc::c_char::try_from(*from).unwrap_or(0);
    }
    // SAFETY: all zeroes is a valid address structure.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(0);
    address.sin_addr.s_addr = u32::from_ne_bytes(GUEST);
    // SAFETY: both are addresses of the same size; plain data.
    request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
    set(&socket, libc::SIOCSIFADDR, &request)?;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    set(&socket, libc::SIOCSIFFLAGS, &request)
}

fn set(socket: &OwnedFd, what: libc::c_ulong, request: &libc::ifreq) -> Result<()> {
    let what = libc::c_int::try_from(what).map_err(Error::other)?;
    // SAFETY: the request lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), what, std::ptr::from_ref(request)) }).map(drop)
}
