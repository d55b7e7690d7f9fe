//! Several requests of one thread on their way at once, by Linux's asynchronous I/O (`io_submit`): what is done is asked for
//! together, and as much is begun again by one call.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;

/// `struct iocb` (linux/aio_abi.h) on little-endian machines.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Request {
    data: u64,
    key: u32,
    flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    more_flags: u32,
    signal_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    request: u64,
    result: i64,
    more: i64,
}

const READ: u16 = 0;
const WRITE: u16 = 1;

/// Reads or writes `count` pieces of a disk in order, as many at once as there is room for in `room`.
pub(super) fn many_at_once(
    disk: &File,
    write: bool,
    room: &mut [u8],
    (size, count): (usize, u64),
) -> Result<()> {
    let depth = (room.len() / size.max(1)).max(1);
    let mut context = 0_u64;
    call([libc::SYS_io_setup, word(depth)?, word((&raw mut context).addr())?, 0, 0])?;
    let base = room.as_mut_ptr().addr();
    let mut requests = vec![Request::default(); depth];
    let mut events = vec![Event::default(); depth];
    let mut free: Vec<usize> = (0..depth).collect();
    let (mut begun, mut done) = (0, 0);
    while done < count {
        let mut batch = Vec::new();
        while begun < count
            && let Some(slot) = free.pop()
        {
            let request = requests.get_mut(slot).ok_or(ErrorKind::InvalidInput)?;
            *request = Request {
                data: slot as u64,
                opcode: if write { WRITE } else { READ },
                fd: u32::try_from(disk.as_raw_fd()).map_err(Error::other)?,
                buffer: (base + slot * size) as u64,
                len: size as u64,
                offset: i64::try_from(begun * size as u64).map_err(Error::other)?,
                ..Request::default()
            };
            batch.push(std::ptr::from_mut(request).addr());
            begun += 1;
        }
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let list = word(rest.as_ptr().addr())?;
            let taken = call([libc::SYS_io_submit, word(context)?, word(rest.len())?, list, 0])?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        let list = word(events.as_mut_ptr().addr())?;
        let got = call([libc::SYS_io_getevents, word(context)?, 1, word(depth)?, list])?;
        for event in events.iter().take(got) {
            if event.result != i64::try_from(size).map_err(Error::other)? {
                return Err(Error::other(format!("a request ended with {}", event.result)));
            }
            free.push(usize::try_from(event.data).map_err(Error::other)?);
            done += 1;
        }
    }
    // The context ends with the program: to destroy it waits for all processors to have looked away, longer than the work took.
    Ok(())
}

fn word(value: impl TryInto<i64>) -> Result<i64> {
    value.try_into().map_err(|_| ErrorKind::InvalidInput.into())
}

fn call([number, one, two, three, four]: [i64; 5]) -> Result<usize> {
    // SAFETY: 1. every address is of memory that outlives the requests: `many_at_once` returns when all are done, and a
    // failure ends the program's thread, never the memory of requests on their way before the program itself; 2. the last
    // argument, a time limit, is none.
    let got = unsafe { libc::syscall(number, one, two, three, four, 0_i64) };
    usize::try_from(got).map_err(|_| Error::last_os_error())
}
