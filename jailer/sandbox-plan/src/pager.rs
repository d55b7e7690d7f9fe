//! Part two of the pager's jail: what `warren-pager` does to itself before it reads a byte of a chunk, of the agent or of a VMM.
//!
//! 1. `no_new_privs` (again), and Landlock: the folders it was given, the origin's to be read alone, and nothing else.
//! 2. A seccomp filter with every row of [`SYSTEM_CALLS`], before any other thread: all that follow have it too.
//!
//! Any other call kills the process. Unlike the other programs it opens files, so it has `openat`: relative to the folders that it
//! was given, as far as Landlock and its user id go. What it cannot reach the agent brings, as sealed memory files. It has no socket of its own making, connects nowhere, and starts and traces
//! nothing; a userfaultfd comes from the VMM whose memory it is.

use crate::{
    compiler::{ArgumentRule, F_GETFD, SystemCall, any, no_exec},
    filter::{Filter, Rows},
    monitor::THREAD_FLAGS,
};

/// What it does before the filter is on, in words.
pub(crate) const BEFORE_THE_FILTER: [&str; 2] = [
    "no_new_privs, again",
    "landlock: the folders given, two of them to be read; every other path, every port, signal and abstract socket denied, as \
     far as the kernel can",
];

/// linux/fcntl.h.
const F_GET_SEALS: u64 = 1034;

const fn with(name: &'static str, number: i64, argument: u8, value: u64, why: &'static str) -> SystemCall {
    SystemCall { name, number, rule: ArgumentRule::Equals { argument, value }, why }
}

const fn ioctl(request: u64, why: &'static str) -> SystemCall {
    with("ioctl", 16, 1, request, why)
}

/// Everything that is allowed; any other call kills the process.
pub const SYSTEM_CALLS: [SystemCall; 46] = [
    // The agent's and the VMMs' sockets.
    any("listen", 50, "from now on the kernel says of a connection that this process is at its other end"),
    any("accept4", 288, "the agent's connection"),
    any("recvmsg", 47, "requests, offers, their descriptors"),
    any("sendmsg", 46, "replies, farewells"),
    any("ppoll", 271, "waiting: for agents, faults, chunks"),
    ioctl(0x5421, "FIONBIO: a last word waits for nobody; userfaultfds before Linux 6.10"),
    // Memory of VMs.
    any("preadv2", 327, "faults, without waiting"),
    ioctl(0x8010_AA02, "UFFDIO_WAKE"),
    ioctl(0xC028_AA03, "UFFDIO_COPY"),
    ioctl(0xC020_AA04, "UFFDIO_ZEROPAGE"),
    any("eventfd2", 290, "the bell of a VM's fetches"),
    // Chunks.
    any("openat", 257, "files in the folders given"),
    any("read", 0, "chunks, bells"),
    any("write", 1, "the cache, bells, the log"),
    any("lseek", 8, "a chunk's beginning"),
    with("fcntl", 72, 1, F_GET_SEALS, "what the agent brought can change no more"),
    any("newfstatat", 262, "what lies in a folder"),
    any("getdents64", 217, "what lies in the cache"),
    any("mkdirat", 258, "folders of the cache"),
    any("fchmodat", 268, "whoever is the next pager's user may use them"),
    any("fchmod", 91, "the same of files"),
    any("renameat", 264, "a file of the cache is whole or not there"),
    any("unlinkat", 263, "what the cache has no room for"),
    any("fsync", 74, "the same after a crash"),
    any("flock", 73, "one pager a cache"),
    any("close", 3, "files, sockets"),
    with("fcntl", 72, 1, F_GETFD, "the check of closing that builds with assertions make"),
    // Threads.
    with("clone", 56, 0, THREAD_FLAGS, "a thread a VM, threads for files"),
    with("prctl", 157, 0, 15, "PR_SET_NAME of a thread"),
    any("futex", 202, "locks and queues between the threads"),
    any("sched_yield", 24, "while a VMM changes its mappings"),
    any("gettid", 186, "locks; abort"),
    any("getrandom", 318, "seeds of hash maps, names of files, pauses"),
    any("clock_gettime", 228, "time, on hosts whose vDSO cannot tell it"),
    // Memory.
    no_exec("mmap", 9, "memory"),
    no_exec("mprotect", 10, "memory; a thread's guard page"),
    any("munmap", 11, "memory"),
    any("mremap", 25, "memory"),
    any("madvise", 28, "memory"),
    any("brk", 12, "memory"),
    // The end.
    any("rt_sigprocmask", 14, "a thread's start and end; abort"),
    any("sigaltstack", 131, "a thread's start and end"),
    with("rt_sigaction", 13, 0, 6, "SIGABRT's default, in abort"),
    any("tkill", 200, "abort; a pid namespace of its own holds nobody else"),
    any("exit", 60, "a thread's end"),
    any("exit_group", 231, "the end"),
];

/// The same for the kernel.
pub static FILTER: Filter = Rows::of(&SYSTEM_CALLS).filter();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_twice_and_none_of_the_dangerous_calls() {
        for (index, call) in SYSTEM_CALLS.iter().enumerate() {
            // A call that is allowed with any argument has no second row.
            let same = |other: &SystemCall| {
                let rules = [call.rule, other.rule];
                other.number == call.number && (call.rule == other.rule || rules.contains(&ArgumentRule::Any))
            };
            assert!(!SYSTEM_CALLS.iter().skip(index + 1).any(same), "{call:?}");
        }
        for forbidden in [
            "open",
            "openat2",
            "open_by_handle_at",
            "socket",
            "socketpair",
            "bind",
            "connect",
            "execve",
            "execveat",
            "ptrace",
            "process_vm_readv",
            "io_uring_setup",
            "bpf",
            "unshare",
            "setns",
            "mount",
            "chroot",
            "fchdir",
            "userfaultfd",
            "memfd_create",
            "pidfd_getfd",
            "keyctl",
            "kill",
            "linkat",
            "symlinkat",
            "mknodat",
        ] {
            assert!(SYSTEM_CALLS.iter().all(|call| call.name != forbidden), "{forbidden}");
        }
    }

    #[test]
    fn ioctls_and_their_like_always_name_their_request() {
        let named = ["ioctl", "prctl", "fcntl", "clone", "rt_sigaction"];
        for call in SYSTEM_CALLS.iter().filter(|call| named.contains(&call.name)) {
            assert!(matches!(call.rule, ArgumentRule::Equals { .. }), "{call:?}");
        }
    }
}
