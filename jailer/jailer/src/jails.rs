//! The jails of this host: who lives in which slot.
//!
//! ```text
//!   free slot --spawn--> alive --Kill or its own end--> dying --death seen, reaped, emptied--> free slot
//!       ^                  ^                                         |
//!       |  spawn failed    |  adopted: found in the cgroups          |  directories still busy: kept as `dirty`,
//!       '------------------'  by a jailer started anew               '  tried again every 50 ms
//! ```
//! What is in the cgroup hierarchy is the record: a directory's name carries slot and name, its process list says
//! whether it lives. Nothing has to be kept in step with it.

use crate::{
    cgroup::{Parents, read_file},
    programs::Programs,
    slots::Slots,
    spawn::{SpawnError, Spawner},
};
use rustix::{
    io::Errno,
    process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};
use warren_sandbox_plan::{
    cgroup::{directory_name, parse_directory_name},
    facts::HostFacts,
    name::SandboxName,
    plan::Plan,
    request::{ExitStatus, Jailed, Limits, MAX_TASKS, Spawn},
};

/// How many ends are remembered for a Kill that comes after the end.
const REMEMBERED_ENDS: usize = 1024;

/// What a jailer works with.
pub(crate) struct Host {
    pub(crate) facts: HostFacts,
    pub(crate) parents: Parents,
    pub(crate) programs: Programs,
    /// /proc.
    pub(crate) processes: OwnedFd,
    pub(crate) uid_base: u32,
    pub(crate) slots: u32,
    /// Most memory of one jail: that of all together.
    pub(crate) max_memory_bytes: u64,
    /// For tests: the step that is made to fail.
    pub(crate) fail_at: Option<String>,
}

/// The jails.
pub(crate) struct Jails {
    host: Host,
    slots: Slots,
    alive: BTreeMap<SandboxName, Jail>,
    ended: VecDeque<(SandboxName, Option<ExitStatus>)>,
    dirty: Vec<String>,
}

/// One that lives or is dying.
pub(crate) struct Jail {
    pub(crate) info: Jailed,
    /// Readable once it has ended.
    pub(crate) pidfd: OwnedFd,
    directory: String,
}

/// Why a spawn was refused or failed; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedSpawn {
    #[error("the name is taken")]
    NameTaken,
    #[error("every slot is taken")]
    NoSlot,
    #[error("{0} must not be zero")]
    ZeroLimit(&'static str),
    #[error("{what} of {asked} is more than this jailer gives, {most}")]
    OverLimit { what: &'static str, asked: u64, most: u64 },
    #[error(transparent)]
    Failed(#[from] SpawnError),
}

impl RefusedSpawn {
    pub(crate) fn step(&self) -> &str {
        match self {
            Self::NameTaken | Self::ZeroLimit(_) | Self::OverLimit { .. } => "request",
            Self::NoSlot => "slot",
            Self::Failed(error) => error.step(),
        }
    }

    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::NameTaken | Self::ZeroLimit(_) | Self::OverLimit { .. } => false,
            Self::NoSlot => true,
            Self::Failed(error) => error.is_retryable(),
        }
    }
}

/// What a Kill found.
pub(crate) enum Kill {
    /// It lives; its pidfd will tell when it no longer does.
    Dying,
    /// It does not, and had ended so, if that is known.
    Gone(Option<ExitStatus>),
}

impl Jails {
    /// Takes over what an earlier jailer left: adopts what lives, clears away what does not.
    pub(crate) fn adopt(host: Host) -> Result<Self, Errno> {
        let slots = Slots::new(host.slots);
        let mut jails =
            Self { host, slots, alive: BTreeMap::new(), ended: VecDeque::new(), dirty: Vec::new() };
        for directory in jails.host.parents.directories()? {
            // A directory that is not a jail's was not made by a jailer: it stays.
            if let Some((slot, name)) = parse_directory_name(&directory) {
                match jails.find_first_process(&directory) {
                    Some((pid, uid, pidfd)) if jails.slots.claim(slot) => {
                        let info = Jailed { name: name.clone(), pid, uid, slot, spawn_us: 0 };
                        jails.alive.insert(name, Jail { info, pidfd, directory });
                    }
                    _ => {
                        jails.host.parents.kill(&directory);
                        jails.dirty.push(directory);
                    }
                }
            }
        }
        jails.settle();
        Ok(jails)
    }

    /// The jail's first process (pid 1 of its pid namespace) and its uid, if it lives.
    fn find_first_process(&self, directory: &str) -> Option<(i32, u32, OwnedFd)> {
        self.host.parents.processes(directory).into_iter().find_map(|pid| {
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // Asked after the pidfd is held: now the number cannot mean another process.
            let status = read_file(self.host.processes.as_fd(), &format!("{}/status", pid.as_raw_nonzero()));
            let uid = uid_of_first_in_namespace(&status.ok()?)?;
            let still = self.host.parents.processes(directory).contains(&pid);
            still.then_some((pid.as_raw_nonzero().get(), uid, pidfd))
        })
    }

    /// Starts one.
    pub(crate) fn spawn(&mut self, request: &Spawn, passed: &[OwnedFd]) -> Result<&Jail, RefusedSpawn> {
        let begun = Instant::now();
        let Spawn { name, program, limits } = request;
        if self.alive.contains_key(name) {
            return Err(RefusedSpawn::NameTaken);
        }
        check_limits(limits, self.host.max_memory_bytes)?;
        let slot = self.slots.take().ok_or(RefusedSpawn::NoSlot)?;
        let uid = self.host.uid_base.saturating_add(slot);
        let plan = Plan::new(&self.host.facts, slot, uid, name, *program, limits);
        let spawner = Spawner {
            parents: &self.host.parents,
            programs: &self.host.programs,
            processes: self.host.processes.as_fd(),
            fail_at: self.host.fail_at.as_deref(),
        };
        match spawner.spawn(&plan, passed) {
            Ok(running) => {
                let spawn_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                let info = Jailed { name: name.clone(), pid: running.pid, uid, slot, spawn_us };
                let jail = Jail { info, pidfd: running.pidfd, directory: directory_name(slot, name) };
                Ok(self.alive.entry(name.clone()).insert_entry(jail).into_mut())
            }
            Err(error) => {
                self.slots.give(slot, self.host.slots);
                Err(error.into())
            }
        }
    }

    /// Begins to end one.
    pub(crate) fn kill(&mut self, name: &SandboxName) -> Kill {
        if let Some(jail) = self.alive.get(name) {
            let _ = pidfd_send_signal(&jail.pidfd, Signal::KILL);
            self.host.parents.kill(&jail.directory);
            return Kill::Dying;
        }
        let ended = self.ended.iter().rev().find(|(ended, _)| ended == name);
        Kill::Gone(ended.and_then(|(_, exit)| *exit))
    }

    /// Clears away one whose pidfd says that it has ended.
    pub(crate) fn bury(&mut self, name: &SandboxName) -> Option<ExitStatus> {
        let jail = self.alive.remove(name)?;
        let exit = reap(jail.pidfd.as_fd());
        // Its first process has ended, and with it, the kernel says, its whole pid namespace. If a process is there
        // nevertheless, it does not outlive this.
        self.host.parents.kill(&jail.directory);
        self.dirty.push(jail.directory);
        self.sweep();
        if self.ended.len() == REMEMBERED_ENDS {
            self.ended.pop_front();
        }
        self.ended.push_back((name.clone(), exit));
        exit
    }

    /// Sweeps until nothing is left to sweep, a second at most: a group stays busy while its last process exits.
    fn settle(&mut self) {
        for _ in 0..250 {
            self.sweep();
            if !self.is_dirty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    /// Whether something could not be cleared away yet and [`Self::sweep`] is to be called again soon.
    pub(crate) const fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Removes the directories of the dead and frees their slots. One that is still busy is tried again next time.
    pub(crate) fn sweep(&mut self) {
        let (parents, slots, count) = (&self.host.parents, &mut self.slots, self.host.slots);
        let alive = &self.alive;
        self.dirty.retain(|directory| {
            let removed = parents.remove(directory).is_ok();
            if removed && let Some((slot, _)) = parse_directory_name(directory) {
                // Two directories for one slot can only be found at adoption: the living one keeps it.
                if !alive.values().any(|jail| jail.info.slot == slot) {
                    slots.give(slot, count);
                }
            }
            !removed
        });
    }

    /// The living, in the order of their names.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &Jail> {
        self.alive.values()
    }

    /// Those that come after a name, or all.
    pub(crate) fn alive_after(&self, name: Option<&SandboxName>) -> impl Iterator<Item = &Jail> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.alive.range::<SandboxName, _>((from, Bound::Unbounded)).map(|(_, jail)| jail)
    }

    /// Ends all of them and waits for it; removes everything the jailer made.
    pub(crate) fn end_all(&mut self) {
        let names: Vec<SandboxName> = self.alive.keys().cloned().collect();
        for name in &names {
            self.kill(name);
        }
        for name in &names {
            if let Some(jail) = self.alive.get(name) {
                let mut waiting = [rustix::event::PollFd::new(&jail.pidfd, rustix::event::PollFlags::IN)];
                while matches!(rustix::event::poll(&mut waiting, None), Err(Errno::INTR)) {}
            }
            self.bury(name);
        }
        self.settle();
        self.host.parents.remove_all();
    }

    /// Removes what is there even without a jail, if there is none.
    pub(crate) fn leave(&self) {
        if self.alive.is_empty() {
            self.host.parents.remove_all();
        }
    }
}

/// What the agent asks for is its business, within what the host's owner gave away.
fn check_limits(limits: &Limits, max_memory_bytes: u64) -> Result<(), RefusedSpawn> {
    let Limits { memory_bytes, cpu_millis, cpu_hard: _, pids, cpu_seconds: _ } = *limits;
    let pids = u64::from(pids);
    for (what, asked, most) in [
        ("memory_bytes", memory_bytes, max_memory_bytes),
        ("cpu_millis", cpu_millis.into(), u64::MAX),
        ("pids", pids, MAX_TASKS.into()),
    ] {
        if asked == 0 {
            return Err(RefusedSpawn::ZeroLimit(what));
        }
        if asked > most {
            return Err(RefusedSpawn::OverLimit { what, asked, most });
        }
    }
    Ok(())
}

/// Takes the exit status of a child. `None` for a process that an earlier jailer started: it is not ours to wait for.
fn reap(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).ok()??;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(ExitStatus::Code(code)),
        (None, Some(signal)) => Some(ExitStatus::Signal(signal)),
        (None, None) => None,
    }
}

/// The uid in the text of /proc/PID/status, if that process is pid 1 in a namespace below ours. An earlier jailer may
/// have had another uid base, so the process itself is asked.
fn uid_of_first_in_namespace(status: &str) -> Option<u32> {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::split_whitespace);
    let mut ids = field("NSpid:")?;
    let is_first = ids.clone().count() > 1 && ids.next_back() == Some("1");
    is_first.then_some(())?;
    field("Uid:")?.next()?.parse().ok()
}
