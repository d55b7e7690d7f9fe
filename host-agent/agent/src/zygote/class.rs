//! What a zygote's jail has to know before its function is known.

use crate::{resources::sandbox_limits, version::SealedVersion};
use warren_sandbox_plan::request::Limits;

/// Code is counted in steps of so much at least, so that functions of one size of memory share a class.
const LEAST_CODE_MIB: u32 = 4;

/// Jails that are alike: those of functions with so much memory and so much code.
///
/// A cgroup's limits follow from these two alone, and they are written before there is a process in it. Everything else of the jail
/// is the same for every Wasm function: program, descriptors, namespaces, rlimits, no network. The user id is the slot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// The function's memory.
    pub memory_mib: u32,
    code_mib: u32,
}

impl Class {
    /// That of a function.
    #[must_use]
    pub fn of(memory_mib: u32, version: &SealedVersion) -> Self {
        Self::with_code(memory_mib, version.code.file.len())
    }

    /// The limits of its jails.
    #[must_use]
    pub fn limits(self) -> Limits {
        sandbox_limits(self.memory_mib, u64::from(self.code_mib) << 20)
    }

    pub(super) fn with_code(memory_mib: u32, bytes: u64) -> Self {
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX >> 1);
        let code_mib = mib.checked_next_power_of_two().unwrap_or(u32::MAX).max(LEAST_CODE_MIB);
        Self { memory_mib, code_mib }
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
            assert_eq!(class.code_mib, mib, "{bytes}");
            let exact = sandbox_limits(128, bytes.min(u64::from(mib) << 20));
            assert!(class.limits().memory_bytes >= exact.memory_bytes);
            assert_eq!(Limits { memory_bytes: 0, ..class.limits() }, Limits { memory_bytes: 0, ..exact });
        }
    }
}
