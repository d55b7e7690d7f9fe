//! The table of control files: which value goes where for given limits.

use crate::{
    facts::{CgroupFacts, CgroupParent, CgroupVersion, Controller, HostFacts},
    name::SandboxName,
    request::Limits,
};
use alloc::{format, string::String, string::ToString, vec::Vec};
use serde::{Deserialize, Serialize};

/// Period over which a CPU quota is counted, both versions.
pub const CPU_PERIOD_US: u64 = 100_000;

/// One directory to make, its files to write in order, each read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Where.
    pub directory: Directory,
    /// What is written.
    pub settings: Vec<Setting>,
}

/// One directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Which of [`CgroupFacts::parents`] it stands in.
    pub parent: usize,
    /// That parent's path, for people.
    pub parent_path: String,
    /// Its name in it.
    pub name: String,
}

/// One control file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Name in the group's directory.
    pub file: String,
    /// What is written, and what must be read back.
    pub value: String,
}

/// The name of a slot's directories. Whose jail it is stands in an attribute of the first of them ([`NAME_ATTRIBUTE`]): a slot
/// is made ready before that is known, and version 2 renames no directory.
#[must_use]
pub fn directory_name(slot: u32) -> String {
    format!("{slot:04}")
}

/// The extended attribute with the sandbox's name, so that the hierarchy alone tells a new jailer what lives. Only privilege in
/// the host's own user namespace reads or writes it.
pub const NAME_ATTRIBUTE: &str = "trusted.warren.name";

/// The reverse of [`directory_name`]; `None` for directories that are not a slot's. Earlier jailers put the name behind the
/// slot: what such a one left may still live.
#[must_use]
pub fn parse_directory_name(directory: &str) -> Option<(u32, Option<SandboxName>)> {
    let (digits, name) = match directory.split_once('.') {
        Some((digits, name)) => (digits, Some(SandboxName::new(name).ok()?)),
        None => (directory, None),
    };
    let slot: u32 = digits.parse().ok()?;
    (directory_name(slot) == digits).then_some((slot, name))
}

/// The directories of one slot, one in each parent.
#[must_use]
pub fn directories(facts: &HostFacts, slot: u32) -> Vec<Directory> {
    let parents = facts.cgroups.parents.iter().enumerate();
    parents
        .map(|(parent, about)| Directory {
            parent,
            parent_path: about.path.clone(),
            name: directory_name(slot),
        })
        .collect()
}

/// What is written for one jail.
#[must_use]
pub fn groups(facts: &HostFacts, slot: u32, limits: &Limits) -> Vec<Group> {
    let CgroupFacts { version, parents } = &facts.cgroups;
    // The kernel counts whole pages; what is not representable is left as it is, and refused when it is read back.
    let pages = limits.memory_bytes.checked_next_multiple_of(facts.page_bytes);
    let limits = Limits { memory_bytes: pages.unwrap_or(limits.memory_bytes), ..*limits };
    let of_parent = |parent: &CgroupParent| {
        let controllers = parent.controllers.iter();
        let settings = controllers.flat_map(|controller| settings(*version, parent, *controller, &limits));
        settings.map(|(file, value)| Setting { file: file.to_string(), value }).collect()
    };
    directories(facts, slot)
        .into_iter()
        .zip(parents)
        .map(|(directory, parent)| Group { directory, settings: of_parent(parent) })
        .collect()
}

/// What is written to a parent itself, so that all jails together stay below it, whatever each was given.
#[must_use]
pub fn ceiling(version: CgroupVersion, parent: &CgroupParent, memory_bytes: u64) -> Vec<Setting> {
    if !parent.controllers.contains(&Controller::Memory) {
        return Vec::new();
    }
    let setting = |file: &str, value: String| Setting { file: file.to_string(), value };
    let (limit, swap) = match version {
        CgroupVersion::V1 => (
            setting("memory.limit_in_bytes", memory_bytes.to_string()),
            setting("memory.memsw.limit_in_bytes", memory_bytes.to_string()),
        ),
        CgroupVersion::V2 => {
            (setting("memory.max", memory_bytes.to_string()), setting("memory.swap.max", "0".to_string()))
        }
    };
    if parent.swap { Vec::from([limit, swap]) } else { Vec::from([limit]) }
}

fn settings(
    version: CgroupVersion,
    parent: &CgroupParent,
    controller: Controller,
    limits: &Limits,
) -> Vec<(&'static str, String)> {
    let memory = limits.memory_bytes.to_string();
    let quota = u64::from(limits.cpu_millis).saturating_mul(CPU_PERIOD_US / 1000).max(1000);
    let mut out = Vec::new();
    match (version, controller) {
        (_, Controller::Pids) => out.push(("pids.max", limits.pids.to_string())),
        (CgroupVersion::V1, Controller::Memory) => {
            out.push(("memory.limit_in_bytes", memory.clone()));
            if parent.swap {
                out.push(("memory.memsw.limit_in_bytes", memory));
            }
        }
        (CgroupVersion::V2, Controller::Memory) => {
            out.push(("memory.max", memory));
            if parent.swap {
                out.push(("memory.swap.max", "0".to_string()));
            }
            out.push(("memory.oom.group", "1".to_string()));
        }
        (CgroupVersion::V1, Controller::Cpu) => {
            let shares = ((u64::from(limits.cpu_millis) * 1024 + 500) / 1000).clamp(2, 262_144);
            out.push(("cpu.shares", shares.to_string()));
            if limits.cpu_hard {
                out.push(("cpu.cfs_period_us", CPU_PERIOD_US.to_string()));
                out.push(("cpu.cfs_quota_us", quota.to_string()));
            }
        }
        (CgroupVersion::V2, Controller::Cpu) => {
            // Every group beside it is a jail's too, so what counts is the proportion alone: not tenths, of which a small
            // sandbox has too few to be counted in. The kernel's usual 100 stands nowhere among them.
            let weight = limits.cpu_millis.clamp(1, 10_000);
            out.push(("cpu.weight", weight.to_string()));
            if limits.cpu_hard {
                out.push(("cpu.max", format!("{quota} {CPU_PERIOD_US}")));
            }
        }
        // Membership alone: accounting, and for the freezer a way to stop everything at once.
        (_, Controller::Cpuacct | Controller::Freezer | Controller::Blkio | Controller::Io) => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn directory_names() {
        assert_eq!(directory_name(7), "0007");
        let name = SandboxName::new("fn-1").unwrap();
        assert_eq!(parse_directory_name("0007"), Some((7, None)));
        assert_eq!(parse_directory_name("12345"), Some((12345, None)));
        assert_eq!(parse_directory_name("0007.fn-1"), Some((7, Some(name))));
        for bad in
            ["", "7", "0007.", "7.fn-1", "0007.FN", "0007..", "+007", " 007", "-001", "00007", "cgroup.procs"]
        {
            assert_eq!(parse_directory_name(bad), None, "{bad:?}");
        }
    }

    proptest! {
        /// What jails beside each other have is what they were given, to a hundredth: from the least sandbox to ten cores.
        #[test]
        fn cpu_is_in_proportion(cpu_millis in 50..=10_000_u32) {
            let parent = CgroupParent { path: "/cg".into(), controllers: Vec::new(), swap: false };
            let limits = Limits { memory_bytes: 1, cpu_millis, cpu_hard: false, pids: 1, cpu_seconds: 0 };
            // A core is 1024 shares of version 1. Of version 2 it is a weight of 1000, whatever the kernel makes of that.
            for (version, whole) in [(CgroupVersion::V1, 1024), (CgroupVersion::V2, 1000)] {
                let set = settings(version, &parent, Controller::Cpu, &limits);
                let given: u64 = set[0].1.parse().unwrap();
                let due = u64::from(cpu_millis) * whole;
                prop_assert!((given * 1000).abs_diff(due) * 100 <= due, "{set:?} for {cpu_millis}");
            }
        }

        #[test]
        fn directory_names_come_back(slot: u32) {
            prop_assert_eq!(parse_directory_name(&directory_name(slot)), Some((slot, None)));
        }

        #[test]
        fn foreign_directories_are_left_alone(text in "\\PC{0,20}") {
            match parse_directory_name(&text) {
                Some((slot, None)) => prop_assert_eq!(directory_name(slot), text),
                Some((slot, Some(name))) => prop_assert_eq!(format!("{}.{name}", directory_name(slot)), text),
                None => {}
            }
        }
    }
}
