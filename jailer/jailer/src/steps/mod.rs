//! The child's steps, one file each (`child.rs` walks over them).
//!
//! All of this runs between clone3 and exec: no lock, no panic. What a step needs stands in the plan's
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
use std::{ffi::CString, os::fd::RawFd};
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
    pub(crate) argv: &'a [CString],
}

/// Takes one step.
pub(crate) fn take(step: &Step, child: &mut Child<'_>) -> Result<(), Errno> {
    match step {
        // The jailer's own, taken while the child waits.
        Step::Cgroup { .. }
        | Step::Clone(_)
        | Step::MapUser { .. }
        | Step::Attach { .. }
        | Step::Limits { .. } => Ok(()),
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
        Step::Exec { .. } => Err(sys::execveat(child.program, &Argv::new(child.argv))),
    }
}
