//! The table of resource limits that the process itself carries.

use crate::request::{Limits, Program};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Which limit, by the kernel's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rlimit {
    /// No core dump: memory of a tenant never reaches a file.
    Core,
    /// Open files.
    Nofile,
    /// Size of a file, memfds included.
    Fsize,
    /// Tasks of this uid.
    Nproc,
    /// Locked memory.
    Memlock,
    /// POSIX message queues.
    Msgqueue,
    /// Queued signals.
    Sigpending,
    /// Real-time priority.
    Rtprio,
    /// Raised priority.
    Nice,
    /// File leases and locks.
    Locks,
    /// Address space.
    As,
    /// CPU seconds.
    Cpu,
}

impl Rlimit {
    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Core => "CORE",
            Self::Nofile => "NOFILE",
            Self::Fsize => "FSIZE",
            Self::Nproc => "NPROC",
            Self::Memlock => "MEMLOCK",
            Self::Msgqueue => "MSGQUEUE",
            Self::Sigpending => "SIGPENDING",
            Self::Rtprio => "RTPRIO",
            Self::Nice => "NICE",
            Self::Locks => "LOCKS",
            Self::As => "AS",
            Self::Cpu => "CPU",
        }
    }
}

/// One limit; soft and hard are the same, so it cannot be raised again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// Which.
    pub resource: Rlimit,
    /// Its value.
    pub value: u64,
}

/// Open files of a VMM: six given, the VM, its vCPUs, an epoll, a few eventfds, two connections, the function's files.
pub const VMM_OPEN_FILES: u64 = 64;
/// Descriptors of a VMM for Linux guests: disks, a doorbell a queue; 128 streams, 64 that wait for
/// the guest to connect, 32 connections that have not said yet what for.
pub const LINUX_OPEN_FILES: u64 = 512;
/// Open files of a compilation: five given.
pub const COMPILE_OPEN_FILES: u64 = 16;
/// Open files of a pager: three a VM (its socket, its userfaultfd, the bell of its fetches), and its own.
pub const PAGER_OPEN_FILES: u64 = 3 * 2048 + 256;
/// No file in a pager's cache is larger: the largest object that there is.
pub const PAGER_FILE_BYTES: u64 = 64 << 20;
/// Most bytes of a compiled artefact.
pub const COMPILE_OUTPUT_BYTES: u64 = 512 << 20;
/// Address space of a compilation beyond its memory: thread stacks and the program itself.
pub const COMPILE_ADDRESS_SLACK: u64 = 4 << 30;

/// The limits of a program, in the order in which they are set.
#[must_use]
pub fn limits_of(program: &Program, limits: &Limits) -> Vec<ResourceLimit> {
    let mut out = Vec::new();
    let mut set = |resource, value| out.push(ResourceLimit { resource, value });
    set(Rlimit::Core, 0);
    match program {
        // A VMM makes no file, not even in memory. It reserves far more address space than it may use, so AS cannot fit
        // and the cgroup alone bounds its memory.
        Program::Vmm | Program::Restore | Program::PagedRestore => {
            set(Rlimit::Nofile, VMM_OPEN_FILES);
            set(Rlimit::Fsize, 0);
        }
        // It writes the disks it was given, and none of them beyond its size.
        Program::Linux(machine) | Program::PagedLinux(machine) => {
            set(Rlimit::Nofile, LINUX_OPEN_FILES);
            set(Rlimit::Fsize, machine.disk_bytes);
        }
        // It writes its cache, and nothing that lies in it is larger than an object can be.
        Program::Pager(_) => {
            set(Rlimit::Nofile, PAGER_OPEN_FILES);
            set(Rlimit::Fsize, PAGER_FILE_BYTES);
        }
        Program::Compile(_) => {
            set(Rlimit::Nofile, COMPILE_OPEN_FILES);
            set(Rlimit::Fsize, COMPILE_OUTPUT_BYTES);
            set(Rlimit::As, limits.memory_bytes.saturating_add(COMPILE_ADDRESS_SLACK));
        }
    }
    set(Rlimit::Nproc, u64::from(limits.pids));
    set(Rlimit::Memlock, 0);
    set(Rlimit::Msgqueue, 0);
    set(Rlimit::Sigpending, 64);
    set(Rlimit::Rtprio, 0);
    set(Rlimit::Nice, 0);
    set(Rlimit::Locks, 0);
    if limits.cpu_seconds > 0 {
        set(Rlimit::Cpu, u64::from(limits.cpu_seconds));
    }
    out
}
