//! Part one of the jail: the ordered steps from nothing to exec.
//!
//! [`Plan::new`] is pure. The jailer walks [`Plan::steps`] in order and does nothing that is not in it; everything a step
//! needs stands in the step. The first steps know the host and the slot alone: a slot can be made ready before anybody asks
//! for a jail ([`Plan::ahead`]). From [`Step::Limits`] on it is one request's.
//!
//! ```text
//!              the slot's, made ready ahead of a request                       the request's
//!          .----------------------------------------------------.  .-------------------------------------.
//!  jailer  Cgroup -> Clone -> MapUser -> Attach -.                  Limits -.
//!                      |                         | go                       | the steps that are left, descriptors
//!  child               '- waits -----------------'-> Session .. -> waits ---'-> ResourceLimits -> .. -> Exec
//! ```

use crate::{
    cgroup::{self, Directory, Group},
    facts::{Availability, CgroupVersion, HostFacts},
    name::SandboxName,
    request::{CompilePurpose, Limits, Program},
    rlimit::{self, ResourceLimit},
};
use alloc::{format, string::String, string::ToString, vec, vec::Vec};
use serde::{Deserialize, Serialize};

/// What a jail is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: SandboxName,
    /// What runs in it.
    pub program: Program,
    /// Its slot.
    pub slot: u32,
    /// Its user and group id.
    pub uid: u32,
    /// In order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Make the slot's cgroups.
    Cgroup {
        /// Which kind.
        version: CgroupVersion,
        /// Their directories.
        directories: Vec<Directory>,
    },
    /// `clone3` into namespaces of its own.
    Clone(Namespaces),
    /// Map the jail's one uid and gid, to themselves, in the user namespace; no other id exists in it.
    MapUser {
        /// That id.
        id: u32,
    },
    /// Move the child into its cgroups (v2: `clone3` has done it).
    Attach {
        /// Whether clone3 placed it.
        by_clone: bool,
    },
    /// A session and process group of its own, default signals, nothing blocked, umask 077, no personality flags, no
    /// parent-death signal: the program outlives the jailer.
    Session,
    /// `unshare(CLONE_NEWCGROUP)`, now that the child is where it stays: its view of the hierarchy begins there.
    CgroupNamespace,
    /// What `uname` says in the jail.
    Hostname {
        /// That.
        name: String,
    },
    /// Make propagation private, go to the root and check that it is read-only.
    Root,
    /// Set and lock the process's own limits.
    ResourceLimits {
        /// In order.
        limits: Vec<ResourceLimit>,
    },
    /// Drop every capability from the bounding set and lock the securebits.
    BoundingSet {
        /// Highest capability number.
        last: u32,
    },
    /// No supplementary group, then gid, then uid: real, effective and saved.
    Identity {
        /// User and group id.
        id: u32,
    },
    /// Clear the ambient, effective, permitted and inheritable sets.
    Capabilities,
    /// `no_new_privs`.
    NoNewPrivs,
    /// Not dumpable: neither ptrace nor /proc/PID of the same uid. The program file is not readable by the jail, so
    /// exec keeps it so.
    NotDumpable,
    /// Put the listed descriptors in their places and close every other one. The last before exec: until then the
    /// child shares the lock on the cgroups, by which a new jailer knows whether a jail is half made.
    Descriptors {
        /// In order, from 0.
        places: Vec<Descriptor>,
    },
    /// Say whose jail it is, where a new jailer finds it, write the cgroups' limits and read them back.
    Limits {
        /// In which group, and what is written.
        groups: Vec<Group>,
    },
    /// `execveat` of the program's descriptor with an empty environment.
    Exec {
        /// Arguments.
        argv: Vec<String>,
    },
}

/// Which namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Whether a user namespace is made, and why not.
    pub user: Availability,
    /// Whether clone3 places the child in its cgroup.
    pub into_cgroup: bool,
}

/// Who provides a descriptor, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Descriptor {
    /// `/dev/null`, opened by the jailer.
    Null,
    /// `/dev/kvm`, opened by the jailer.
    Kvm,
    /// `/dev/userfaultfd`, opened by the jailer.
    Userfaultfd,
    /// The guest image, opened anew for each jail by the jailer: no shared file offset.
    GuestImage,
    /// Of the request.
    Request {
        /// Its index there.
        index: usize,
        /// What it must be.
        kind: DescriptorKind,
    },
}

/// What a descriptor of a request must be; the jailer checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DescriptorKind {
    /// A listening Unix stream socket.
    Listener,
    /// A pipe or socket.
    Log,
    /// A memfd sealed against writing and resizing.
    SealedMemory,
    /// A memfd.
    Memory,
    /// A Unix packet socket.
    Packets,
    /// A folder. It becomes a mount of its own, attached nowhere: nothing leads up from it, and no program or device is in it.
    Folder {
        /// Whether it may be written through it.
        write: bool,
    },
}

/// The name `uname` gives in every jail.
pub const HOSTNAME: &str = "warren";

impl Plan {
    /// The plan for a program in a slot.
    #[must_use]
    pub fn new(
        facts: &HostFacts,
        slot: u32,
        uid: u32,
        name: &SandboxName,
        program: Program,
        limits: &Limits,
    ) -> Self {
        let mut steps = Self::ahead(facts, slot, uid);
        steps.extend([
            Step::Limits { groups: cgroup::groups(facts, slot, limits) },
            Step::ResourceLimits { limits: rlimit::limits_of(&program, limits) },
            Step::Identity { id: uid },
            Step::Capabilities,
            Step::NoNewPrivs,
            Step::NotDumpable,
            Step::Descriptors { places: places(program) },
            Step::Exec { argv: argv(program) },
        ]);
        Self { name: name.clone(), program, slot, uid, steps }
    }

    /// What every plan of this slot begins with, whoever asks and for what.
    #[must_use]
    pub fn ahead(facts: &HostFacts, slot: u32, uid: u32) -> Vec<Step> {
        let version = facts.cgroups.version;
        let by_clone = version == CgroupVersion::V2;
        let mut steps = vec![
            Step::Cgroup { version, directories: cgroup::directories(facts, slot) },
            Step::Clone(Namespaces { user: facts.user_namespace.clone(), into_cgroup: by_clone }),
        ];
        if facts.user_namespace.is_yes() {
            steps.push(Step::MapUser { id: uid });
        }
        steps.extend([
            Step::Attach { by_clone },
            Step::Session,
            Step::CgroupNamespace,
            Step::Hostname { name: HOSTNAME.to_string() },
            Step::Root,
            Step::BoundingSet { last: facts.last_capability },
        ]);
        steps
    }

    /// The steps that are the request's own: the jailer's, and those that the child is told.
    #[must_use]
    pub fn of_request(&self) -> (&[Group], &[Step]) {
        let at = self.steps.iter().position(|step| matches!(step, Step::Limits { .. }));
        match at.and_then(|at| self.steps.get(at..)).and_then(<[Step]>::split_first) {
            Some((Step::Limits { groups }, rest)) => (groups, rest),
            _ => (&[], &[]),
        }
    }

    /// The descriptors' places.
    #[must_use]
    pub fn places(&self) -> &[Descriptor] {
        self.steps
            .iter()
            .find_map(|step| match step {
                Step::Descriptors { places } => Some(places.as_slice()),
                _ => None,
            })
            .unwrap_or_default()
    }
}

impl Step {
    /// A short name: in errors, in the plan's text, and for the failure tests.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cgroup { .. } => "cgroup",
            Self::Limits { .. } => "limits",
            Self::Clone(_) => "clone",
            Self::MapUser { .. } => "map-user",
            Self::Attach { .. } => "attach",
            Self::Session => "session",
            Self::CgroupNamespace => "cgroup-namespace",
            Self::Hostname { .. } => "hostname",
            Self::Root => "root",
            Self::Descriptors { .. } => "descriptors",
            Self::ResourceLimits { .. } => "rlimits",
            Self::BoundingSet { .. } => "bounding-set",
            Self::Identity { .. } => "identity",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivs => "no-new-privs",
            Self::NotDumpable => "not-dumpable",
            Self::Exec { .. } => "exec",
        }
    }

    /// Whether the jailer takes it, while the child waits.
    #[must_use]
    pub const fn is_jailers(&self) -> bool {
        matches!(
            self,
            Self::Cgroup { .. }
                | Self::Clone(_)
                | Self::MapUser { .. }
                | Self::Attach { .. }
                | Self::Limits { .. }
        )
    }
}

/// The table of descriptors: a program's own documentation says the same in words ([`Program`]).
#[must_use]
pub fn places(program: Program) -> Vec<Descriptor> {
    let log = |index| Descriptor::Request { index, kind: DescriptorKind::Log };
    match program {
        Program::Vmm
        | Program::Restore
        | Program::PagedRestore
        | Program::Linux(_)
        | Program::PagedLinux(_) => {
            let listener = Descriptor::Request { index: 0, kind: DescriptorKind::Listener };
            let mut places = vec![Descriptor::Null, log(1), log(1), listener, Descriptor::Kvm];
            if program.linux_machine().is_none() {
                places.push(Descriptor::GuestImage);
            }
            if matches!(program, Program::PagedRestore | Program::PagedLinux(_)) {
                places.push(Descriptor::Userfaultfd);
            }
            places
        }
        Program::Compile(_) => vec![
            Descriptor::Null,
            log(2),
            log(2),
            Descriptor::Request { index: 0, kind: DescriptorKind::SealedMemory },
            Descriptor::Request { index: 1, kind: DescriptorKind::Memory },
        ],
        Program::Pager(_) => {
            let folder = |index, write| Descriptor::Request { index, kind: DescriptorKind::Folder { write } };
            let socket = Descriptor::Request { index: 0, kind: DescriptorKind::Packets };
            vec![
                Descriptor::Null,
                log(1),
                log(1),
                socket,
                folder(2, false),
                folder(3, false),
                folder(4, true),
            ]
        }
    }
}

/// Which descriptor of the request is the mount namespace that its folders are in: a mount is cloned where it is.
#[must_use]
pub const fn mounts_of(program: Program) -> Option<usize> {
    match program {
        Program::Pager(_) => Some(5),
        _ => None,
    }
}

/// The arguments a program gets.
#[must_use]
pub fn argv(program: Program) -> Vec<String> {
    match program {
        Program::Vmm => vec![program.file_name().to_string(), "run".to_string()],
        Program::Restore => ["warren-vmm", "run", "--restore"].map(String::from).into(),
        Program::PagedRestore => ["warren-vmm", "run", "--restore", "--paged"].map(String::from).into(),
        Program::Linux(machine) | Program::PagedLinux(machine) => {
            let words = [program.file_name().to_string(), "linux".to_string()];
            let disks = core::iter::repeat_n("block", machine.disks.into());
            let devices: Vec<_> =
                disks.chain(["rng", "vsock"]).chain(machine.network.then_some("net")).collect();
            let options = [
                format!("--memory-mib={}", machine.memory_mib),
                format!("--cpus={}", machine.cpus),
                format!("--devices={}", devices.join(",")),
            ];
            let paged = matches!(program, Program::PagedLinux(_)).then(|| "--paged".to_string());
            words.into_iter().chain(options).chain(paged).collect()
        }
        Program::Pager(options) => {
            let words = [program.file_name().to_string(), "jailed".to_string()];
            let options = [("cache-mib", options.cache_mib), ("memory-mib", options.memory_mib)];
            words.into_iter().chain(options.map(|(name, value)| format!("--{name}={value}"))).collect()
        }
        Program::Compile(options) => {
            let purpose = match options.purpose {
                CompilePurpose::Function => "function",
                CompilePurpose::Policy => "policy",
            };
            let words = [program.file_name(), "jailed", "--purpose", purpose, "--isa"];
            words.iter().map(ToString::to_string).chain([format!("{}", options.isa)]).collect()
        }
    }
}

#[cfg(test)]
mod tests;
