//! The second half of the compiler's jail: the system calls `warren-compile jailed` leaves itself before it reads a byte.
//!
//! The program is one static, single-threaded process with all its descriptors open; it computes, asks for memory,
//! writes its answer and ends. It needs no call that opens, connects, starts, traces or changes rights, and no memory
//! that can be executed: it writes machine code, it never runs it.

use crate::filter::{Filter, Rows};

/// One allowed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// The kernel's name.
    pub name: &'static str,
    /// Its number on x86-64.
    pub number: i64,
    /// With which arguments.
    pub rule: ArgumentRule,
    /// What for.
    pub why: &'static str,
}

/// A condition on a call's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentRule {
    /// None.
    Any,
    /// The argument with this index must have this value.
    Equals {
        /// Counted from 0.
        argument: u8,
        /// The one value.
        value: u64,
    },
    /// The bits must be clear in the argument with this index.
    BitsClear {
        /// Counted from 0.
        argument: u8,
        /// Which bits.
        bits: u64,
    },
}

/// `PROT_EXEC` of `mmap` and `mprotect`.
const PROT_EXEC: u64 = 4;

pub(crate) const fn any(name: &'static str, number: i64, why: &'static str) -> SystemCall {
    SystemCall { name, number, rule: ArgumentRule::Any, why }
}

pub(crate) const fn no_exec(name: &'static str, number: i64, why: &'static str) -> SystemCall {
    SystemCall { name, number, rule: ArgumentRule::BitsClear { argument: 2, bits: PROT_EXEC }, why }
}

/// `F_GETFD` of `fcntl`.
pub(crate) const F_GETFD: u64 = 1;

/// Everything that is allowed; any other call kills the process.
pub const SYSTEM_CALLS: [SystemCall; 23] = [
    any("pread64", 17, "read the module"),
    any("pwrite64", 18, "write the answer"),
    any("statx", 332, "length of the module"),
    any("fstat", 5, "length of the module"),
    any("write", 1, "one line of explanation to the log"),
    any("writev", 20, "one line of explanation to the log"),
    SystemCall {
        name: "fcntl",
        number: 72,
        rule: ArgumentRule::Equals { argument: 1, value: F_GETFD },
        why: "the check for closing a descriptor twice that builds with assertions make",
    },
    any("close", 3, "give descriptors up"),
    any("getrandom", 318, "seeds of hash maps"),
    any("clock_gettime", 228, "how long a compilation took, on hosts whose vDSO cannot tell the time"),
    any("brk", 12, "memory"),
    no_exec("mmap", 9, "memory"),
    no_exec("mprotect", 10, "memory"),
    any("mremap", 25, "memory"),
    any("munmap", 11, "memory"),
    any("madvise", 28, "memory"),
    any("rt_sigprocmask", 14, "abort after a failed allocation"),
    any("rt_sigaction", 13, "abort after a failed allocation"),
    any("gettid", 186, "abort after a failed allocation"),
    any("tkill", 200, "abort after a failed allocation; a pid namespace of its own holds nobody else"),
    any("sigaltstack", 131, "the main thread's end"),
    any("exit", 60, "end"),
    any("exit_group", 231, "end"),
];

/// The same for the kernel.
pub static FILTER: Filter = Rows::of(&SYSTEM_CALLS).filter();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_twice_and_none_of_the_dangerous_ones() {
        for (index, call) in SYSTEM_CALLS.iter().enumerate() {
            assert!(
                SYSTEM_CALLS.iter().skip(index + 1).all(|other| other.number != call.number),
                "{}",
                call.name
            );
        }
        for forbidden in
            ["open", "openat", "socket", "execve", "clone", "ptrace", "io_uring_setup", "ioctl", "prctl"]
        {
            assert!(SYSTEM_CALLS.iter().all(|call| call.name != forbidden), "{forbidden}");
        }
    }
}
