//! From a request to a running jail: its descriptors are opened and judged before anything is made, then a slot that is
//! ready (`ready.rs`), or is made so now, becomes the request's.
//!
//! The jailer waits for exec, at most [`EXEC_TIMEOUT`]: what the child does until then is our own code.

use crate::{
    cgroup::{GroupError, Parents},
    folder::mount_alone,
    programs::{Held, Programs, held, open_anew},
    ready::{Ready, Running},
    steps,
};
use rustix::{event::Timespec, fs::OFlags, io::Errno};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};
use warren_sandbox_plan::{
    plan::{self, Descriptor, DescriptorKind, Plan, Step},
    request::Program,
};

/// How long the child's own steps may take; they take well under a millisecond.
pub(crate) const EXEC_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Why nothing was spawned; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// The host lacks something this program needs; another try will not help.
    #[error("this host cannot run it: {0}")]
    Lacking(String),
    /// The caller's fault.
    #[error("descriptor {index} of the request is not {expected}")]
    Descriptor { index: usize, expected: &'static str },
    /// The kernel refused a step.
    #[error("{source}")]
    Step { step: String, source: Errno },
    /// The cgroups could not be made as planned.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The child neither failed nor reached exec.
    #[error("the program was not started in time")]
    Stuck,
    /// Somebody killed the child before exec: nothing of the program has run.
    #[error("its process was killed before the program was started")]
    Killed { step: String },
}

impl SpawnError {
    /// The step of the plan it belongs to.
    pub(crate) fn step(&self) -> &str {
        match self {
            Self::Lacking(_) | Self::Descriptor { .. } => "request",
            Self::Step { step, .. } | Self::Killed { step } => step,
            Self::Group(_) => "cgroup",
            Self::Stuck => "exec",
        }
    }

    /// Whether another try can help.
    pub(crate) fn is_retryable(&self) -> bool {
        let errno = match self {
            Self::Lacking(_) | Self::Descriptor { .. } => return false,
            Self::Stuck | Self::Killed { .. } => return true,
            Self::Step { source, .. } => Some(*source),
            Self::Group(error) => error.errno(),
        };
        matches!(
            errno,
            Some(Errno::AGAIN | Errno::NOMEM | Errno::BUSY | Errno::NFILE | Errno::MFILE | Errno::INTR)
        )
    }
}

/// What every spawn uses.
pub(crate) struct Spawner<'a> {
    pub(crate) parents: &'a Rc<Parents>,
    pub(crate) programs: &'a Programs,
    /// /proc.
    pub(crate) processes: BorrowedFd<'a>,
    /// The jailer's own mount namespace.
    pub(crate) mounts: BorrowedFd<'a>,
    pub(crate) faults: Faults<'a>,
}

/// For tests: what goes wrong with every jail.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults<'a> {
    /// The step that fails.
    pub(crate) fail_at: Option<&'a str>,
    /// The step before which the child is killed; of its own steps, whichever it has come to once it was let go.
    pub(crate) kill_at: Option<&'a str>,
}

impl Spawner<'_> {
    /// The children's part of every plan of a slot.
    pub(crate) fn make_ready(&self, slot: u32, ahead: &[Step]) -> Result<Ready, SpawnError> {
        Ready::make(slot, ahead, self.parents, self.processes, self.faults)
    }

    /// Walks the rest of a plan in a slot that was made ready, with the descriptors of its places.
    pub(crate) fn start(
        &self,
        ready: Ready,
        plan: &Plan,
        sources: &[OwnedFd],
    ) -> Result<Running, SpawnError> {
        let program = lacking(self.programs.program(plan.program))?;
        let sources: Vec<_> = sources.iter().map(AsFd::as_fd).chain([program]).collect();
        ready.start(plan, &sources, self.faults)
    }

    /// The descriptors of a program's places, in order: opened, or judged. Nothing is made before they are there.
    pub(crate) fn open_sources(
        &self,
        program: Program,
        passed: &[OwnedFd],
    ) -> Result<Vec<OwnedFd>, SpawnError> {
        let here = |source| SpawnError::Step { step: "descriptors".to_owned(), source };
        lacking(self.programs.program(program))?;
        let places = plan::places(program);
        let mut folders = self.mount_folders(program, &places, passed)?.into_iter();
        let mut source = |place: &Descriptor| {
            let fd = match place {
                Descriptor::Null => open_anew(self.processes, self.programs.null.as_fd(), OFlags::RDWR),
                Descriptor::Kvm => open_anew(self.processes, lacking(&self.programs.kvm)?, OFlags::RDWR),
                Descriptor::Userfaultfd => {
                    open_anew(self.processes, lacking(&self.programs.userfaultfd)?, OFlags::RDWR)
                }
                Descriptor::GuestImage => {
                    open_anew(self.processes, lacking(&self.programs.guest)?, OFlags::RDONLY)
                }
                Descriptor::Request { kind: DescriptorKind::Folder { .. }, .. } => {
                    folders.next().ok_or(Errno::NOTDIR)
                }
                Descriptor::Request { index, kind } => {
                    judged(passed, *index, *kind)?.try_clone().map_err(|_| Errno::MFILE)
                }
            };
            fd.map_err(here)
        };
        places.iter().map(&mut source).collect()
    }

    /// The plan's folders in order, each a mount of its own.
    fn mount_folders(
        &self,
        program: Program,
        places: &[Descriptor],
        passed: &[OwnedFd],
    ) -> Result<Vec<OwnedFd>, SpawnError> {
        let Some(index) = plan::mounts_of(program) else { return Ok(Vec::new()) };
        let theirs = passed.get(index).ok_or(SpawnError::Descriptor { index, expected: "there" })?;
        let folder = |place: &Descriptor| match place {
            Descriptor::Request { index, kind: kind @ DescriptorKind::Folder { write } } => {
                Some(judged(passed, *index, *kind).map(|fd| (fd.as_fd(), *write)))
            }
            _ => None,
        };
        let folders = places.iter().filter_map(folder).collect::<Result<Vec<_>, _>>()?;
        mount_alone(self.mounts, theirs.as_fd(), &folders)
            .map_err(|source| SpawnError::Step { step: "descriptors".to_owned(), source })
    }
}

/// A descriptor of the request that is what the plan says.
fn judged(passed: &[OwnedFd], index: usize, kind: DescriptorKind) -> Result<&OwnedFd, SpawnError> {
    let wrong = |expected| SpawnError::Descriptor { index, expected };
    let fd = passed.get(index).ok_or(wrong("there"))?;
    steps::check_descriptor(kind, fd.as_fd()).map_err(wrong)?;
    Ok(fd)
}

fn lacking(file: &Held) -> Result<BorrowedFd<'_>, SpawnError> {
    held(file).map_err(|why| SpawnError::Lacking(why.to_owned()))
}

pub(crate) fn failed(step: &Step) -> impl Fn(Errno) -> SpawnError + use<> {
    let name = step.name();
    move |source| SpawnError::Step { step: name.to_owned(), source }
}
