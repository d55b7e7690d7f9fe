//! From a plan to a running jail, in phases that each undo themselves.
//!
//! ```text
//!   Spawn request
//!        | descriptors opened and checked              nothing made yet
//!        v
//!   Grouped ---- clone3 -----> Cloned ---- exec -----> Running
//!        |                        |
//!        | drop: rmdir            | drop: SIGKILL, reap, then as Grouped
//! ```
//! A failure at any point drops the phase it happened in; nothing is left. The jailer waits for exec, at most
//! [`EXEC_TIMEOUT`]: what the child does until then is our own code.

use crate::{
    cgroup::{GroupError, Parents, write_file},
    folder::mount_alone,
    programs::{Held, Programs, held, open_anew},
    steps::{self, Child, ChildFailure, FIRST_FREE},
    sys::{self, Argv},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    io::{Errno, fcntl_dupfd_cloexec},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
use std::{
    ffi::CString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};
use warren_sandbox_plan::{
    cgroup::Group,
    plan::{self, Descriptor, DescriptorKind, Namespaces, Plan, Step},
};

/// How long the child's own steps may take; they take well under a millisecond.
const EXEC_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

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

/// A program past exec.
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// What every spawn uses.
pub(crate) struct Spawner<'a> {
    pub(crate) parents: &'a Parents,
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
    /// Walks a plan.
    pub(crate) fn spawn(&self, plan: &Plan, passed: &[OwnedFd]) -> Result<Running, SpawnError> {
        let sources = self.open_sources(plan, passed)?;
        let program = lacking(self.programs.program(plan.program))?;
        let mut grouped: Option<Grouped<'_>> = None;
        let mut cloned: Option<Cloned<'_>> = None;
        for step in &plan.steps {
            if step.is_jailers() && self.faults.fail_at == Some(step.name()) {
                return Err(failed(step)(Errno::IO));
            }
            if let (Some(child), true) = (&cloned, self.faults.kill_at == Some(step.name())) {
                child.kill();
            }
            match (step, &grouped, &cloned) {
                (Step::Cgroup { groups, .. }, None, None) => {
                    grouped = Some(Grouped::new(self.parents, groups)?);
                }
                (Step::Clone(namespaces), Some(_), None) => {
                    let groups = grouped.take().ok_or(SpawnError::Stuck)?;
                    cloned = Some(
                        self.clone_child(plan, namespaces, groups, &sources, program)
                            .map_err(failed(step))?,
                    );
                }
                (Step::MapUser { id }, _, Some(child)) => {
                    child.map_user(self.processes, *id).map_err(|errno| child.failed(step.name(), errno))?;
                }
                (Step::Attach { by_clone: false }, _, Some(child)) => {
                    child.attach().map_err(|errno| child.failed(step.name(), errno))?;
                }
                (Step::Attach { by_clone: true }, _, Some(_)) => {}
                _ => break,
            }
        }
        let ends =
            plan.steps.iter().any(|step| !step.is_jailers() && self.faults.kill_at == Some(step.name()));
        cloned.ok_or(SpawnError::Stuck)?.finish(plan, ends)
    }

    /// The plan's descriptors in order, each with a number that no place has.
    fn open_sources(&self, plan: &Plan, passed: &[OwnedFd]) -> Result<Vec<OwnedFd>, SpawnError> {
        let here = |source| SpawnError::Step { step: "descriptors".to_owned(), source };
        let mut folders = self.mount_folders(plan, passed)?.into_iter();
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
                    let fd = judged(passed, *index, *kind)?;
                    return fcntl_dupfd_cloexec(fd, FIRST_FREE).map_err(here);
                }
            };
            fcntl_dupfd_cloexec(fd.map_err(here)?, FIRST_FREE).map_err(here)
        };
        plan.places().iter().map(&mut source).collect()
    }

    /// The plan's folders in order, each a mount of its own.
    fn mount_folders(&self, plan: &Plan, passed: &[OwnedFd]) -> Result<Vec<OwnedFd>, SpawnError> {
        let Some(index) = plan::mounts_of(plan.program) else { return Ok(Vec::new()) };
        let theirs = passed.get(index).ok_or(SpawnError::Descriptor { index, expected: "there" })?;
        let folder = |place: &Descriptor| match place {
            Descriptor::Request { index, kind: kind @ DescriptorKind::Folder { write } } => {
                Some(judged(passed, *index, *kind).map(|fd| (fd.as_fd(), *write)))
            }
            _ => None,
        };
        let folders = plan.places().iter().filter_map(folder).collect::<Result<Vec<_>, _>>()?;
        mount_alone(self.mounts, theirs.as_fd(), &folders)
            .map_err(|source| SpawnError::Step { step: "descriptors".to_owned(), source })
    }

    /// clone3, and in the child everything up to exec.
    fn clone_child<'p>(
        &self,
        plan: &Plan,
        namespaces: &Namespaces,
        groups: Grouped<'p>,
        sources: &[OwnedFd],
        program: BorrowedFd<'_>,
    ) -> Result<Cloned<'p>, Errno> {
        // Everything the child needs is made here: it may not allocate.
        let argv: Vec<CString> = plan
            .steps
            .iter()
            .find_map(|step| match step {
                Step::Exec { argv } => {
                    Some(argv.iter().filter_map(|word| CString::new(word.as_str()).ok()).collect())
                }
                _ => None,
            })
            .unwrap_or_default();
        let argv = Argv::new(&argv);
        let sources: Vec<RawFd> = sources.iter().map(AsRawFd::as_raw_fd).collect();
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let theirs = fcntl_dupfd_cloexec(theirs, FIRST_FREE)?;
        let program = fcntl_dupfd_cloexec(program, FIRST_FREE)?;
        let group = match (namespaces.into_cgroup, groups.groups.first()) {
            (true, Some(group)) => Some(groups.parents.open_group(&group.directory)?),
            _ => None,
        };
        let mut flags = sys::CLONE_CLEAR_SIGHAND
            | [libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWIPC, libc::CLONE_NEWUTS]
                .iter()
                .fold(0, |all, flag| all | u64::from(flag.unsigned_abs()));
        if namespaces.user.is_yes() {
            flags |= u64::from(libc::CLONE_NEWUSER.unsigned_abs());
        }
        let (ours_raw, mut child) = (
            ours.as_raw_fd(),
            Child {
                sources: &sources,
                program: program.as_raw_fd(),
                status: theirs.as_raw_fd(),
                argv: &argv,
            },
        );
        let (pid, pidfd) = sys::clone_child(flags, group.as_ref().map(AsFd::as_fd), || {
            sys::close(ours_raw);
            run_child(&plan.steps, &mut child, self.faults.fail_at);
        })?;
        Ok(Cloned { running: Some(Running { pid, pidfd }), status: ours, groups })
    }
}

/// The child: waits for its go, walks its steps, tells what failed.
fn run_child(steps: &[Step], child: &mut Child<'_>, fail_at: Option<&str>) {
    let mut go = [0_u8; 1];
    // The jailer's death shows as 0 bytes: its end is closed here.
    if !matches!(sys::read(child.status, &mut go), Ok(1)) {
        return;
    }
    let failure = steps::walk(steps, child, fail_at);
    sys::write(child.status, &failure.to_bytes());
}

/// Groups made, no process yet.
struct Grouped<'p> {
    parents: &'p Parents,
    groups: Vec<Group>,
    keep: bool,
}

impl<'p> Grouped<'p> {
    fn new(parents: &'p Parents, groups: &[Group]) -> Result<Self, GroupError> {
        parents.make(groups)?;
        Ok(Self { parents, groups: groups.to_vec(), keep: false })
    }
}

impl Drop for Grouped<'_> {
    fn drop(&mut self) {
        if !self.keep {
            for group in &self.groups {
                let _ = self.parents.remove(&group.directory);
            }
        }
    }
}

/// A child that has not reached exec. Dropped, it is killed and reaped before its groups go.
struct Cloned<'p> {
    running: Option<Running>,
    status: OwnedFd,
    groups: Grouped<'p>,
}

impl Cloned<'_> {
    fn pid(&self) -> i32 {
        self.running.as_ref().map_or(-1, |running| running.pid)
    }

    fn map_user(&self, processes: BorrowedFd<'_>, id: u32) -> Result<(), Errno> {
        let line = format!("{id} {id} 1");
        let pid = self.pid();
        write_file(processes, &format!("{pid}/uid_map"), &line)?;
        write_file(processes, &format!("{pid}/gid_map"), &line)
    }

    /// What an error means: one that is dying takes nothing any more, and its end of the socket is closed before it is dead.
    fn failed(&self, step: &str, source: Errno) -> SpawnError {
        let step = step.to_owned();
        match source {
            Errno::SRCH | Errno::PIPE | Errno::CONNRESET => SpawnError::Killed { step },
            _ if self.was_killed() => SpawnError::Killed { step },
            _ => SpawnError::Step { step, source },
        }
    }

    /// Whether it is dead by SIGKILL: of a child's own steps none ends it so.
    fn was_killed(&self) -> bool {
        let looks = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = self.running.as_ref().map(|running| waitid(WaitId::PidFd(running.pidfd.as_fd()), looks));
        let signal =
            ended.and_then(|ended| ended.ok().flatten()).and_then(|ended| ended.terminating_signal());
        signal == Some(Signal::KILL.as_raw())
    }

    /// For tests: kills it, and sees it dead.
    fn kill(&self) {
        if let Some(running) = &self.running {
            let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
            let _ =
                waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
    }

    fn attach(&self) -> Result<(), Errno> {
        self.groups.parents.attach(&self.groups.groups, self.pid())
    }

    /// Lets the child go and waits until exec closes its end of the status socket. With `kill` (tests) it is killed meanwhile.
    fn finish(mut self, plan: &Plan, kill: bool) -> Result<Running, SpawnError> {
        let here = |source| self.failed("exec", source);
        send(&self.status, b"g", SendFlags::NOSIGNAL).map_err(here)?;
        if kill {
            self.kill();
        }
        let mut waiting = [PollFd::new(&self.status, PollFlags::IN)];
        loop {
            match poll(&mut waiting, Some(&EXEC_TIMEOUT)) {
                Ok(0) => return Err(SpawnError::Stuck),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(here(errno)),
            }
        }
        let mut bytes = [0_u8; 8];
        let (told, _) = recv(&self.status, &mut bytes, RecvFlags::empty()).map_err(here)?;
        if told > 0 {
            let failure = ChildFailure::from_bytes(bytes.get(..told).unwrap_or_default());
            let step = plan.steps.get(failure.step).map_or("exec", Step::name);
            return Err(SpawnError::Step { step: step.to_owned(), source: failure.errno });
        }
        // Nobody says whether exec or death closed it. Who is dead by now was asked nothing yet; later ends are told by the pidfd.
        if self.was_killed() {
            return Err(SpawnError::Killed { step: "exec".to_owned() });
        }
        self.groups.keep = true;
        self.running.take().ok_or(SpawnError::Stuck)
    }
}

impl Drop for Cloned<'_> {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            reap_quietly(running.pidfd.as_fd());
        }
    }
}

/// Kills a child, if it still lives, and reaps it.
pub(crate) fn reap_quietly(pidfd: BorrowedFd<'_>) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
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

fn failed(step: &Step) -> impl Fn(Errno) -> SpawnError + use<> {
    let name = step.name();
    move |source| SpawnError::Step { step: name.to_owned(), source }
}
