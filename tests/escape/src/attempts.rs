//! What is tried, each by the system call itself: no library stands between the program and the kernel.
//!
//! An attempt is held by the jail alone (its namespaces, its empty root, its user without capabilities), or only by the filters; those of
//! the second kind are no way out by themselves, but nothing a VMM needs. One that answers anything but an error is an escape.

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, AT_FDCWD, CLONE_NEWCGROUP, CLONE_NEWIPC,
    CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, MAP_ANONYMOUS, MAP_PRIVATE,
    O_CREAT, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR, O_WRONLY, PROT_EXEC, PROT_READ, PROT_WRITE, SIGCHLD,
    SIGKILL, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM,
};
use std::{ffi::CStr, io, sync::atomic::AtomicU64};

/// Who refuses an attempt at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// The jail, without any filter.
    Jail,
    /// The filters.
    Filter,
}

/// One thing that is tried.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// What it is, for people; unique.
    pub name: &'static str,
    /// Who refuses it at the latest.
    pub held_by: HeldBy,
    /// Tries: what the kernel answers, an error's number below 0.
    pub does: fn() -> i64,
}

/// The error that the kernel answered, if it did.
#[must_use]
pub const fn error_of(answer: i64) -> Option<i64> {
    if answer < 0 { Some(-answer) } else { None }
}

/// A word of a call.
trait Word {
    fn word(self) -> i64;
}

impl Word for i32 {
    fn word(self) -> i64 {
        self.into()
    }
}

impl Word for i64 {
    fn word(self) -> i64 {
        self
    }
}

impl Word for &'static CStr {
    fn word(self) -> i64 {
        address(self.as_ptr())
    }
}

impl<const N: usize> Word for &'static [u64; N] {
    fn word(self) -> i64 {
        address(self.as_ptr())
    }
}

impl<const N: usize> Word for &'static [AtomicU64; N] {
    fn word(self) -> i64 {
        address(self.as_ptr())
    }
}

/// User space's are below 1 << 47.
fn address<T>(of: *const T) -> i64 {
    i64::try_from(of.expose_provenance()).unwrap_or_default()
}

#[expect(unsafe_code, reason = "what is tried has no safe form")]
fn kernel(number: i64, words: [i64; 6]) -> i64 {
    let [first, second, third, fourth, fifth, sixth] = words;
    // SAFETY: 1. every pointer in the table is to a constant or is null or nonsense, which the kernel answers with EFAULT; 2. a call that
    // works may change this process in any way: it only says so then, and ends.
    let answer = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    if answer == -1 {
        -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    } else {
        answer
    }
}

macro_rules! attempts {
    ($($held:ident $name:literal: $number:expr $(, $word:expr)*;)*) => {
        /// The table.
        pub const ALL: &[Attempt] = &[$(Attempt {
            name: $name,
            held_by: HeldBy::$held,
            does: || {
                let mut words = [0; 6];
                let given: &[i64] = &[$(Word::word($word)),*];
                for (to, word) in words.iter_mut().zip(given) {
                    *to = *word;
                }
                kernel($number, words)
            },
        }),*];
    };
}

/// A file that every host has.
const PASSWD: &CStr = c"/etc/passwd";
/// The way up that no root has.
const UP: &CStr = c"../../../../../../etc/passwd";
/// Nothing, for calls that only read it.
static NOTHING: [u64; 32] = [0; 32];
/// A piece of memory, here and there.
static EIGHT_BYTES: [u64; 2] = [0x1_0000, 8];
/// Room for what a call writes.
static ROOM: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];
/// 127.0.0.1 port 22, and the same for any of the host's addresses.
static LOCAL_SSH: [u64; 2] = [0x0100_007F_1600_0002, 0];
/// An abstract socket, as session buses have.
static ABSTRACT: [u64; 2] = [0x7375_6264_0000_0001, 0];
/// `clone3`: a process, which sends SIGCHLD; one in a new user namespace.
static PROCESS: [u64; 8] = [0, 0, 0, 0, SIGCHLD as u64, 0, 0, 0];
static IN_A_USER_NAMESPACE: [u64; 8] = [CLONE_NEWUSER as u64, 0, 0, 0, SIGCHLD as u64, 0, 0, 0];
/// Version 3 of the header, for itself; as sets, all of them.
static CAPABILITIES: [u64; 1] = [0x2008_0522];

attempts! {
    // Files of the host.
    Jail "open a file of the host": libc::SYS_open, PASSWD, O_RDONLY;
    Jail "open one by a folder": libc::SYS_openat, AT_FDCWD, PASSWD, O_RDONLY;
    Jail "open one upwards": libc::SYS_openat, AT_FDCWD, UP, O_RDONLY;
    Jail "open one below the socket": libc::SYS_openat, 3, UP, O_RDONLY;
    Jail "open one by openat2": libc::SYS_openat2, AT_FDCWD, PASSWD, &NOTHING, 24;
    Jail "open /proc": libc::SYS_open, c"/proc", O_RDONLY | O_DIRECTORY;
    Jail "open /proc/self/mem": libc::SYS_open, c"/proc/self/mem", O_RDWR;
    Jail "open the host's process": libc::SYS_open, c"/proc/1/root", O_PATH;
    Jail "open /sys": libc::SYS_open, c"/sys", O_RDONLY;
    Jail "open /dev/kvm once more": libc::SYS_open, c"/dev/kvm", O_RDWR;
    Jail "open /dev/mem": libc::SYS_open, c"/dev/mem", O_RDWR;
    Jail "open a disk": libc::SYS_open, c"/dev/vda", O_RDWR;
    Jail "create a file": libc::SYS_open, c"/x", O_CREAT | O_WRONLY, 0o777;
    Jail "creat a file": libc::SYS_creat, c"/x", 0o777;
    Jail "make a folder": libc::SYS_mkdir, c"/x", 0o777;
    Jail "make a device": libc::SYS_mknod, c"/x", 0o020_666, 0x0101;
    Jail "make a link": libc::SYS_symlink, PASSWD, c"/x";
    Jail "make a hard link": libc::SYS_link, PASSWD, c"/x";
    Jail "rename": libc::SYS_rename, PASSWD, c"/x";
    Jail "remove a file": libc::SYS_unlink, PASSWD;
    Jail "change a file's mode": libc::SYS_chmod, PASSWD, 0o777;
    Jail "change a file's owner": libc::SYS_chown, PASSWD, 0, 0;
    Jail "change the guest program's mode": libc::SYS_fchmod, 5, 0o4777;
    Jail "cut the guest program": libc::SYS_ftruncate, 5, 0;
    Jail "write to the guest program": libc::SYS_pwrite64, 5, PASSWD, 4, 0;
    Jail "set an attribute": libc::SYS_setxattr, PASSWD, c"user.x", c"x", 1, 0;
    Jail "read a link": libc::SYS_readlink, c"/proc/self/exe", &ROOM, 8;
    Jail "change folder upwards": libc::SYS_chdir, c"/etc";
    Filter "read the root's entries": libc::SYS_open, c"/", O_RDONLY | O_DIRECTORY;
    Jail "a file by its handle": libc::SYS_open_by_handle_at, AT_FDCWD, &NOTHING, O_RDONLY;
    Jail "the handle of a file": libc::SYS_name_to_handle_at, AT_FDCWD, PASSWD, &ROOM, &ROOM, 0;
    Filter "watch files": libc::SYS_inotify_init1, 0;
    Jail "watch all files": libc::SYS_fanotify_init, 0, 0;
    // Roots and mounts.
    Jail "mount": libc::SYS_mount, c"none", c"/", c"tmpfs", 0, c"";
    Jail "mount proc": libc::SYS_mount, c"proc", c"/", c"proc", 0, c"";
    Jail "bind the root elsewhere": libc::SYS_mount, c"/", c"/", c"none", 0x1000, c"";
    Jail "make the root writable": libc::SYS_mount, c"none", c"/", c"none", 32, c"";
    Jail "unmount the root": libc::SYS_umount2, c"/", 2;
    Jail "another root": libc::SYS_chroot, c"/";
    Jail "pivot the root": libc::SYS_pivot_root, c"/", c"/";
    Jail "open a tree of mounts": libc::SYS_open_tree, AT_FDCWD, c"/", 1;
    Jail "a new file system": libc::SYS_fsopen, c"tmpfs", 0;
    Jail "a mount's configuration": libc::SYS_fspick, AT_FDCWD, c"/", 0;
    Jail "change a mount": libc::SYS_mount_setattr, AT_FDCWD, c"/", 0, &NOTHING, 32;
    // Namespaces.
    Filter "a user namespace": libc::SYS_unshare, CLONE_NEWUSER;
    Jail "a mount namespace": libc::SYS_unshare, CLONE_NEWNS;
    Jail "a network namespace": libc::SYS_unshare, CLONE_NEWNET;
    Jail "a process namespace": libc::SYS_unshare, CLONE_NEWPID;
    Jail "an IPC namespace": libc::SYS_unshare, CLONE_NEWIPC;
    Jail "a host name namespace": libc::SYS_unshare, CLONE_NEWUTS;
    Jail "a cgroup namespace": libc::SYS_unshare, CLONE_NEWCGROUP;
    Jail "enter a namespace": libc::SYS_setns, 3, 0;
    Filter "a process in a user namespace": libc::SYS_clone, CLONE_NEWUSER | SIGCHLD;
    Filter "the same by clone3": libc::SYS_clone3, &IN_A_USER_NAMESPACE, 64;
    // Processes.
    Filter "fork": libc::SYS_fork;
    Filter "a process by clone": libc::SYS_clone, SIGCHLD;
    Filter "a process by clone3": libc::SYS_clone3, &PROCESS, 64;
    Jail "run a program of the host": libc::SYS_execve, c"/bin/sh", &NOTHING, &NOTHING;
    Jail "run what the socket is": libc::SYS_execveat, 3, c"", &NOTHING, &NOTHING, 0x1000;
    Jail "trace the parent": libc::SYS_ptrace, 16, 0;
    Jail "trace itself from outside": libc::SYS_ptrace, 16, 1;
    Jail "read another's memory": libc::SYS_process_vm_readv, 2, &EIGHT_BYTES, 1, &EIGHT_BYTES, 1, 0;
    Jail "write another's memory": libc::SYS_process_vm_writev, 2, &EIGHT_BYTES, 1, &EIGHT_BYTES, 1, 0;
    Jail "signal another": libc::SYS_kill, 2, SIGKILL;
    Jail "signal everybody": libc::SYS_kill, -1, 0;
    Jail "signal a thread of another": libc::SYS_tgkill, 2, 2, SIGKILL;
    Jail "signal a thread anywhere": libc::SYS_tkill, 2, SIGKILL;
    Jail "a descriptor of another process": libc::SYS_pidfd_open, 2, 0;
    Jail "take a descriptor from another": libc::SYS_pidfd_getfd, 3, 0, 0;
    Jail "advise another's memory": libc::SYS_process_madvise, 3, &NOTHING, 1, 4, 0;
    Jail "compare with another": libc::SYS_kcmp, 1, 2, 0, 0, 0;
    Jail "move another's pages": libc::SYS_move_pages, 2, 0, 0, 0, 0, 0;
    Jail "another's limits": libc::SYS_prlimit64, 2, 7, 0, &NOTHING;
    Jail "more files than it may": libc::SYS_setrlimit, libc::RLIMIT_NOFILE, &[1 << 20, 1 << 20];
    Jail "run before others": libc::SYS_setpriority, 0, 0, -20;
    Jail "run in real time": libc::SYS_sched_setscheduler, 0, 1, &[1];
    Jail "input and output before others": libc::SYS_ioprio_set, 1, 0, 1 << 13;
    // Users.
    Jail "be root": libc::SYS_setuid, 0;
    Jail "be root's group": libc::SYS_setgid, 0;
    Jail "be root, all three": libc::SYS_setresuid, 0, 0, 0;
    Jail "be in root's group too": libc::SYS_setgroups, 1, &[0];
    Jail "all capabilities": libc::SYS_capset, &CAPABILITIES, &[u64::MAX, u64::MAX, u64::MAX];
    Jail "keep capabilities": libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1;
    Jail "an ambient capability": libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 21;
    Jail "other secure bits": libc::SYS_prctl, libc::PR_SET_SECUREBITS, 0;
    Jail "lose the bound of privileges": libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 0;
    Filter "be traced by anybody": libc::SYS_prctl, libc::PR_SET_PTRACER, -1;
    Filter "be dumped": libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1;
    // Network.
    Filter "a socket of the internet": libc::SYS_socket, AF_INET, SOCK_STREAM, 0;
    Filter "one of its version 6": libc::SYS_socket, AF_INET6, SOCK_DGRAM, 0;
    Filter "a local socket": libc::SYS_socket, AF_UNIX, SOCK_STREAM, 0;
    Filter "a pair of sockets": libc::SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &ROOM;
    Filter "a socket to the kernel": libc::SYS_socket, AF_NETLINK, SOCK_RAW, 0;
    Filter "a socket to other machines": libc::SYS_socket, AF_VSOCK, SOCK_STREAM, 0;
    Jail "frames": libc::SYS_socket, AF_PACKET, SOCK_RAW, 3;
    Jail "a raw socket": libc::SYS_socket, AF_INET, SOCK_RAW, 1;
    Jail "a raw socket of version 6": libc::SYS_socket, AF_INET6, SOCK_RAW, 58;
    Jail "connect what it has": libc::SYS_connect, 3, &LOCAL_SSH, 16;
    Jail "connect to an abstract name": libc::SYS_connect, 3, &ABSTRACT, 12;
    Jail "bind what it has": libc::SYS_bind, 3, &LOCAL_SSH, 16;
    // Parts of the kernel that a VMM has no use for.
    Jail "a program in the kernel": libc::SYS_bpf, 5, &NOTHING, 120;
    Jail "a map in the kernel": libc::SYS_bpf, 0, &[1, 4, 4, 1, 0, 0, 0, 0], 64;
    Jail "measure the host": libc::SYS_perf_event_open, &NOTHING, -1, 0, -1, 0;
    Jail "faults of its own": libc::SYS_userfaultfd, 0;
    Filter "a ring for input and output": libc::SYS_io_uring_setup, 4, &ROOM;
    Filter "older asynchronous input and output": libc::SYS_io_setup, 1, &ROOM;
    Filter "a key": libc::SYS_add_key, c"user", c"x", c"x", 1, -3;
    Jail "somebody's key": libc::SYS_request_key, c"user", c"x", 0, 0;
    Jail "another's ring of keys": libc::SYS_keyctl, 11, 1, 0, 0;
    Filter "memory with a name": libc::SYS_memfd_create, c"x", 0;
    Filter "a segment of shared memory": libc::SYS_shmget, 0, 4096, 0o1600;
    Filter "a queue of messages": libc::SYS_msgget, 0, 0o1600;
    Filter "a set of semaphores": libc::SYS_semget, 0, 1, 0o1600;
    Filter "code in new memory": libc::SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0;
    Filter "code of the guest program": libc::SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, 5, 0;
    Jail "a module": libc::SYS_init_module, &NOTHING, 8, c"";
    Jail "a module of a file": libc::SYS_finit_module, 5, c"", 0;
    Jail "remove a module": libc::SYS_delete_module, c"kvm", 0;
    Jail "another kernel": libc::SYS_kexec_load, 0, 0, 0, 0;
    Jail "restart the host": libc::SYS_reboot, 0xFEE1_DEAD_u32.cast_signed(), 672_274_793, 0;
    Jail "swap": libc::SYS_swapon, PASSWD, 0;
    Filter "read the kernel's log": libc::SYS_syslog, 3, &ROOM, 8;
    Jail "clear the kernel's log": libc::SYS_syslog, 5, 0, 0;
    Jail "account processes": libc::SYS_acct, 0;
    Jail "ports": libc::SYS_iopl, 3;
    Jail "some ports": libc::SYS_ioperm, 0x70, 2, 1;
    Jail "set the clock": libc::SYS_clock_settime, 0, &[0, 0];
    Jail "set the time of day": libc::SYS_settimeofday, &[0, 0], 0;
    Jail "turn the clock": libc::SYS_adjtimex, &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Jail "name the host": libc::SYS_sethostname, c"x", 1;
    Jail "name its domain": libc::SYS_setdomainname, c"x", 1;
    Jail "hang a terminal up": libc::SYS_vhangup;
    Filter "another personality": libc::SYS_personality, 0x0040_0000;
    // Descriptors that it has, asked for more than they are for.
    Jail "type into a terminal": libc::SYS_ioctl, 1, 0x5412, c"x";
    Filter "ask KVM what it need not know": libc::SYS_ioctl, 4, 0xC004_AE0A_u32.cast_signed(), &ROOM;
    Filter "another descriptor of one that it has": libc::SYS_fcntl, 4, 0, 20;
    Filter "another by dup": libc::SYS_dup, 4;
    Jail "read the directory of the socket": libc::SYS_getdents64, 3, &ROOM, 64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_is_named_once_and_there_are_enough() {
        let names: HashSet<_> = ALL.iter().map(|attempt| attempt.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.len() >= 120, "{}", ALL.len());
    }
}
