//! A plan for people: one numbered line a step.

use crate::{
    cgroup::{Directory, Group, NAME_ATTRIBUTE},
    facts::{Availability, CgroupVersion},
    plan::{Descriptor, DescriptorKind, Namespaces, Plan, Step},
};
use core::fmt::{Display, Formatter, Result};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let program = self.program.file_name();
        writeln!(f, "jail of {program} as `{}`, slot {}, uid {}", self.name, self.slot, self.uid)?;
        writeln!(f, "part one: warren-jailer, before exec")?;
        let mut of_jailer = true;
        for (number, step) in (1..).zip(&self.steps) {
            if matches!(step, Step::Limits { .. }) {
                writeln!(f, "  -- the slot is ready, and waits for a request; the jailer --")?;
            } else if of_jailer && !step.is_jailers() {
                writeln!(f, "  -- from here on in the child --")?;
            }
            of_jailer = step.is_jailers();
            writeln!(f, "  {number:2}  {:<17} {step}", step.name())?;
        }
        Ok(())
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Cgroup { version, directories } => {
                f.write_str(match version {
                    CgroupVersion::V1 => "v1, one directory a hierarchy:",
                    CgroupVersion::V2 => "v2, one directory:",
                })?;
                directories.iter().try_for_each(|directory| write!(f, "\n        {directory}"))
            }
            Self::Limits { groups } => {
                write!(f, "the jail's name in {NAME_ATTRIBUTE}, then, read back:")?;
                groups.iter().filter(|group| !group.settings.is_empty()).try_for_each(|group| write_group(f, group))
            }
            Self::Clone(namespaces) => write_namespaces(f, namespaces),
            Self::MapUser { id } => write!(f, "uid {id} -> {id}, gid {id} -> {id}; no other id exists"),
            Self::Attach { by_clone: true } => f.write_str("done by CLONE_INTO_CGROUP"),
            Self::Attach { by_clone: false } => {
                f.write_str("pid into cgroup.procs of every directory, then go")
            }
            Self::Session => {
                f.write_str("setsid, default signals, none blocked, umask 077, personality 0, no parent-death signal")
            }
            Self::CgroupNamespace => f.write_str("unshare(CLONE_NEWCGROUP)"),
            Self::Hostname { name } => write!(f, "sethostname `{name}`, setdomainname ``"),
            Self::Root => f.write_str(
                "own copy of the jailer's pivot_root: empty tmpfs, ro nosuid nodev noexec; propagation private; chdir /",
            ),
            Self::Descriptors { places } => {
                for (number, place) in places.iter().enumerate() {
                    write!(f, "{number} = {place}, ")?;
                }
                f.write_str("close_range on every other")
            }
            Self::ResourceLimits { limits } => {
                let mut separator = "";
                limits.iter().try_for_each(|limit| {
                    write!(f, "{separator}{}={}", limit.resource.name(), limit.value)?;
                    separator = " ";
                    Ok(())
                })
            }
            Self::BoundingSet { last } => {
                write!(f, "drop capabilities 0..={last}; securebits NOROOT, NO_CAP_AMBIENT_RAISE, all locked")
            }
            Self::Identity { id } => write!(f, "setgroups [], setresgid {id}, setresuid {id}"),
            Self::Capabilities => f.write_str("ambient, effective, permitted, inheritable = 0"),
            Self::NoNewPrivs => f.write_str("prctl(PR_SET_NO_NEW_PRIVS, 1)"),
            Self::NotDumpable => f.write_str("prctl(PR_SET_DUMPABLE, 0); the program file is execute-only"),
            Self::Exec { argv } => {
                f.write_str("execveat(program, AT_EMPTY_PATH), empty environment, argv")?;
                argv.iter().try_for_each(|word| write!(f, " {word}"))
            }
        }
    }
}

impl Display for Descriptor {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Null => f.write_str("/dev/null"),
            Self::Kvm => f.write_str("/dev/kvm"),
            Self::Userfaultfd => f.write_str("/dev/userfaultfd"),
            Self::GuestImage => f.write_str("guest image"),
            Self::Request { index, kind } => {
                let kind = match kind {
                    DescriptorKind::Listener => "listening socket",
                    DescriptorKind::Log => "log",
                    DescriptorKind::SealedMemory => "sealed memfd",
                    DescriptorKind::Memory => "memfd",
                    DescriptorKind::Packets => "packet socket",
                    DescriptorKind::Folder { write: false } => "folder as a mount, ro",
                    DescriptorKind::Folder { write: true } => "folder as a mount",
                };
                write!(f, "{kind} (request's {index})")
            }
        }
    }
}

impl Display for Directory {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}/{}", self.parent_path, self.name)
    }
}

fn write_group(f: &mut Formatter<'_>, group: &Group) -> Result {
    write!(f, "\n        {}", group.directory)?;
    for setting in &group.settings {
        write!(f, " {}=\"{}\"", setting.file, setting.value)?;
    }
    Ok(())
}

fn write_namespaces(f: &mut Formatter<'_>, namespaces: &Namespaces) -> Result {
    f.write_str("new mount, pid, ipc, uts")?;
    match &namespaces.user {
        Availability::Yes => f.write_str(", user")?,
        Availability::No(reason) => write!(f, " (no user namespace: {reason})")?,
    }
    if namespaces.into_cgroup {
        f.write_str("; into its cgroup")?;
    }
    f.write_str("; net: the empty one the jailer lives in, shared")
}
