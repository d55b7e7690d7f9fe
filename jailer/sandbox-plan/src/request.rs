//! What the agent asks of `warren-jailer serve`, over a SOCK_SEQPACKET socket: one message a packet, postcard.
//!
//! The jailer checks the peer's user id. It alone decides which binary runs, which devices it gets, which uid and
//! which cgroup: a request names a *kind* of program, limits, and descriptors to pass on.

use crate::{facts::Availability, name::SandboxName};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Version of these messages; a mismatch is refused.
pub const JAILER_PROTOCOL_VERSION: u32 = 6;
/// Most bytes of a packet.
pub const MAX_PACKET: usize = 64 << 10;
/// Most descriptors on one request.
pub const MAX_FDS: usize = 8;
/// Most tasks of one jail: with the number of slots this bounds how much of the host's process table they can take.
pub const MAX_TASKS: u32 = 256;
/// The same of the one pager, which has a thread for each VM that it serves.
pub const MAX_PAGER_TASKS: u32 = 4096;
/// What a jail of [`Program::Pager`] is called, and no other: so there is one at a time, whoever starts or adopts it.
pub const PAGER_NAME: &str = "warren-pager";

/// Most jails in one [`Reply::Listed`].
pub const LIST_PAGE: usize = 128;

/// Agent to jailer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First packet of a connection.
    Hello {
        /// [`JAILER_PROTOCOL_VERSION`].
        version: u32,
    },
    /// Start a jailed program; descriptors in the order of [`Program`]'s documentation.
    Spawn(Spawn),
    /// Kill one (SIGKILL to its whole cgroup) and reclaim what it had. Unknown names are no error: idempotent. Answered
    /// when it is gone; the next request of this connection is read after that, those of others meanwhile.
    Kill {
        /// Which.
        name: SandboxName,
    },
    /// What lives, in the order of names; the first [`LIST_PAGE`] of it.
    List,
    /// What lives and comes after this name in that order: for who got a full page.
    ListAfter {
        /// The last one known.
        name: SandboxName,
    },
    /// Whether sandboxes can have a network.
    Network,
    /// The end to be read of the pipe that a living one writes its log to: for who was started after it.
    Log {
        /// Whose.
        name: SandboxName,
    },
}

/// One jailed program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Its name; must be free.
    pub name: SandboxName,
    /// Which of the jailer's programs.
    pub program: Program,
    /// What it may use.
    pub limits: Limits,
}

impl Spawn {
    /// Whether it has the name that its program must have.
    #[must_use]
    pub fn is_called_right(&self) -> bool {
        matches!(self.program, Program::Pager(_)) == (self.name.as_str() == PAGER_NAME)
    }
}

/// The programs a jailer starts, with the descriptors each takes from the request. The jailer adds those it owns
/// (the program file, /dev/kvm, /dev/userfaultfd, the guest image) and closes every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Program {
    /// `warren-vmm run`: \[0\] listening control socket, \[1\] log pipe or socket (write end).
    /// In the jail: 0 = /dev/null, 1 and 2 = log, 3 = control socket, 4 = /dev/kvm, 5 = guest image.
    Vmm,
    /// `warren-compile jailed`: \[0\] module (sealed memfd), \[1\] output memfd, \[2\] log.
    /// In the jail: 0 = /dev/null, 1 and 2 = log, 3 = module, 4 = output. Arguments come in `Compile`.
    Compile(CompileOptions),
    /// `warren-vmm linux`: \[0\] listening control socket, \[1\] log pipe or socket (write end).
    /// In the jail: 0 = /dev/null, 1 and 2 = log, 3 = control socket, 4 = /dev/kvm.
    Linux(LinuxMachine),
    /// `warren-vmm run --restore`: a VMM that waits for a snapshot of a Wasm guest, with the descriptors of [`Program::Vmm`].
    Restore,
    /// The same whose memory a pager brings, `warren-vmm run --restore --paged`: behind the descriptors of [`Program::Restore`] it
    /// has 6 = /dev/userfaultfd.
    PagedRestore,
    /// `warren-pager jailed`: \[0\] Unix packet socket that is bound, \[1\] log, folders of \[2\] chunks in service, \[3\] retired
    /// ones and \[4\] its own cache, and \[5\] the mount namespace that these folders are in. In the jail: 0 = /dev/null, 1 and 2 = log, 3 = socket, 4 = chunks, 5 = retired, 6 = cache.
    Pager(PagerOptions),
    /// `warren-vmm linux --paged`: a VMM for a Linux guest whose memory and scratch disk a pager brings. Behind the descriptors of
    /// [`Program::Linux`] it has 5 = /dev/userfaultfd.
    PagedLinux(LinuxMachine),
}

/// What a pager may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PagerOptions {
    /// MiB of its cache's folder.
    pub cache_mib: u32,
    /// MiB of sealed chunks in its memory.
    pub memory_mib: u32,
}

/// What a VMM for a Linux guest is made with. Its guest has these devices, in this order: its disks, entropy, streams, and a card if
/// it has a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinuxMachine {
    /// MiB of guest memory.
    pub memory_mib: u32,
    /// vCPUs.
    pub cpus: u8,
    /// Its disks.
    pub disks: u8,
    /// Bytes of its largest disk that it may write: it can make no file larger.
    pub disk_bytes: u64,
    /// Whether a tap device comes back with the pidfd, for its network card: it goes on to the VMM, and is gone with its
    /// last descriptor.
    pub network: bool,
}

impl Program {
    /// The machine of a VMM for Linux guests.
    #[must_use]
    pub const fn linux_machine(&self) -> Option<&LinuxMachine> {
        match self {
            Self::Linux(machine) | Self::PagedLinux(machine) => Some(machine),
            _ => None,
        }
    }

    /// The name of its file, and its first argument.
    #[must_use]
    pub const fn file_name(&self) -> &'static str {
        match self {
            Self::Vmm | Self::Restore | Self::PagedRestore | Self::Linux(_) | Self::PagedLinux(_) => {
                "warren-vmm"
            }
            Self::Compile(_) => "warren-compile",
            Self::Pager(_) => "warren-pager",
        }
    }
}

/// What a compilation makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CompileOptions {
    /// For a function or for a policy.
    pub purpose: CompilePurpose,
    /// Bits of `warren_abi::isa::IsaSet`.
    pub isa: u64,
}

/// What compiled code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CompilePurpose {
    /// Runs in the Wasm guest.
    Function,
    /// Runs in the policy engine.
    Policy,
}

/// Resource limits of one jailed program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// cgroup memory limit; the jailer reads it back. At most what it gives to all jails together.
    pub memory_bytes: u64,
    /// CPU in thousandths of a core, as weight and (when `cpu_hard`) as quota.
    pub cpu_millis: u32,
    /// Whether `cpu_millis` is also a ceiling.
    pub cpu_hard: bool,
    /// Tasks, [`MAX_TASKS`] at most.
    pub pids: u32,
    /// RLIMIT_CPU seconds; 0 means none.
    pub cpu_seconds: u32,
}

/// Jailer to agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Version accepted.
    Hello {
        /// [`JAILER_PROTOCOL_VERSION`].
        version: u32,
        /// BLAKE3 of the guest program that its Wasm machines get, if it has one: a snapshot holds the program it was made with.
        guest: Option<[u8; 32]>,
    },
    /// Started; a pidfd of the program rides along, and behind it the tap of a machine that has a network.
    Spawned(Jailed),
    /// Killed and reclaimed, or was not there.
    Killed {
        /// What was asked.
        name: SandboxName,
        /// How it had ended, when the jailer knows.
        exit: Option<ExitStatus>,
        /// Whether the kernel killed in its cgroup because the memory given to it was used up.
        out_of_memory: bool,
    },
    /// What lives, [`LIST_PAGE`] at most: a page that is not full is the last. For each a pidfd is *not* sent: open one by pid and check the name again.
    Listed(Vec<Jailed>),
    /// Whether sandboxes can have a network, and why not.
    Network(Availability),
    /// What was asked for rides along.
    Log,
    /// Refused or failed; nothing was left behind.
    Failed {
        /// Which step of the plan.
        step: String,
        /// The error.
        message: String,
        /// Whether asking again can help.
        retryable: bool,
    },
}

/// A program that lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jailed {
    /// Its name.
    pub name: SandboxName,
    /// Its pid in the jailer's namespace.
    pub pid: i32,
    /// Its user and group id.
    pub uid: u32,
    /// Its slot.
    pub slot: u32,
    /// Microseconds from request to exec.
    pub spawn_us: u64,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}
