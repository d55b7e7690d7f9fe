//! The system calls that rustix does not offer safely, and all the unsafe code of the jailer.
//!
//! Everything here is called either by the single-threaded jailer or by its child between clone3 and exec; nothing
//! allocates or locks.
#![allow(
    unsafe_code,
    reason = "clone3, execveat and the signal calls have no safe form; they stand here alone"
)]

use rustix::{io::Errno, thread::UnshareFlags};
use std::{
    ffi::{CStr, c_char, c_int, c_long},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

/// `clone3` flags that rustix and libc (for this target) do not name. linux/sched.h.
pub(crate) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child like `fork` makes, in new namespaces by `flags` and placed in `cgroup` if one is given, that does `work`
/// and ends. Returns in the parent alone.
///
/// `work` runs on a copy of the whole process: it must neither allocate nor lock (a jailer has one thread, so even
/// that would only be untidy), and what it drops it drops once more than the parent.
pub(crate) fn clone_child(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    work: impl FnOnce(),
) -> Result<(i32, OwnedFd), Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: 1. clone_args is plain integers, for which all-zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags =
        flags | u64::from(libc::CLONE_PIDFD.unsigned_abs()) | cgroup.map_or(0, |_| CLONE_INTO_CGROUP);
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.cgroup = cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs()));
    // SAFETY: 1. args lives through the call and its size is passed; 2. stack is 0 and CLONE_VM is not among the
    // flags, so the child runs on its own copy of this stack, as after fork; 3. pidfd points to a live integer;
    // 4. the jailer has one thread, so the copy holds no lock of another, and the child leaves by _exit or exec.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of::<libc::clone_args>()) };
    match checked(pid)? {
        0 => {
            work();
            exit(127)
        }
        // SAFETY: 1. clone3 succeeded with CLONE_PIDFD, so this is a new descriptor that nobody else owns.
        pid => Ok((i32::try_from(pid).unwrap_or(-1), unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Runs the program behind a descriptor with `argv` (null-terminated) and an empty environment. Returns on failure.
pub(crate) fn execveat(program: RawFd, argv: &Argv<'_>) -> Errno {
    let envp: [*const c_char; 1] = [ptr::null()];
    // SAFETY: 1. the path is the empty C string; 2. Argv ends with a null pointer and its strings are borrowed for
    // as long as it lives; 3. envp ends with a null pointer; 4. on success nothing of this process remains.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    checked(result).err().unwrap_or(Errno::INVAL)
}

/// Arguments in the form exec takes, made before the clone.
pub(crate) struct Argv<'a> {
    pointers: Vec<*const c_char>,
    strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> Argv<'a> {
    pub(crate) fn new(strings: &'a [std::ffi::CString]) -> Self {
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, strings: std::marker::PhantomData }
    }
}

/// `dup3`: makes `to` name what `from` names, whatever `to` was.
pub(crate) fn place(from: RawFd, to: RawFd, close_on_exec: bool) -> Result<(), Errno> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: 1. integers only; 2. it is used in the child alone, where no OwnedFd is dropped any more, so replacing
    // `to` invalidates no owner.
    checked(unsafe { libc::syscall(libc::SYS_dup3, from, to, flags) }).map(drop)
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    close_range(first, RawFd::MAX)
}

/// Closes every descriptor but these.
pub(crate) fn close_all_but(mut kept: Vec<RawFd>) -> Result<(), Errno> {
    kept.sort_unstable();
    let mut first = 0;
    for kept in kept {
        if first < kept {
            close_range(first, kept - 1)?;
        }
        first = kept + 1;
    }
    close_from(first)
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    // SAFETY: 1. integers only; 2. used in the child alone, where no OwnedFd of these is used or dropped any more.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// `read`, in the child.
pub(crate) fn read(fd: RawFd, into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: 1. pointer and length are those of a live slice.
    let read = unsafe { libc::syscall(libc::SYS_read, fd, into.as_mut_ptr(), into.len()) };
    checked(read).map(|read| usize::try_from(read).unwrap_or(0))
}

/// `write`, in the child; there is nobody to tell of a failure.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) {
    // SAFETY: 1. pointer and length are those of a live slice.
    unsafe { libc::syscall(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) };
}

/// Closes one descriptor, in the child.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: 1. as for close_from.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

/// Ends the child without running destructors or exit handlers of the jailer it is a copy of.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: 1. _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Moves this process into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: 1. rustix names one danger, CLONE_FILES with several threads: nobody here passes it, and there is one
    // thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Puts SIGPIPE, which the Rust runtime ignores, back to its default (every handler was cleared by clone3), and
/// unblocks every signal.
pub(crate) fn default_signals() -> Result<(), Errno> {
    // SAFETY: 1. sigset_t and sigaction are plain data for which all-zero is valid; 2. the pointers are to live
    // locals; 3. SIG_DFL installs no handler.
    unsafe {
        if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR {
            return Err(Errno::INVAL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        checked(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()).into()).map(drop)
    }
}

/// Blocks `signals` and returns a descriptor that tells of them.
pub(crate) fn signal_fd(signals: &[c_int]) -> Result<OwnedFd, Errno> {
    // SAFETY: 1. sigset_t is plain data for which all-zero is valid; 2. the pointers are to live locals; 3. signalfd
    // returns a new descriptor that nobody else owns.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        checked(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()).into())?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        checked(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Clears the personality flags (address randomisation on, no emulation).
pub(crate) fn default_personality() -> Result<(), Errno> {
    // SAFETY: 1. integers only.
    checked(unsafe { libc::syscall(libc::SYS_personality, 0) }).map(drop)
}

/// What goes through a mount that is attached nowhere: no programs, no devices, no other rights, and only if asked no writing.
pub(crate) fn narrow_mount(mount: BorrowedFd<'_>, write: bool) -> Result<(), Errno> {
    let read_only = if write { 0 } else { libc::MOUNT_ATTR_RDONLY };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | read_only,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: 1. the path is the empty C string; 2. the attributes live through the call, and their size is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(done).map(drop)
}

/// Makes a tap device of this name behind a fresh descriptor of `/dev/net/tun`, in the namespace in which that was opened.
pub(crate) fn make_tap(file: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    // SAFETY: 1. all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::NAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(low_half(flags));
    // SAFETY: 1. TUNSETIFF reads and writes one ifreq, which lives through the call; another kind of file refuses.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }.into()).map(drop)
}

/// The network namespace that a tap device is in.
pub(crate) fn namespace_of_tap(tap: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // linux/if_tun.h
    const TUNGETDEVNETNS: c_int = 0x54E3;
    // SAFETY: 1. it takes no argument and returns a new descriptor, or fails.
    let fd = unsafe { libc::ioctl(tap.as_raw_fd(), TUNGETDEVNETNS as _) };
    checked(fd.into())?;
    // SAFETY: 1. the call above succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const fn low_half(number: c_int) -> [u8; 2] {
    let [a, b, ..] = number.to_le_bytes();
    [a, b]
}

fn checked(result: c_long) -> Result<c_long, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    // SAFETY: 1. musl returns the address of this thread's errno, always valid.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}
