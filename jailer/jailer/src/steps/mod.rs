//! The child's steps, one file each, and the walk over them.
//!
//! All of this runs between clone3 and exec: no allocation, no lock, no panic. What a step needs stands in the plan's
//! [`Step`] or was made ready in [`Child`].

mod capabilities;
mod descriptors;
mod identity;
mod namespaces;
mod rlimits;
mod root;
mod session;

pub(crate) use descriptors::{FIRST_FREE, check as check_descriptor};

use crate::sys::{self, Argv};
use rustix::io::Errno;
use std::os::fd::RawFd;
use warren_sandbox_plan::plan::Step;

/// What the child needs beside the plan.
pub(crate) struct Child<'a> {
    /// Descriptors in the order of the plan's places, all numbered [`FIRST_FREE`] or higher.
    pub(crate) sources: &'a [RawFd],
    /// The program.
    pub(crate) program: RawFd,
    /// The jailer's end is on the other side: a failure is told here; exec closes it.
    pub(crate) status: RawFd,
    /// The program's arguments.
    pub(crate) argv: &'a Argv<'a>,
}

/// Where the child's part ended, and why.
pub(crate) struct ChildFailure {
    /// Index in the plan.
    pub(crate) step: usize,
    /// The kernel's error.
    pub(crate) errno: Errno,
}

impl ChildFailure {
    /// As it goes through the status socket.
    pub(crate) fn to_bytes(&self) -> [u8; 5] {
        let [a, b, c, d] = self.errno.raw_os_error().to_le_bytes();
        [u8::try_from(self.step).unwrap_or(u8::MAX), a, b, c, d]
    }

    /// The reverse; the child is ours, so anything else is a defect and reads as `EIO` at an unknown step.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let [step, a, b, c, d] = bytes.try_into().unwrap_or([u8::MAX; 5]);
        match i32::from_le_bytes([a, b, c, d]) {
            raw @ 1..4096 => Self { step: step.into(), errno: Errno::from_raw_os_error(raw) },
            _ => Self { step: step.into(), errno: Errno::IO },
        }
    }
}

/// Walks the child's steps of a plan. Returns only when one failed: exec does not return.
pub(crate) fn walk(steps: &[Step], child: &mut Child<'_>, fail_at: Option<&str>) -> ChildFailure {
    for (index, step) in steps.iter().enumerate() {
        let result = match fail_at {
            Some(name) if name == step.name() && !step.is_jailers() => Err(Errno::IO),
            _ => take(step, child),
        };
        if let Err(errno) = result {
            return ChildFailure { step: index, errno };
        }
    }
    ChildFailure { step: steps.len(), errno: Errno::NOEXEC }
}

fn take(step: &Step, child: &mut Child<'_>) -> Result<(), Errno> {
    match step {
        // The jailer's own, taken before the child was let go.
        Step::Cgroup { .. } | Step::Clone(_) | Step::MapUser { .. } | Step::Attach { .. } => Ok(()),
        Step::Session => session::begin(),
        Step::CgroupNamespace => namespaces::enter_cgroup_namespace(),
        Step::Hostname { name } => namespaces::set_hostname(name),
        Step::Root => root::enter(),
        Step::Descriptors { places } => descriptors::arrange(places.len(), child),
        Step::ResourceLimits { limits } => limits.iter().try_for_each(rlimits::set),
        Step::BoundingSet { last } => capabilities::empty_bounding_set(*last),
        Step::Identity { id } => identity::become_user(*id),
        Step::Capabilities => capabilities::clear(),
        Step::NoNewPrivs => rustix::thread::set_no_new_privs(true),
        Step::NotDumpable => {
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        }
        Step::Exec { .. } => Err(sys::execveat(child.program, child.argv)),
    }
}
