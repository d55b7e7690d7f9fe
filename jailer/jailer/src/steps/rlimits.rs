//! Resource limits of the process itself.

use rustix::{
    io::Errno,
    process::{Resource, Rlimit as Range, getrlimit, setrlimit},
};
use warren_sandbox_plan::rlimit::{ResourceLimit, Rlimit};

pub(super) fn set(limit: &ResourceLimit) -> Result<(), Errno> {
    let resource = match limit.resource {
        Rlimit::Core => Resource::Core,
        Rlimit::Nofile => Resource::Nofile,
        Rlimit::Fsize => Resource::Fsize,
        Rlimit::Nproc => Resource::Nproc,
        Rlimit::Memlock => Resource::Memlock,
        Rlimit::Msgqueue => Resource::Msgqueue,
        Rlimit::Sigpending => Resource::Sigpending,
        Rlimit::Rtprio => Resource::Rtprio,
        Rlimit::Nice => Resource::Nice,
        Rlimit::Locks => Resource::Locks,
        Rlimit::As => Resource::As,
        Rlimit::Cpu => Resource::Cpu,
    };
    // A host may have given the jailer less already, and raising is another privilege: the lower one holds.
    let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(limit.value.min(ceiling));
    setrlimit(resource, Range { current: value, maximum: value })
}
