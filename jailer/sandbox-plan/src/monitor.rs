//! Part two of the VMM's jail: what `warren-vmm run` does to itself, before it reads a byte from any descriptor.
//!
//! 1. `no_new_privs` (again), and Landlock with a ruleset that handles everything the kernel knows and allows nothing.
//! 2. A seccomp filter with every row of [`SYSTEM_CALLS`]: the start.
//! 3. The VM is made, the guest program mapped, the vCPU thread started.
//! 4. Each of the two threads adds a filter with only its own rows. From then on no function's byte is read by a
//!    thread that can do more than its column says.
//!
//! Any other call kills the process. There is no call that opens, connects, starts, traces or changes rights, and no
//! memory that can be executed. `ioctl` is allowed by request number only, compared in 32 bits, as the kernel takes it.

use crate::{
    compiler::{ArgumentRule, SystemCall},
    filter::{Filter, Rows},
};

/// Who may make a call once the VMM is up. At the start every row is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// Nobody any more.
    StartOnly,
    /// The main thread: connections, loading, deadlines.
    Main,
    /// The vCPU thread: the guest and its invoke connection.
    Vcpu,
    /// Both.
    Both,
}

impl Thread {
    /// Whether the main thread keeps the call.
    #[must_use]
    pub const fn is_main(self) -> bool {
        matches!(self, Self::Main | Self::Both)
    }

    /// Whether the vCPU thread keeps the call.
    #[must_use]
    pub const fn is_vcpu(self) -> bool {
        matches!(self, Self::Vcpu | Self::Both)
    }
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorCall {
    /// The call.
    pub call: SystemCall,
    /// Who keeps it.
    pub thread: Thread,
}

use Thread::{Both, Main, StartOnly, Vcpu};

/// `PROT_EXEC` of `mmap` and `mprotect`.
const PROT_EXEC: u64 = 4;
/// What musl's `pthread_create` passes: a thread, nothing else.
pub(crate) const THREAD_FLAGS: u64 = 0x007D_0F00;

const fn any(thread: Thread, name: &'static str, number: i64, why: &'static str) -> MonitorCall {
    MonitorCall { call: SystemCall { name, number, rule: ArgumentRule::Any, why }, thread }
}

const fn no_exec(name: &'static str, number: i64, why: &'static str) -> MonitorCall {
    let rule = ArgumentRule::BitsClear { argument: 2, bits: PROT_EXEC };
    MonitorCall { call: SystemCall { name, number, rule, why }, thread: Both }
}

const fn with(
    thread: Thread,
    name: &'static str,
    number: i64,
    argument: u8,
    value: u64,
    why: &'static str,
) -> MonitorCall {
    let rule = ArgumentRule::Equals { argument, value };
    MonitorCall { call: SystemCall { name, number, rule, why }, thread }
}

const fn ioctl(thread: Thread, request: u64, why: &'static str) -> MonitorCall {
    with(thread, "ioctl", 16, 1, request, why)
}

const fn fcntl(thread: Thread, command: u64, why: &'static str) -> MonitorCall {
    with(thread, "fcntl", 72, 1, command, why)
}

/// Every call, by what it is for.
pub const SYSTEM_CALLS: [MonitorCall; 68] = [
    // Sealing itself, and starting.
    with(StartOnly, "prctl", 157, 0, 38, "PR_SET_NO_NEW_PRIVS, with each filter"),
    with(StartOnly, "prctl", 157, 0, 15, "PR_SET_NAME of the vCPU thread"),
    any(StartOnly, "seccomp", 317, "each thread's filter"),
    with(StartOnly, "clone", 56, 0, THREAD_FLAGS, "the vCPU thread"),
    with(
        StartOnly,
        "rt_sigaction",
        13,
        0,
        35,
        "the handler of the signal that stops the vCPU (musl's SIGRTMIN)",
    ),
    any(StartOnly, "eventfd2", 290, "the two threads' bells, the event loop's"),
    any(StartOnly, "timerfd_create", 283, "the deadline"),
    any(StartOnly, "epoll_create1", 291, "the event loop"),
    any(StartOnly, "pread64", 17, "headers of the guest program"),
    // Making the VM.
    ioctl(StartOnly, 0xAE00, "KVM_GET_API_VERSION"),
    ioctl(StartOnly, 0xAE01, "KVM_CREATE_VM"),
    ioctl(StartOnly, 0xAE03, "KVM_CHECK_EXTENSION"),
    ioctl(StartOnly, 0xAE04, "KVM_GET_VCPU_MMAP_SIZE"),
    ioctl(StartOnly, 0xC008_AE05, "KVM_GET_SUPPORTED_CPUID"),
    ioctl(StartOnly, 0xAE41, "KVM_CREATE_VCPU"),
    ioctl(StartOnly, 0xAE47, "KVM_SET_TSS_ADDR"),
    ioctl(StartOnly, 0x4188_AEC6, "KVM_X86_SET_MSR_FILTER: deny all"),
    ioctl(StartOnly, 0x4008_AE90, "KVM_SET_CPUID2"),
    ioctl(StartOnly, 0xAEA3, "KVM_GET_TSC_KHZ"),
    // Memory that a pager brings.
    ioctl(StartOnly, 0xAA00, "USERFAULTFD_IOC_NEW, of the device's descriptor"),
    ioctl(StartOnly, 0xC018_AA3F, "UFFDIO_API"),
    ioctl(Main, 0xC020_AA00, "UFFDIO_REGISTER"),
    any(Main, "sendmsg", 46, "the userfaultfd, to the pager"),
    ioctl(
        Main,
        0x4020_AE46,
        "KVM_SET_USER_MEMORY_REGION; a second slot for a function larger than the class",
    ),
    // Running it.
    ioctl(Vcpu, 0xAE80, "KVM_RUN"),
    ioctl(Vcpu, 0x4188_AEA7, "KVM_SET_XCRS"),
    ioctl(Vcpu, 0x8138_AE83, "KVM_GET_SREGS"),
    ioctl(Vcpu, 0x4138_AE84, "KVM_SET_SREGS"),
    ioctl(Vcpu, 0x41A0_AE8D, "KVM_SET_FPU"),
    ioctl(Vcpu, 0x8090_AE81, "KVM_GET_REGS: a snapshot"),
    ioctl(Vcpu, 0x81A0_AE8C, "KVM_GET_FPU: a snapshot"),
    ioctl(Vcpu, 0x4090_AE82, "KVM_SET_REGS"),
    ioctl(Vcpu, 0x5000_AEA5, "KVM_SET_XSAVE: a reset"),
    // Connections, events, deadlines.
    any(Main, "accept4", 288, "connections"),
    any(Main, "recvmsg", 47, "control requests with descriptors"),
    any(Vcpu, "recvfrom", 45, "events"),
    any(Both, "sendto", 44, "replies and results"),
    any(Both, "read", 0, "payloads, bells, the deadline"),
    any(Both, "write", 1, "responses, bells, the log"),
    any(Both, "close", 3, "connections; the function's descriptors once mapped"),
    ioctl(Both, 0x5421, "FIONBIO: sockets never block"),
    fcntl(Main, 1034, "F_GET_SEALS: code and files must be sealed"),
    fcntl(Both, 1, "F_GETFD: the check of closing that builds with assertions make"),
    any(Main, "preadv", 295, "small pieces of a snapshot's memory"),
    any(Main, "fstat", 5, "lengths of code, files and guest program"),
    any(Main, "epoll_ctl", 233, "the event loop"),
    any(Main, "epoll_pwait", 281, "the event loop"),
    any(Both, "ppoll", 271, "the vCPU thread's waiting; whether the log takes a line"),
    any(Both, "timerfd_settime", 286, "the deadline"),
    any(Main, "tgkill", 234, "stop the vCPU"),
    any(Vcpu, "rt_sigreturn", 15, "the end of that signal's handler"),
    any(Vcpu, "getpid", 39, "whom that signal goes to"),
    any(Vcpu, "gettid", 186, "whom that signal goes to"),
    any(Vcpu, "getrandom", 318, "the seed of an event"),
    any(Both, "clock_gettime", 228, "time, on hosts whose vDSO cannot tell it"),
    any(Both, "futex", 202, "locks and queues between the threads"),
    // Memory.
    no_exec("mmap", 9, "memory; pages of code and files"),
    no_exec("mprotect", 10, "memory; a thread's guard page"),
    any(Both, "munmap", 11, "memory"),
    any(Both, "mremap", 25, "memory"),
    any(Both, "madvise", 28, "memory; huge pages; what a reset forgets"),
    any(Both, "brk", 12, "memory"),
    // The end.
    any(Both, "rt_sigprocmask", 14, "a thread's start and end; abort"),
    any(Both, "sigaltstack", 131, "a thread's start and end"),
    any(Vcpu, "exit", 60, "the vCPU thread's end"),
    any(Both, "exit_group", 231, "the end"),
    any(Both, "tkill", 200, "abort; a pid namespace of its own holds nobody else"),
    with(Both, "rt_sigaction", 13, 0, 6, "SIGABRT's default, in abort"),
];

/// The start's filter: every row.
pub static START: Filter = filter(true, true, true);
/// The main thread's.
pub static MAIN: Filter = filter(false, true, false);
/// The vCPU thread's.
pub static VCPU: Filter = filter(false, false, true);

const fn filter(start: bool, main: bool, vcpu: bool) -> Filter {
    let (mut rows, mut at) = (Rows::new(), 0);
    while at < SYSTEM_CALLS.len() {
        let MonitorCall { call, thread } = SYSTEM_CALLS[at];
        if start || (main && thread.is_main()) || (vcpu && thread.is_vcpu()) {
            rows.push(call);
        }
        at += 1;
    }
    rows.filter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_twice_and_none_of_the_dangerous_calls() {
        for (index, row) in SYSTEM_CALLS.iter().enumerate() {
            // A call that is allowed with any argument has no second row.
            let same = |other: &MonitorCall| {
                let rules = [row.call.rule, other.call.rule];
                let [one, two] = rules;
                other.call.number == row.call.number && (one == two || rules.contains(&ArgumentRule::Any))
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
        ] {
            assert!(SYSTEM_CALLS.iter().all(|row| row.call.name != forbidden), "{forbidden}");
        }
    }

    #[test]
    fn ioctls_and_prctls_always_name_their_request() {
        for row in
            SYSTEM_CALLS.iter().filter(|row| matches!(row.call.name, "ioctl" | "prctl" | "fcntl" | "clone"))
        {
            assert!(matches!(row.call.rule, ArgumentRule::Equals { .. }), "{row:?}");
        }
    }
}
