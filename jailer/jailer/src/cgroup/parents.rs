//! The directories below which jails get theirs: one in each hierarchy, made by this jailer and removed by it.

use super::{GroupError, find::Found, open_dir, open_path, read_file, write_checked, write_file};
use rustix::{
    fs::{AtFlags, FlockOperation, Mode, flock, mkdirat, unlinkat},
    io::Errno,
};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};
use warren_sandbox_plan::{
    cgroup::ceiling,
    facts::{CgroupFacts, CgroupParent, CgroupVersion, Controller},
};

/// Open parents.
pub(crate) struct Parents {
    /// As a plan knows them.
    pub(crate) facts: CgroupFacts,
    open: Vec<Parent>,
}

struct Parent {
    base: OwnedFd,
    leaf: String,
    dir: OwnedFd,
}

/// Why there are no parents: the host's fault or its owner's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParentsError {
    #[error("cannot {what} {path}")]
    Host { what: &'static str, path: String, source: Errno },
    #[error("{path} belongs to another jailer that runs; give this one another --state or --cgroup-name")]
    Taken { path: String },
    #[error(
        "{path} holds processes and so cannot hand out {controllers} to groups below it; start the jailer elsewhere \
         or name another group with --cgroup-root"
    )]
    Occupied { path: String, controllers: String },
    #[error("cannot bound all jails together in {path}")]
    Ceiling { path: String, source: GroupError },
}

/// Where a jailer's parents stand, without making anything. `root` replaces the jailer's own group.
pub(crate) fn place(found: &Found, root: Option<&str>, leaf: &str) -> CgroupFacts {
    let parents = found.hierarchies.iter().map(|hierarchy| {
        // A version 2 group that holds processes (the jailer's own does) cannot have controlled groups below it,
        // unless it is the root.
        let default = match found.version {
            CgroupVersion::V1 => hierarchy.own.as_str(),
            CgroupVersion::V2 => "/",
        };
        let mut base = join(&hierarchy.mount, root.unwrap_or(default));
        // In a container the jailer's own group may be told as a path that is not mounted there: then the mount's root.
        if root.is_none() && !Path::new(&base).is_dir() {
            base.clone_from(&hierarchy.mount);
        }
        let path = join(&base, leaf);
        let swap = hierarchy.controllers.contains(&Controller::Memory) && has_swap(found.version, &base);
        CgroupParent { path, controllers: hierarchy.controllers.clone(), swap }
    });
    CgroupFacts { version: found.version, parents: parents.collect() }
}

impl Parents {
    /// Makes what is not there yet and takes hold of it: one jailer a set of parents. With `max_memory_bytes`, all
    /// jails together get no more.
    pub(crate) fn open(facts: CgroupFacts, max_memory_bytes: Option<u64>) -> Result<Self, ParentsError> {
        let open = facts.parents.iter().map(|parent| open_parent(facts.version, parent));
        let parents = Self { open: open.collect::<Result<_, _>>()?, facts };
        if let Some(bytes) = max_memory_bytes {
            parents.bound(bytes)?;
        }
        Ok(parents)
    }

    fn bound(&self, memory_bytes: u64) -> Result<(), ParentsError> {
        for (about, parent) in self.facts.parents.iter().zip(&self.open) {
            let settings = ceiling(self.facts.version, about, memory_bytes);
            // Version 1 takes memory and memory with swap in one order when raised and in the other when lowered.
            for setting in settings.iter().rev() {
                let _ = write_checked(parent.base.as_fd(), &parent.leaf, setting);
            }
            for setting in &settings {
                write_checked(parent.base.as_fd(), &parent.leaf, setting)
                    .map_err(|source| ParentsError::Ceiling { path: about.path.clone(), source })?;
            }
        }
        Ok(())
    }

    /// The directory of one parent.
    pub(crate) fn dir(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.open.get(index).map(|parent| parent.dir.as_fd())
    }

    /// All of them.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(|parent| parent.dir.as_fd())
    }

    /// Removes the parents. Those with a jail left stay.
    pub(crate) fn remove_all(&self) {
        for parent in &self.open {
            let _ = unlinkat(&parent.base, &parent.leaf, AtFlags::REMOVEDIR);
        }
    }
}

fn open_parent(version: CgroupVersion, parent: &CgroupParent) -> Result<Parent, ParentsError> {
    let failed = |what| {
        let path = parent.path.clone();
        move |source| ParentsError::Host { what, path, source }
    };
    let (base, leaf) = parent.path.rsplit_once('/').unwrap_or(("/", &parent.path));
    let base = open_path(base).map_err(failed("open the group above"))?;
    if version == CgroupVersion::V2 {
        hand_out(base.as_fd(), parent)?;
    }
    match mkdirat(&base, leaf, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("make")(errno)),
    }
    let dir = open_dir(base.as_fd(), leaf).map_err(failed("open"))?;
    lock(dir.as_fd()).map_err(|errno| match errno {
        Errno::WOULDBLOCK => ParentsError::Taken { path: parent.path.clone() },
        errno => failed("lock")(errno),
    })?;
    if version == CgroupVersion::V2 {
        hand_out(dir.as_fd(), parent)?;
    }
    Ok(Parent { base, leaf: leaf.to_owned(), dir })
}

/// Takes hold of a parent, waiting for whoever is about to let go of it.
///
/// A child that an earlier jailer had cloned shares this lock until it closes its descriptors, its last step before
/// exec. So who holds the lock of every parent knows that no half-made jail is left: each has either ended or is
/// complete, with its own uid. Such a child needs microseconds; a jailer that serves never lets go.
fn lock(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    const TRIES: u32 = 500;
    for _ in 0..TRIES {
        match flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(Duration::from_millis(4)),
            other => return other,
        }
    }
    Err(Errno::WOULDBLOCK)
}

/// Lets a version 2 group control its children, as far as it does not yet.
fn hand_out(dir: BorrowedFd<'_>, parent: &CgroupParent) -> Result<(), ParentsError> {
    let path = || parent.path.clone();
    let given = read_file(dir, "cgroup.subtree_control").map_err(|source| ParentsError::Host {
        what: "read the controllers of",
        path: path(),
        source,
    })?;
    let given: Vec<&str> = given.split_whitespace().collect();
    let missing = parent.controllers.iter().map(|it| it.name()).filter(|name| !given.contains(name));
    let missing: Vec<String> = missing.map(|name| format!("+{name}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let controllers = missing.join(" ");
    write_file(dir, "cgroup.subtree_control", &controllers).map_err(|errno| match errno {
        Errno::BUSY => ParentsError::Occupied { path: path(), controllers },
        source => ParentsError::Host { what: "hand out the controllers of", path: path(), source },
    })
}

fn has_swap(version: CgroupVersion, base: &str) -> bool {
    match version {
        CgroupVersion::V1 => std::fs::exists(join(base, "memory.memsw.limit_in_bytes")).unwrap_or(false),
        // The root group has no such file; any other has it where the kernel counts swap.
        CgroupVersion::V2 => std::fs::exists("/proc/swaps").unwrap_or(false),
    }
}

fn join(base: &str, rest: &str) -> String {
    format!("{}/{}", base.trim_end_matches('/'), rest.trim_matches('/')).trim_end_matches('/').to_owned()
}
