//! A slot that is made ready: everything of a jail that does not depend on who asks for it.
//!
//! ```text
//!   Grouped ---- clone3 -----> Ready ---- its request, exec -----> Running
//!        |                        |
//!        | drop: rmdir            | drop: SIGKILL, reap, then as Grouped
//! ```
//! A failure at any point drops the phase it happened in; nothing is left. A ready slot is a child of the jailer that waits in
//! its namespaces and cgroups. Its own descriptors are the socket on which it waits and the lock on the cgroups (`Parents`), so
//! that a new jailer knows when the last child of an earlier one has come to its end; the death of its jailer ends it.

use crate::{
    cgroup::{GroupError, Parents, write_file},
    child::{self, ChildFailure},
    spawn::{EXEC_TIMEOUT, Faults, SpawnError, failed},
    sys,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::AsRawFd as _,
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, recv, send, sendmsg, socketpair,
    },
    process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
};
use warren_sandbox_plan::{
    cgroup::{Directory, directory_name},
    plan::{Namespaces, Plan, Step},
};

/// A program past exec.
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// A slot's cgroups.
struct Grouped {
    parents: Rc<Parents>,
    directory: String,
    keep: bool,
}

impl Grouped {
    fn new(parents: &Rc<Parents>, slot: u32, directories: &[Directory]) -> Result<Self, GroupError> {
        parents.make(directories)?;
        Ok(Self { parents: Rc::clone(parents), directory: directory_name(slot), keep: false })
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        if !self.keep {
            let _ = self.parents.remove(&self.directory);
        }
    }
}

/// A child that waits. Dropped, it is killed and reaped before its groups go.
pub(crate) struct Ready {
    slot: u32,
    running: Option<Running>,
    status: OwnedFd,
    groups: Grouped,
}

impl Ready {
    /// Walks the steps that a slot's plans begin with. `processes` is /proc. The child takes its own as soon as it may; whether
    /// they went well is heard when it is asked for more.
    pub(crate) fn make(
        slot: u32,
        steps: &[Step],
        parents: &Rc<Parents>,
        processes: BorrowedFd<'_>,
        faults: Faults<'_>,
    ) -> Result<Self, SpawnError> {
        let mut grouped: Option<Grouped> = None;
        let mut ready: Option<Self> = None;
        for step in steps.iter().take_while(|step| step.is_jailers()) {
            if faults.fail_at == Some(step.name()) {
                return Err(failed(step)(Errno::IO));
            }
            if let (Some(ready), true) = (&ready, faults.kill_at == Some(step.name())) {
                ready.kill();
            }
            match (step, &ready) {
                (Step::Cgroup { directories, .. }, None) => {
                    grouped = Some(Grouped::new(parents, slot, directories)?);
                }
                (Step::Clone(namespaces), None) => {
                    let groups = grouped.take().ok_or(SpawnError::Stuck)?;
                    ready = Some(clone_child(slot, namespaces, groups, steps, faults).map_err(failed(step))?);
                }
                (Step::MapUser { id }, Some(ready)) => {
                    ready.map_user(processes, *id).map_err(|errno| ready.failed(step.name(), errno))?;
                }
                (Step::Attach { by_clone: false }, Some(ready)) => {
                    ready.attach(steps).map_err(|errno| ready.failed(step.name(), errno))?;
                }
                (Step::Attach { by_clone: true }, Some(_)) => {}
                _ => return Err(SpawnError::Stuck),
            }
        }
        let ready = ready.ok_or(SpawnError::Stuck)?;
        send(&ready.status, b"g", SendFlags::NOSIGNAL).map_err(|errno| ready.failed("attach", errno))?;
        Ok(ready)
    }

    pub(crate) const fn slot(&self) -> u32 {
        self.slot
    }

    /// Readable once it has ended, which it does not do by itself.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.pidfd.as_fd())
    }

    /// Whether it still waits.
    pub(crate) fn waits(&self) -> bool {
        let Some(pidfd) = self.pidfd() else { return false };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)) == Ok(0)
    }

    /// Ends it; its directories are left to the caller, who may have to try more than once.
    pub(crate) fn discard(mut self) -> String {
        self.groups.keep = true;
        self.groups.directory.clone()
    }

    fn map_user(&self, processes: BorrowedFd<'_>, id: u32) -> Result<(), Errno> {
        let line = format!("{id} {id} 1");
        let pid = self.running.as_ref().map_or(-1, |running| running.pid);
        write_file(processes, &format!("{pid}/uid_map"), &line)?;
        write_file(processes, &format!("{pid}/gid_map"), &line)
    }

    fn attach(&self, steps: &[Step]) -> Result<(), Errno> {
        let directories = steps.iter().find_map(|step| match step {
            Step::Cgroup { directories, .. } => Some(directories.as_slice()),
            _ => None,
        });
        let pid = self.running.as_ref().map_or(-1, |running| running.pid);
        self.groups.parents.attach(directories.unwrap_or_default(), pid)
    }

    /// Makes it a request's: says whose it is, sets its limits, tells it the steps that are left and waits until exec closes its
    /// end of the status socket.
    pub(crate) fn start(
        mut self,
        plan: &Plan,
        sources: &[BorrowedFd<'_>],
        faults: Faults<'_>,
    ) -> Result<Running, SpawnError> {
        let (groups, rest) = plan.of_request();
        if faults.kill_at == Some("limits") {
            self.kill();
        }
        if faults.fail_at == Some("limits") {
            return Err(SpawnError::Step { step: "limits".to_owned(), source: Errno::IO });
        }
        self.groups.parents.limit(groups, &plan.name)?;
        let sent = self.tell(rest, sources);
        if plan.steps.iter().any(|step| !step.is_jailers() && faults.kill_at == Some(step.name())) {
            self.kill();
        }
        self.wait_for_exec(plan, sent)?;
        self.groups.keep = true;
        self.running.take().ok_or(SpawnError::Stuck)
    }

    fn tell(&self, rest: &[Step], sources: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let steps = postcard::to_allocvec(rest).map_err(|_| Errno::TOOBIG)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(child::MAX_SOURCES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if steps.len() > child::MAX_STEPS || !ancillary.push(SendAncillaryMessage::ScmRights(sources)) {
            return Err(Errno::TOOBIG);
        }
        sendmsg(&self.status, &[IoSlice::new(&steps)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }

    /// What came of it. A child that failed ahead of its request has said so and gone: then nothing could be sent.
    fn wait_for_exec(&self, plan: &Plan, sent: Result<(), Errno>) -> Result<(), SpawnError> {
        let here = |source| self.failed("exec", source);
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
        let mut hear = || recv(&self.status, &mut bytes, RecvFlags::empty()).map(|(told, _)| told);
        // Who goes without having read the rest is told so once; what it said comes after.
        let told = match hear() {
            Err(Errno::CONNRESET) => hear(),
            other => other,
        };
        let told = told.map_err(here)?;
        if told > 0 {
            let failure = ChildFailure::from_bytes(bytes.get(..told).unwrap_or_default());
            let step = plan.steps.get(failure.step).map_or("exec", Step::name);
            return Err(SpawnError::Step { step: step.to_owned(), source: failure.errno });
        }
        sent.map_err(here)?;
        // Nobody says whether exec or death closed it. Who is dead by now was asked nothing yet; later ends are told by the pidfd.
        if self.was_killed() { Err(SpawnError::Killed { step: "exec".to_owned() }) } else { Ok(()) }
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
        let ended = self.pidfd().map(|pidfd| waitid(WaitId::PidFd(pidfd), looks));
        let signal =
            ended.and_then(|ended| ended.ok().flatten()).and_then(|ended| ended.terminating_signal());
        signal == Some(Signal::KILL.as_raw())
    }

    /// For tests: kills it, and sees it dead.
    fn kill(&self) {
        if let Some(pidfd) = self.pidfd() {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
    }
}

impl Drop for Ready {
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

/// clone3, and in the child everything up to exec.
fn clone_child(
    slot: u32,
    namespaces: &Namespaces,
    groups: Grouped,
    steps: &[Step],
    faults: Faults<'_>,
) -> Result<Ready, Errno> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let group =
        if namespaces.into_cgroup { Some(groups.parents.open_group(&groups.directory)?) } else { None };
    let kept: Vec<RawFd> =
        groups.parents.dirs().chain([theirs.as_fd()]).map(|kept| kept.as_raw_fd()).collect();
    let mut flags = sys::CLONE_CLEAR_SIGHAND
        | [libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWIPC, libc::CLONE_NEWUTS]
            .iter()
            .fold(0, |all, flag| all | u64::from(flag.unsigned_abs()));
    if namespaces.user.is_yes() {
        flags |= u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    }
    let (pid, pidfd) = sys::clone_child(flags, group.as_ref().map(AsFd::as_fd), || {
        child::run(steps, &theirs, kept, faults.fail_at);
    })?;
    Ok(Ready { slot, running: Some(Running { pid, pidfd }), status: ours, groups })
}
