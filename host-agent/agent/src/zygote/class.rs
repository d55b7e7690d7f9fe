//! What a zygote's jail has to know before its function is known.

use crate::{
    host::Host,
    linux::{LinuxError, machine},
    resources::{linux_limits, sandbox_limits},
    version::{LinuxVersion, SealedVersion, Startable, VersionSpec},
};
use warren_sandbox_plan::request::{Limits, LinuxMachine, Program};

/// Code is counted in steps of so much at least, so that functions of one size of memory share a class.
const LEAST_CODE_MIB: u32 = 4;

/// Jails that are alike. Nothing of one is changed while it lives, so whatever follows from the function stands here; the user id is
/// the slot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Of functions with so much memory and so much code: a cgroup's limits follow from these two alone. The rest is the same for
    /// every Wasm function: program, descriptors, namespaces, rlimits, no network.
    Wasm {
        /// The function's memory.
        memory_mib: u32,
        /// Its code, in steps.
        code_mib: u32,
    },
    /// Of functions whose guests have the same machine. A network card's tap is the jail's from the beginning; disks come with the
    /// snapshot.
    Linux {
        /// The function's memory.
        memory_mib: u32,
        /// The machine.
        machine: LinuxMachine,
    },
}

impl Class {
    /// That of a function, where it has one.
    #[must_use]
    pub fn of(host: &Host, spec: &VersionSpec, version: &Startable) -> Option<Self> {
        match version {
            Startable::Wasm(version) => Some(Self::of_wasm(spec.memory_mib, version)),
            // Why there is none, whoever starts it says.
            Startable::Linux(version) => Self::of_linux(host, spec, version).ok(),
        }
    }

    /// That of a module.
    #[must_use]
    pub fn of_wasm(memory_mib: u32, version: &SealedVersion) -> Self {
        Self::with_code(memory_mib, version.code.file.len())
    }

    /// That of a Linux function.
    ///
    /// # Errors
    /// It needs a network that there is none of.
    pub fn of_linux(host: &Host, spec: &VersionSpec, version: &LinuxVersion) -> Result<Self, LinuxError> {
        let machine = machine::machine(host, spec, version)?;
        Ok(Self::Linux { memory_mib: spec.memory_mib, machine })
    }

    /// What waits in its jails.
    #[must_use]
    pub const fn program(self) -> Program {
        match self {
            Self::Wasm { .. } => Program::Restore,
            Self::Linux { machine, .. } => Program::Linux(machine),
        }
    }

    /// The limits of its jails.
    #[must_use]
    pub fn limits(self) -> Limits {
        match self {
            Self::Wasm { memory_mib, code_mib } => sandbox_limits(memory_mib, u64::from(code_mib) << 20),
            Self::Linux { memory_mib, machine } => linux_limits(memory_mib, machine.cpus),
        }
    }

    /// The memory of its functions.
    #[must_use]
    pub const fn memory_mib(self) -> u32 {
        match self {
            Self::Wasm { memory_mib, .. } | Self::Linux { memory_mib, .. } => memory_mib,
        }
    }

    pub(super) fn with_code(memory_mib: u32, bytes: u64) -> Self {
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX >> 1);
        let code_mib = mib.checked_next_power_of_two().unwrap_or(u32::MAX).max(LEAST_CODE_MIB);
        Self::Wasm { memory_mib, code_mib }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_counts_in_steps() {
        for (bytes, mib) in
            [(0, 4), (1, 4), (4 << 20, 4), ((4 << 20) + 1, 8), (100 << 20, 128), (u64::MAX, 1 << 31)]
        {
            let class = Class::with_code(128, bytes);
            assert_eq!(class, Class::Wasm { memory_mib: 128, code_mib: mib }, "{bytes}");
            let exact = sandbox_limits(128, bytes.min(u64::from(mib) << 20));
            assert!(class.limits().memory_bytes >= exact.memory_bytes);
            assert_eq!(Limits { memory_bytes: 0, ..class.limits() }, Limits { memory_bytes: 0, ..exact });
        }
    }

    #[test]
    fn linux_machines_are_told_apart() {
        let machine =
            LinuxMachine { memory_mib: 176, cpus: 1, disks: 3, disk_bytes: 1 << 30, network: false };
        let class = |machine| Class::Linux { memory_mib: 128, machine };
        assert_eq!(class(machine).program(), Program::Linux(machine));
        assert_eq!(class(machine).limits(), linux_limits(128, 1));
        for other in [
            LinuxMachine { memory_mib: 177, ..machine },
            LinuxMachine { cpus: 2, ..machine },
            LinuxMachine { disks: 2, ..machine },
            LinuxMachine { disk_bytes: 2 << 30, ..machine },
            LinuxMachine { network: true, ..machine },
        ] {
            assert_ne!(class(other), class(machine));
        }
    }
}
