//! What a plan needs to know of the host: found out once when the jailer starts, plain data from then on.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// The host as the jailer found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Where resource limits can be set.
    pub cgroups: CgroupFacts,
    /// Whether a user namespace of its own can be given to each jail.
    pub user_namespace: Availability,
    /// Whether /dev/kvm could be opened.
    pub kvm: Availability,
    /// Highest capability number of the kernel.
    pub last_capability: u32,
    /// Bytes of a page: memory limits are whole pages.
    pub page_bytes: u64,
}

/// Whether the host has something, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Availability {
    /// It has.
    Yes,
    /// It has not; the reason is for people.
    No(String),
}

impl Availability {
    /// Whether it is there.
    #[must_use]
    pub const fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// The usable cgroup hierarchies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupFacts {
    /// Which kind.
    pub version: CgroupVersion,
    /// One for v2; one for each v1 mount that has a controller of use. The first is the one whose process list is
    /// asked when a jailer looks for what lives.
    pub parents: Vec<CgroupParent>,
}

/// Which kind of hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// One hierarchy a controller (or a few).
    V1,
    /// One for all.
    V2,
}

/// A directory below which the jailer makes one directory for each jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupParent {
    /// Absolute path; made by the jailer, removed when it ends with no jail left.
    pub path: String,
    /// What is controlled there.
    pub controllers: Vec<Controller>,
    /// Whether swap is accounted (`memory.memsw.*` or `memory.swap.max`).
    pub swap: bool,
}

/// A resource controller that a jail uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Controller {
    /// Process count.
    Pids,
    /// Memory.
    Memory,
    /// CPU weight and quota.
    Cpu,
    /// CPU accounting (v1).
    Cpuacct,
    /// Freezing (v1).
    Freezer,
    /// Block I/O (v1): membership only, accounting.
    Blkio,
    /// Block I/O (v2): membership only, accounting.
    Io,
}

impl Controller {
    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pids => "pids",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Freezer => "freezer",
            Self::Blkio => "blkio",
            Self::Io => "io",
        }
    }

    /// Those of use in a version, in the order in which they are looked for. The first three must be there.
    #[must_use]
    pub const fn wanted(version: CgroupVersion) -> &'static [Self] {
        match version {
            CgroupVersion::V1 => {
                &[Self::Pids, Self::Memory, Self::Cpu, Self::Cpuacct, Self::Freezer, Self::Blkio]
            }
            CgroupVersion::V2 => &[Self::Pids, Self::Memory, Self::Cpu, Self::Io],
        }
    }

    /// Whether a host without it is refused.
    #[must_use]
    pub const fn required(self) -> bool {
        matches!(self, Self::Pids | Self::Memory | Self::Cpu)
    }
}
