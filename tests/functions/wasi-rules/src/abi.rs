//! The interface itself, each function behind a safe door.
#![allow(unsafe_code, reason = "the functions of the interface take addresses")]

mod types;

pub use types::*;

mod import {
    use super::{Event, FdStat, FileStat, Subscription};
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub fn args_get(argv: *mut u32, buffer: *mut u8) -> u16;
        pub fn args_sizes_get(count: *mut u32, size: *mut u32) -> u16;
        pub fn clock_res_get(clock: u32, time: *mut u64) -> u16;
        pub fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u16;
        pub fn environ_get(environ: *mut u32, buffer: *mut u8) -> u16;
        pub fn environ_sizes_get(count: *mut u32, size: *mut u32) -> u16;
        pub fn fd_advise(fd: u32, offset: u64, len: u64, advice: u32) -> u16;
        pub fn fd_allocate(fd: u32, offset: u64, len: u64) -> u16;
        pub fn fd_close(fd: u32) -> u16;
        pub fn fd_fdstat_get(fd: u32, stat: *mut FdStat) -> u16;
        pub fn fd_fdstat_set_flags(fd: u32, flags: u32) -> u16;
        pub fn fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64) -> u16;
        pub fn fd_filestat_get(fd: u32, stat: *mut FileStat) -> u16;
        pub fn fd_filestat_set_size(fd: u32, size: u64) -> u16;
        pub fn fd_filestat_set_times(fd: u32, atim: u64, mtim: u64, flags: u32) -> u16;
        pub fn fd_pread(fd: u32, iovs: *const [usize; 2], count: usize, offset: u64, n: *mut u32) -> u16;
        pub fn fd_prestat_dir_name(fd: u32, path: *mut u8, len: usize) -> u16;
        pub fn fd_prestat_get(fd: u32, prestat: *mut [u32; 2]) -> u16;
        pub fn fd_pwrite(fd: u32, iovs: *const [usize; 2], count: usize, offset: u64, n: *mut u32) -> u16;
        pub fn fd_read(fd: u32, iovs: *const [usize; 2], count: usize, n: *mut u32) -> u16;
        pub fn fd_readdir(fd: u32, buffer: *mut u8, len: usize, cookie: u64, used: *mut u32) -> u16;
        pub fn fd_renumber(from: u32, to: u32) -> u16;
        pub fn fd_seek(fd: u32, delta: i64, whence: u32, place: *mut u64) -> u16;
        pub fn fd_tell(fd: u32, place: *mut u64) -> u16;
        pub fn fd_write(fd: u32, iovs: *const [usize; 2], count: usize, n: *mut u32) -> u16;
        pub fn path_create_directory(fd: u32, path: *const u8, len: usize) -> u16;
        pub fn path_filestat_get(fd: u32, how: u32, path: *const u8, len: usize, stat: *mut FileStat) -> u16;
        pub fn path_filestat_set_times(
            fd: u32,
            how: u32,
            path: *const u8,
            len: usize,
            atim: u64,
            mtim: u64,
            flags: u32,
        ) -> u16;
        pub fn path_link(
            fd: u32,
            how: u32,
            path: *const u8,
            len: usize,
            to: u32,
            new: *const u8,
            new_len: usize,
        ) -> u16;
        pub fn path_open(
            fd: u32,
            how: u32,
            path: *const u8,
            len: usize,
            oflags: u32,
            rights: u64,
            inheriting: u64,
            flags: u32,
            opened: *mut u32,
        ) -> u16;
        pub fn path_readlink(
            fd: u32,
            path: *const u8,
            len: usize,
            buffer: *mut u8,
            room: usize,
            used: *mut u32,
        ) -> u16;
        pub fn path_remove_directory(fd: u32, path: *const u8, len: usize) -> u16;
        pub fn path_rename(
            fd: u32,
            path: *const u8,
            len: usize,
            to: u32,
            new: *const u8,
            new_len: usize,
        ) -> u16;
        pub fn path_symlink(
            target: *const u8,
            target_len: usize,
            fd: u32,
            path: *const u8,
            len: usize,
        ) -> u16;
        pub fn path_unlink_file(fd: u32, path: *const u8, len: usize) -> u16;
        pub fn poll_oneoff(
            subscriptions: *const Subscription,
            events: *mut Event,
            count: usize,
            written: *mut u32,
        ) -> u16;
        pub fn random_get(buffer: *mut u8, len: usize) -> u16;
        pub fn sched_yield() -> u16;
        pub fn sock_shutdown(fd: u32, how: u32) -> u16;
    }
}

/// The answer of a call that gives nothing but its error number.
fn done(errno: u16) -> Answer<()> {
    if errno == 0 { Ok(()) } else { Err(Errno(errno)) }
}

/// A call with a place for its result.
fn filled<T: Default>(call: impl FnOnce(&mut T) -> u16) -> Answer<T> {
    let mut value = T::default();
    done(call(&mut value)).map(|()| value)
}

/// Passes an expression to an import. SAFETY of every use: each address below comes from a reference, slice or string
/// of the length that is passed beside it, alive through the call.
macro_rules! call {
    ($name:ident($($argument:expr),*)) => {
        // SAFETY: see the macro's own words: addresses come from live references with their lengths.
        unsafe { import::$name($($argument),*) }
    };
}

/// Defines doors for calls without results: descriptor, then plain numbers.
macro_rules! plain {
    ($($door:ident = $name:ident($($argument:ident: $kind:ty),*);)*) => {$(
        pub fn $door($($argument: $kind),*) -> Answer<()> {
            done(call!($name($($argument.into()),*)))
        }
    )*};
}

plain! {
    close = fd_close(fd: Fd);
    renumber = fd_renumber(from: Fd, to: Fd);
    advise = fd_advise(fd: Fd, offset: u64, len: u64, advice: u32);
    allocate = fd_allocate(fd: Fd, offset: u64, len: u64);
    set_size = fd_filestat_set_size(fd: Fd, size: u64);
    set_times = fd_filestat_set_times(fd: Fd, atim: u64, mtim: u64, flags: u16);
    set_flags = fd_fdstat_set_flags(fd: Fd, flags: u16);
    set_rights = fd_fdstat_set_rights(fd: Fd, base: u64, inheriting: u64);
    shut_down = sock_shutdown(fd: Fd, how: u32);
    give_way = sched_yield();
}

pub fn open(dir: Fd, path: &str, how: How) -> Answer<Fd> {
    let How { follow, oflags, rights, inheriting, flags } = how;
    filled(|fd| {
        call!(path_open(
            dir,
            follow,
            path.as_ptr(),
            path.len(),
            oflags.into(),
            rights,
            inheriting,
            flags.into(),
            fd
        ))
    })
}

fn parts(buffers: &[&[u8]]) -> Vec<[usize; 2]> {
    buffers.iter().map(|buffer| [buffer.as_ptr() as usize, buffer.len()]).collect()
}

pub fn write(fd: Fd, buffers: &[&[u8]]) -> Answer<u32> {
    let parts = parts(buffers);
    filled(|n| call!(fd_write(fd, parts.as_ptr(), parts.len(), n)))
}

pub fn pwrite(fd: Fd, buffers: &[&[u8]], offset: u64) -> Answer<u32> {
    let parts = parts(buffers);
    filled(|n| call!(fd_pwrite(fd, parts.as_ptr(), parts.len(), offset, n)))
}

/// Reads into buffers of these lengths; what came, in one piece.
pub fn read(fd: Fd, lens: &[usize]) -> Answer<Vec<u8>> {
    gather(lens, |parts, n| call!(fd_read(fd, parts.as_ptr(), parts.len(), n)))
}

pub fn pread(fd: Fd, lens: &[usize], offset: u64) -> Answer<Vec<u8>> {
    gather(lens, |parts, n| call!(fd_pread(fd, parts.as_ptr(), parts.len(), offset, n)))
}

fn gather(lens: &[usize], call: impl FnOnce(&[[usize; 2]], &mut u32) -> u16) -> Answer<Vec<u8>> {
    let mut buffers: Vec<Vec<u8>> = lens.iter().map(|len| vec![0; *len]).collect();
    let parts: Vec<_> =
        buffers.iter_mut().map(|buffer| [buffer.as_mut_ptr() as usize, buffer.len()]).collect();
    let count = filled(|n| call(&parts, n))?;
    let mut all = buffers.concat();
    all.truncate(count as usize);
    Ok(all)
}

pub fn seek(fd: Fd, delta: i64, whence: u32) -> Answer<u64> {
    filled(|place| call!(fd_seek(fd, delta, whence, place)))
}

pub fn tell(fd: Fd) -> Answer<u64> {
    filled(|place| call!(fd_tell(fd, place)))
}

pub fn stat(fd: Fd) -> Answer<FileStat> {
    filled(|stat| call!(fd_filestat_get(fd, stat)))
}

pub fn fdstat(fd: Fd) -> Answer<FdStat> {
    filled(|stat| call!(fd_fdstat_get(fd, stat)))
}

pub fn filetype(fd: Fd) -> Answer<u8> {
    fdstat(fd).map(|stat| stat.filetype)
}

pub fn stat_path(dir: Fd, path: &str, follow: u32) -> Answer<FileStat> {
    filled(|stat| call!(path_filestat_get(dir, follow, path.as_ptr(), path.len(), stat)))
}

pub fn type_of(dir: Fd, path: &str, follow: u32) -> Answer<u8> {
    stat_path(dir, path, follow).map(|stat| stat.filetype.to_le_bytes()[0])
}

pub fn set_path_times(dir: Fd, path: &str, follow: u32, (atim, mtim): (u64, u64), flags: u16) -> Answer<()> {
    done(call!(path_filestat_set_times(dir, follow, path.as_ptr(), path.len(), atim, mtim, flags.into())))
}

pub fn create_directory(dir: Fd, path: &str) -> Answer<()> {
    done(call!(path_create_directory(dir, path.as_ptr(), path.len())))
}

pub fn remove_directory(dir: Fd, path: &str) -> Answer<()> {
    done(call!(path_remove_directory(dir, path.as_ptr(), path.len())))
}

pub fn unlink(dir: Fd, path: &str) -> Answer<()> {
    done(call!(path_unlink_file(dir, path.as_ptr(), path.len())))
}

pub fn rename(dir: Fd, path: &str, to: Fd, new: &str) -> Answer<()> {
    done(call!(path_rename(dir, path.as_ptr(), path.len(), to, new.as_ptr(), new.len())))
}

pub fn link(dir: Fd, follow: u32, path: &str, to: Fd, new: &str) -> Answer<()> {
    done(call!(path_link(dir, follow, path.as_ptr(), path.len(), to, new.as_ptr(), new.len())))
}

pub fn symlink(target: &str, dir: Fd, path: &str) -> Answer<()> {
    done(call!(path_symlink(target.as_ptr(), target.len(), dir, path.as_ptr(), path.len())))
}

/// What is in a buffer of `room` bytes of `fill` afterwards, and how many were used.
pub fn readlink(dir: Fd, path: &str, room: usize, fill: u8) -> Answer<(Vec<u8>, u32)> {
    let mut buffer = vec![fill; room];
    let used =
        filled(|used| call!(path_readlink(dir, path.as_ptr(), path.len(), buffer.as_mut_ptr(), room, used)))?;
    Ok((buffer, used))
}

pub fn readdir(fd: Fd, room: usize, cookie: u64) -> Answer<Vec<u8>> {
    let mut buffer = vec![0; room];
    let used = filled(|used| call!(fd_readdir(fd, buffer.as_mut_ptr(), room, cookie, used)))?;
    buffer.truncate(used as usize);
    Ok(buffer)
}

/// Tag and length of a preopen's name.
pub fn prestat(fd: Fd) -> Answer<(u32, u32)> {
    filled(|prestat: &mut [u32; 2]| call!(fd_prestat_get(fd, prestat))).map(|[tag, len]| (tag, len))
}

pub fn preopen_name(fd: Fd, room: usize) -> Answer<Vec<u8>> {
    let mut name = vec![0; room];
    done(call!(fd_prestat_dir_name(fd, name.as_mut_ptr(), room))).map(|()| name)
}

pub fn poll(subscriptions: &[Subscription]) -> Answer<Vec<Event>> {
    let mut events = vec![Event::default(); subscriptions.len()];
    let written =
        filled(|n| call!(poll_oneoff(subscriptions.as_ptr(), events.as_mut_ptr(), subscriptions.len(), n)))?;
    events.truncate(written as usize);
    Ok(events)
}

pub fn random(buffer: &mut [u8]) -> Answer<()> {
    done(call!(random_get(buffer.as_mut_ptr(), buffer.len())))
}

pub fn time(clock: u32, precision: u64) -> Answer<u64> {
    filled(|time| call!(clock_time_get(clock, precision, time)))
}

pub fn resolution(clock: u32) -> Answer<u64> {
    filled(|time| call!(clock_res_get(clock, time)))
}

/// Count and bytes of the arguments, and the strings with their terminators.
pub fn arguments() -> Answer<(u32, u32, Vec<u8>)> {
    let mut size = 0;
    let count = filled(|count| call!(args_sizes_get(count, &raw mut size)))?;
    let (mut places, mut buffer) = (vec![0; count as usize], vec![0xFF; size as usize]);
    done(call!(args_get(places.as_mut_ptr(), buffer.as_mut_ptr())))?;
    Ok((count, size, buffer))
}

/// The same of the environment.
pub fn environment() -> Answer<(u32, u32, Vec<u8>)> {
    let mut size = 0;
    let count = filled(|count| call!(environ_sizes_get(count, &raw mut size)))?;
    let (mut places, mut buffer) = (vec![0; count as usize], vec![0xFF; size as usize]);
    done(call!(environ_get(places.as_mut_ptr(), buffer.as_mut_ptr())))?;
    Ok((count, size, buffer))
}
