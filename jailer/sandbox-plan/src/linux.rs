//! Part two of the jail of a VMM for Linux guests: what `warren-vmm linux` does to itself before it reads a byte.
//!
//! The order is that of [`crate::monitor`]; the threads are others. The main thread builds the guest and answers on the
//! control socket, each vCPU thread runs the guest and touches registers, each disk's requests have a thread of their own,
//! the worker gives entropy, the network thread moves bytes between the guest and sockets that the main thread accepted.
//! Only disk threads read and write files once a guest runs, and nothing but the files they were given. A machine whose memory a
//! pager brings has one thread more, which touches no guest memory and so can end the process when every other waits for some.

use crate::{
    compiler::{ArgumentRule, SystemCall},
    filter::{Filter, Rows},
};

/// Threads that keep a call, as bits.
pub type Threads = u8;
/// The whole process at its start.
pub const START: Threads = 1 << 0;
/// The main thread.
pub const MAIN: Threads = 1 << 1;
/// Each vCPU thread.
pub const VCPU: Threads = 1 << 2;
/// The worker thread.
pub const WORKER: Threads = 1 << 3;
/// The network thread.
pub const NETWORK: Threads = 1 << 4;
/// Each disk's thread.
pub const DISK: Threads = 1 << 5;
/// The thread that listens to a pager, where there is one.
pub const PAGER: Threads = 1 << 6;
/// All but that one.
const ALL: Threads = MAIN | VCPU | WORKER | NETWORK | DISK;
const EVERY: Threads = ALL | PAGER;
const NONE: Threads = 0;

/// Disks that a machine has threads for unless it is told otherwise: root, scratch, task files, and one to spare.
pub const DISKS: u8 = 4;
/// Tasks of KVM and vhost that count as the VMM's own.
const KERNEL_TASKS: u32 = 4;

/// Tasks of a VMM for a guest with so many vCPUs: what its limit must leave room for. Main, worker and network thread, one that
/// listens to a pager, one a vCPU, one a disk.
#[must_use]
pub const fn tasks(cpus: u8) -> u32 {
    4 + cpus as u32 + DISKS as u32 + KERNEL_TASKS
}

/// One row. At the start every row is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinuxCall {
    /// The call.
    pub call: SystemCall,
    /// Who keeps it.
    pub threads: Threads,
}

/// The calls that a thread keeps.
pub fn calls_of(threads: Threads) -> impl Iterator<Item = &'static SystemCall> {
    SYSTEM_CALLS.iter().filter(move |row| (row.threads | START) & threads != 0).map(|row| &row.call)
}

/// `PROT_EXEC` of `mmap` and `mprotect`.
const PROT_EXEC: u64 = 4;
/// What musl's `pthread_create` passes: a thread, nothing else.
const THREAD_FLAGS: u64 = 0x007D_0F00;

const fn any(threads: Threads, name: &'static str, number: i64, why: &'static str) -> LinuxCall {
    LinuxCall { call: SystemCall { name, number, rule: ArgumentRule::Any, why }, threads }
}

const fn no_exec(name: &'static str, number: i64, why: &'static str) -> LinuxCall {
    let rule = ArgumentRule::BitsClear { argument: 2, bits: PROT_EXEC };
    LinuxCall { call: SystemCall { name, number, rule, why }, threads: EVERY }
}

const fn with(
    threads: Threads,
    name: &'static str,
    numbers: (i64, u8),
    value: u64,
    why: &'static str,
) -> LinuxCall {
    let (number, argument) = numbers;
    let rule = ArgumentRule::Equals { argument, value };
    LinuxCall { call: SystemCall { name, number, rule, why }, threads }
}

const fn ioctl(threads: Threads, request: u64, why: &'static str) -> LinuxCall {
    with(threads, "ioctl", (16, 1), request, why)
}

/// Every call, by what it is for.
pub const SYSTEM_CALLS: [LinuxCall; 96] = [
    // Sealing itself, and starting.
    with(NONE, "prctl", (157, 0), 38, "PR_SET_NO_NEW_PRIVS, with each filter"),
    with(NONE, "prctl", (157, 0), 15, "PR_SET_NAME of threads"),
    any(NONE, "seccomp", 317, "each thread's filter"),
    with(NONE, "clone", (56, 0), THREAD_FLAGS, "the other threads"),
    any(NONE, "epoll_create1", 291, "the event loops"),
    with(NONE, "rt_sigaction", (13, 0), 35, "the handler of the signal that stops a vCPU (musl's SIGRTMIN)"),
    // Making the VM.
    ioctl(NONE, 0xAE00, "KVM_GET_API_VERSION"),
    ioctl(NONE, 0xAE01, "KVM_CREATE_VM"),
    ioctl(NONE, 0xAE03, "KVM_CHECK_EXTENSION"),
    ioctl(NONE, 0xAE04, "KVM_GET_VCPU_MMAP_SIZE"),
    ioctl(NONE, 0xC008_AE05, "KVM_GET_SUPPORTED_CPUID"),
    ioctl(NONE, 0x4188_AEC6, "KVM_X86_SET_MSR_FILTER: deny all but a list"),
    ioctl(NONE, 0x4020_AE46, "KVM_SET_USER_MEMORY_REGION"),
    ioctl(NONE, 0xAE47, "KVM_SET_TSS_ADDR"),
    ioctl(NONE, 0x4068_AEA3, "KVM_ENABLE_CAP: local interrupt controllers"),
    ioctl(NONE, 0xAE41, "KVM_CREATE_VCPU"),
    ioctl(NONE, 0xC004_AE02, "KVM_GET_MSR_INDEX_LIST: what a snapshot keeps"),
    ioctl(VCPU, 0x4008_AE90, "KVM_SET_CPUID2"),
    // Building a guest.
    any(MAIN, "eventfd2", 290, "doorbells; the event loops' own"),
    ioctl(ALL, 0x4020_AEA5, "KVM_SIGNAL_MSI: interrupts"),
    ioctl(MAIN, 0x4040_AE79, "KVM_IOEVENTFD: doorbells"),
    any(MAIN, "pread64", 17, "headers of the kernel"),
    any(MAIN | VCPU | DISK, "preadv", 295, "kernel and initrd; disks"),
    with(MAIN, "fcntl", (72, 1), 1034, "F_GET_SEALS: a sealed kernel is mapped, not copied"),
    any(MAIN, "fstat", 5, "lengths of files"),
    // Running it.
    ioctl(VCPU, 0xAE80, "KVM_RUN"),
    ioctl(VCPU, 0x8138_AE83, "KVM_GET_SREGS"),
    ioctl(VCPU, 0x4138_AE84, "KVM_SET_SREGS"),
    ioctl(VCPU, 0x41A0_AE8D, "KVM_SET_FPU"),
    ioctl(VCPU, 0x4008_AE89, "KVM_SET_MSRS"),
    ioctl(VCPU, 0x4090_AE82, "KVM_SET_REGS"),
    // Writing it down, bringing it back.
    any(MAIN, "tgkill", 234, "stop a vCPU"),
    any(VCPU, "rt_sigreturn", 15, "the end of that signal's handler"),
    any(VCPU, "getpid", 39, "whom that signal goes to"),
    ioctl(MAIN, 0x8030_AE7C, "KVM_GET_CLOCK"),
    ioctl(MAIN, 0x4030_AE7B, "KVM_SET_CLOCK"),
    ioctl(VCPU, 0xAEA3, "KVM_GET_TSC_KHZ"),
    ioctl(VCPU, 0xAEA2, "KVM_SET_TSC_KHZ"),
    ioctl(VCPU, 0x8004_AE98, "KVM_GET_MP_STATE"),
    ioctl(VCPU, 0x4004_AE99, "KVM_SET_MP_STATE"),
    ioctl(VCPU, 0x8090_AE81, "KVM_GET_REGS"),
    ioctl(VCPU, 0x9000_AEA4, "KVM_GET_XSAVE"),
    ioctl(VCPU, 0x5000_AEA5, "KVM_SET_XSAVE"),
    ioctl(VCPU, 0x8188_AEA6, "KVM_GET_XCRS"),
    ioctl(VCPU, 0x4188_AEA7, "KVM_SET_XCRS"),
    ioctl(VCPU, 0x8080_AEA1, "KVM_GET_DEBUGREGS"),
    ioctl(VCPU, 0x4080_AEA2, "KVM_SET_DEBUGREGS"),
    ioctl(VCPU, 0x8400_AE8E, "KVM_GET_LAPIC"),
    ioctl(VCPU, 0x4400_AE8F, "KVM_SET_LAPIC"),
    ioctl(VCPU, 0xC008_AE88, "KVM_GET_MSRS"),
    ioctl(VCPU, 0x8040_AE9F, "KVM_GET_VCPU_EVENTS"),
    ioctl(VCPU, 0x4040_AEA0, "KVM_SET_VCPU_EVENTS"),
    // Memory that a pager brings.
    ioctl(NONE, 0xAA00, "USERFAULTFD_IOC_NEW, of the device's descriptor"),
    ioctl(NONE, 0xC018_AA3F, "UFFDIO_API"),
    ioctl(MAIN, 0xC020_AA00, "UFFDIO_REGISTER"),
    any(MAIN, "sendmsg", 46, "the userfaultfd, to the pager"),
    // Disks, entropy.
    any(DISK, "pwritev", 296, "disks"),
    any(DISK, "pwrite64", 18, "zeroes on file systems without holes"),
    any(DISK, "fdatasync", 75, "disks"),
    any(DISK, "fallocate", 285, "disks' discards and zeroes"),
    any(MAIN | WORKER, "getrandom", 318, "entropy for the guest; the id of a generation"),
    // Streams and frames.
    any(NETWORK, "readv", 19, "streams and frames, into the guest's buffers"),
    any(NETWORK, "writev", 20, "streams and frames, out of the guest's buffers"),
    ioctl(MAIN, 0x8004_54D2, "TUNGETIFF: a network card's descriptor is a tap device"),
    ioctl(MAIN, 0x4004_54D8, "TUNSETVNETHDRSZ: its frames begin as the guest's do"),
    ioctl(NETWORK, 0x4004_54D0, "TUNSETOFFLOAD: what the guest's driver takes"),
    any(NETWORK, "shutdown", 48, "the guest ended a stream one way"),
    // Connections, events.
    any(MAIN, "accept4", 288, "connections"),
    any(MAIN, "recvmsg", 47, "control requests with descriptors"),
    any(MAIN | NETWORK, "sendto", 44, "replies; bytes of a stream that were kept"),
    any(EVERY, "read", 0, "bells"),
    any(EVERY, "write", 1, "bells, interrupts, the log"),
    any(EVERY, "close", 3, "connections; files that were read"),
    ioctl(MAIN, 0x5421, "FIONBIO: sockets never block"),
    with(EVERY, "fcntl", (72, 1), 1, "F_GETFD: the check of closing that builds with assertions make"),
    any(MAIN | WORKER | NETWORK | DISK, "epoll_ctl", 233, "the event loops"),
    any(MAIN | WORKER | NETWORK | DISK, "epoll_pwait", 281, "the event loops"),
    any(EVERY, "ppoll", 271, "whether the log takes a line"),
    any(EVERY, "clock_gettime", 228, "time, on hosts whose vDSO cannot tell it"),
    any(EVERY, "futex", 202, "locks and queues between the threads"),
    // Memory.
    no_exec("mmap", 9, "memory"),
    no_exec("mprotect", 10, "memory; a thread's guard page; what a guest may touch"),
    any(EVERY, "munmap", 11, "memory"),
    any(EVERY, "mremap", 25, "memory"),
    any(EVERY, "madvise", 28, "memory; huge pages; what a guest gives back"),
    any(EVERY, "brk", 12, "memory"),
    // The end.
    any(EVERY, "rt_sigprocmask", 14, "a thread's start and end; abort"),
    any(EVERY, "sigaltstack", 131, "a thread's start and end"),
    any(VCPU | WORKER | NETWORK | DISK | PAGER, "exit", 60, "a thread's end"),
    any(EVERY, "exit_group", 231, "the end"),
    any(EVERY, "gettid", 186, "abort"),
    any(EVERY, "tkill", 200, "abort; a pid namespace of its own holds nobody else"),
    with(EVERY, "rt_sigaction", (13, 0), 6, "SIGABRT's default, in abort"),
    with(NONE, "rt_sigaction", (13, 0), 11, "the handler of a thread's overflowing stack"),
    with(NONE, "rt_sigaction", (13, 0), 7, "the handler of a thread's overflowing stack"),
    with(NONE, "rt_sigaction", (13, 0), 34, "cancellation of threads, set up by the C library"),
];

/// The same for the kernel: each thread's filter.
pub mod filters {
    use super::{Filter, LinuxCall, Rows, SYSTEM_CALLS, Threads};

    /// Every row.
    pub static START: Filter = of(super::START);
    /// The main thread's.
    pub static MAIN: Filter = of(super::MAIN);
    /// A vCPU thread's.
    pub static VCPU: Filter = of(super::VCPU);
    /// The worker thread's.
    pub static WORKER: Filter = of(super::WORKER);
    /// The network thread's.
    pub static NETWORK: Filter = of(super::NETWORK);
    /// A disk's thread's.
    pub static DISK: Filter = of(super::DISK);
    /// That of the thread that listens to a pager.
    pub static PAGER: Filter = of(super::PAGER);

    const fn of(threads: Threads) -> Filter {
        let (mut rows, mut at) = (Rows::new(), 0);
        while at < SYSTEM_CALLS.len() {
            let LinuxCall { call, threads: kept } = SYSTEM_CALLS[at];
            if (kept | super::START) & threads != 0 {
                rows.push(call);
            }
            at += 1;
        }
        rows.filter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_twice_and_none_of_the_dangerous_calls() {
        for (index, row) in SYSTEM_CALLS.iter().enumerate() {
            // A call that is allowed with any argument has no second row.
            let same = |other: &LinuxCall| {
                let rules = [row.call.rule, other.call.rule];
                other.call.number == row.call.number
                    && (row.call.rule == other.call.rule || rules.contains(&ArgumentRule::Any))
            };
            assert!(!SYSTEM_CALLS.iter().skip(index + 1).any(same), "{row:?}");
        }
        for forbidden in [
            "open",
            "openat",
            "socket",
            "connect",
            "execve",
            "execveat",
            "ptrace",
            "io_uring_setup",
            "bpf",
            "unshare",
            "setns",
            "mount",
            "userfaultfd",
            "memfd_create",
            "process_vm_readv",
            "keyctl",
            "kill",
            "fork",
        ] {
            assert!(SYSTEM_CALLS.iter().all(|row| row.call.name != forbidden), "{forbidden}");
        }
        for row in
            SYSTEM_CALLS.iter().filter(|row| ["ioctl", "prctl", "fcntl", "clone"].contains(&row.call.name))
        {
            assert!(matches!(row.call.rule, ArgumentRule::Equals { .. }), "{row:?}");
        }
    }

    #[test]
    fn only_disk_threads_write_files_and_only_vcpus_run_guests() {
        for (name, threads) in [
            ("pwritev", DISK),
            ("fallocate", DISK),
            ("getrandom", MAIN | WORKER),
            ("accept4", MAIN),
            ("recvmsg", MAIN),
            ("readv", NETWORK),
            ("sendmsg", MAIN),
        ] {
            for thread in [MAIN, VCPU, WORKER, NETWORK, DISK, PAGER] {
                assert_eq!(calls_of(thread).any(|call| call.name == name), thread & threads != 0, "{name}");
            }
        }
        let run = ArgumentRule::Equals { argument: 1, value: 0xAE80 };
        for thread in [MAIN, WORKER, NETWORK, DISK, PAGER] {
            assert!(calls_of(thread).all(|call| call.rule != run));
        }
        assert_eq!(calls_of(START).count(), SYSTEM_CALLS.len());
    }

    /// It decides nothing, reads no file and knows no device: it waits for one socket, says a line, and ends the process.
    #[test]
    fn the_pagers_thread_has_no_ioctl_and_no_file() {
        assert!(
            calls_of(PAGER).all(|call| !["ioctl", "preadv", "recvmsg", "epoll_ctl"].contains(&call.name))
        );
        assert!(calls_of(PAGER).any(|call| call.name == "exit_group"));
    }

    #[test]
    fn any_number_of_vcpus_has_room_for_its_threads() {
        assert!(tasks(32) <= crate::request::MAX_TASKS);
    }
}
