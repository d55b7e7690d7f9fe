//! The jails of this host: who lives in which slot.
//!
//! ```text
//!   free slot --> ready --spawn--> alive --Kill or its own end--> dying --death seen, reaped, emptied--> free slot
//!       ^           |                ^                                         |
//!       |  failed,  |                |  adopted: found in the cgroups          |  directories still busy: kept as `dirty`,
//!       '--killed---'                '  by a jailer started anew               '  tried again every 50 ms
//! ```
//! Some slots are made ready before they are asked for, while nothing else is to be done; a spawn that finds none makes one.
//! What is in the cgroup hierarchy is the record: a directory's name says the slot, an attribute the jail's name, its process
//! list whether it lives. Nothing has to be kept in step with it.

mod pool;
mod refused;

pub(crate) use refused::RefusedSpawn;

use crate::{
    cgroup::{Parents, read_file},
    network::Network,
    programs::{Programs, open_anew},
    ready::Ready,
    slots::Slots,
    spawn::{Faults, Spawner},
};
use refused::check_limits;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fstat, openat},
    io::Errno,
    process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::{Duration, Instant},
};
use warren_sandbox_plan::{
    cgroup::{directory_name, parse_directory_name},
    facts::{Availability, HostFacts},
    name::SandboxName,
    plan::Plan,
    request::{ExitStatus, Jailed, LinuxMachine, Program, Spawn},
};

/// How many ends are remembered for a Kill that comes after the end.
const REMEMBERED_ENDS: usize = 1024;

/// What a jailer works with.
pub(crate) struct Host {
    pub(crate) facts: HostFacts,
    pub(crate) parents: Rc<Parents>,
    pub(crate) programs: Programs,
    /// /proc.
    pub(crate) processes: OwnedFd,
    /// Its own mount namespace, to come back to.
    pub(crate) mounts: OwnedFd,
    pub(crate) uid_base: u32,
    pub(crate) slots: u32,
    /// Slots that are kept ready.
    pub(crate) ready: usize,
    /// Most memory of one jail: that of all together.
    pub(crate) max_memory_bytes: u64,
    /// What sandboxes' network is made by, or why they have none.
    pub(crate) network: Result<Network, String>,
    /// For tests: the step that is made to fail.
    pub(crate) fail_at: Option<String>,
    /// For tests: the step before which the process is killed.
    pub(crate) kill_at: Option<String>,
}

/// The jails.
pub(crate) struct Jails {
    host: Host,
    slots: Slots,
    ready: VecDeque<Ready>,
    /// Whether the last one could not be made ready: nobody tries again until a spawn has.
    stalled: bool,
    alive: BTreeMap<SandboxName, Jail>,
    ended: VecDeque<(SandboxName, Ending)>,
    dirty: Vec<String>,
}

/// One that lives or is dying.
pub(crate) struct Jail {
    pub(crate) info: Jailed,
    /// Readable once it has ended.
    pub(crate) pidfd: OwnedFd,
    directory: String,
}

/// How one ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// `None` for one that an earlier jailer started: it is not ours to wait for.
    pub(crate) exit: Option<ExitStatus>,
    /// Whether the kernel killed in its groups for want of memory.
    pub(crate) out_of_memory: bool,
}

/// One that was started.
pub(crate) struct Spawned<'a> {
    pub(crate) jail: &'a Jail,
    /// Of its network.
    pub(crate) tap: Option<OwnedFd>,
}

/// What a Kill found.
pub(crate) enum Kill {
    /// It lives; its pidfd will tell when it no longer does.
    Dying,
    /// It does not, and had ended so, if that is known.
    Gone(Ending),
}

impl Host {
    fn spawner(&self) -> Spawner<'_> {
        Spawner {
            parents: &self.parents,
            programs: &self.programs,
            processes: self.processes.as_fd(),
            mounts: self.mounts.as_fd(),
            faults: Faults { fail_at: self.fail_at.as_deref(), kill_at: self.kill_at.as_deref() },
        }
    }

    const fn uid(&self, slot: u32) -> u32 {
        self.uid_base.saturating_add(slot)
    }
}

impl Jails {
    /// Takes over what an earlier jailer left: adopts what lives, clears away what does not.
    pub(crate) fn adopt(host: Host) -> Result<Self, Errno> {
        let slots = Slots::new(host.slots);
        let mut jails = Self {
            host,
            slots,
            ready: VecDeque::new(),
            stalled: false,
            alive: BTreeMap::new(),
            ended: VecDeque::new(),
            dirty: Vec::new(),
        };
        for directory in jails.host.parents.directories()? {
            // A directory that is not a slot's was not made by a jailer: it stays. One without a name was never a jail's.
            if let Some((slot, name)) = parse_directory_name(&directory) {
                let name = name.or_else(|| jails.host.parents.name_of(&directory));
                match (jails.find_first_process(&directory), name) {
                    (Some((pid, uid, pidfd)), Some(name)) if jails.slots.claim(slot) => {
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
    pub(crate) fn spawn(&mut self, request: &Spawn, passed: &[OwnedFd]) -> Result<Spawned<'_>, RefusedSpawn> {
        let begun = Instant::now();
        if !request.is_called_right() {
            return Err(RefusedSpawn::WrongName);
        }
        let Spawn { name, program, limits } = request;
        if self.alive.contains_key(name) {
            return Err(RefusedSpawn::NameTaken);
        }
        check_limits(limits, *program, self.host.max_memory_bytes)?;
        let sources = self.host.spawner().open_sources(*program, passed)?;
        let ready = self.take_ready()?;
        let slot = ready.slot();
        let spawned = self.attach(slot, *program).and_then(|tap| {
            let plan = Plan::new(&self.host.facts, slot, self.host.uid(slot), name, *program, limits);
            Ok((self.host.spawner().start(ready, &plan, &sources)?, plan.uid, tap))
        });
        match spawned {
            Ok((running, uid, tap)) => {
                let spawn_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                let info = Jailed { name: name.clone(), pid: running.pid, uid, slot, spawn_us };
                let jail = Jail { info, pidfd: running.pidfd, directory: directory_name(slot) };
                let jail = self.alive.entry(name.clone()).insert_entry(jail).into_mut();
                Ok(Spawned { jail, tap })
            }
            Err(error) => {
                self.slots.give(slot, self.host.slots);
                Err(error)
            }
        }
    }

    /// The tap of a machine that is to have a network.
    fn attach(&mut self, slot: u32, program: Program) -> Result<Option<OwnedFd>, RefusedSpawn> {
        let Some(LinuxMachine { network: true, .. }) = program.linux_machine() else { return Ok(None) };
        match &mut self.host.network {
            Ok(network) => Ok(Some(network.attach(slot, self.host.processes.as_fd())?)),
            Err(why) => Err(RefusedSpawn::NoNetwork(why.clone())),
        }
    }

    /// Whether sandboxes can have a network.
    pub(crate) fn network(&self) -> Availability {
        self.host.network.as_ref().map_or_else(|why| Availability::No(why.clone()), |_| Availability::Yes)
    }

    /// BLAKE3 of the guest program.
    pub(crate) const fn guest_digest(&self) -> Option<[u8; 32]> {
        self.host.programs.guest_digest
    }

    /// The pipe that a living one writes its log to, opened once more to be read. It is there as long as the writer is: nothing
    /// has to be kept for it.
    pub(crate) fn log(&self, name: &SandboxName) -> Result<OwnedFd, Errno> {
        let jail = self.alive.get(name).ok_or(Errno::NOENT)?;
        let path = format!("{}/fd/1", jail.info.pid);
        // Judged before it is opened for reading: the program can put anything in its log's place.
        let open =
            |at: BorrowedFd<'_>, path: &str, flags| openat(at, path, flags | OFlags::CLOEXEC, Mode::empty());
        let named = open(self.host.processes.as_fd(), &path, OFlags::PATH)?;
        if FileType::from_raw_mode(fstat(&named)?.st_mode) != FileType::Fifo {
            return Err(Errno::INVAL);
        }
        let log = open_anew(self.host.processes.as_fd(), named.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK)?;
        // Still not dead: the number meant this one when it was looked at.
        let mut looks = [PollFd::new(&jail.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut looks, Some(&now))? == 0 { Ok(log) } else { Err(Errno::SRCH) }
    }

    /// Begins to end one.
    pub(crate) fn kill(&mut self, name: &SandboxName) -> Kill {
        if let Some(jail) = self.alive.get(name) {
            let _ = pidfd_send_signal(&jail.pidfd, Signal::KILL);
            self.host.parents.kill(&jail.directory);
            return Kill::Dying;
        }
        let ended = self.ended.iter().rev().find(|(ended, _)| ended == name);
        Kill::Gone(ended.map(|(_, ending)| *ending).unwrap_or_default())
    }

    /// Clears away one whose pidfd says that it has ended.
    pub(crate) fn bury(&mut self, name: &SandboxName) -> Ending {
        let Some(jail) = self.alive.remove(name) else { return Ending::default() };
        let exit = reap(jail.pidfd.as_fd());
        let ending = Ending { exit, out_of_memory: self.host.parents.killed_for_memory(&jail.directory) };
        // Its first process has ended, and with it, the kernel says, its whole pid namespace. If a process is there
        // nevertheless, it does not outlive this.
        self.host.parents.kill(&jail.directory);
        self.dirty.push(jail.directory);
        self.sweep();
        if self.ended.len() == REMEMBERED_ENDS {
            self.ended.pop_front();
        }
        self.ended.push_back((name.clone(), ending));
        ending
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
        let Host { parents, network, slots: count, .. } = &mut self.host;
        let (slots, count) = (&mut self.slots, *count);
        let alive = &self.alive;
        self.dirty.retain(|directory| {
            let removed = parents.remove(directory).is_ok();
            if removed && let Some((slot, _)) = parse_directory_name(directory) {
                // Two directories for one slot can only be found at adoption: the living one keeps it.
                if !alive.values().any(|jail| jail.info.slot == slot) {
                    if let Ok(network) = network {
                        network.forget(slot);
                    }
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
        self.discard_all();
        let names: Vec<SandboxName> = self.alive.keys().cloned().collect();
        for name in &names {
            self.kill(name);
        }
        for name in &names {
            if let Some(jail) = self.alive.get(name) {
                let mut waiting = [PollFd::new(&jail.pidfd, PollFlags::IN)];
                while matches!(poll(&mut waiting, None), Err(Errno::INTR)) {}
            }
            self.bury(name);
        }
        self.settle();
        self.remove_all();
    }

    /// Removes what is there even without a jail, if there is none.
    pub(crate) fn leave(&mut self) {
        self.discard_all();
        self.settle();
        if self.alive.is_empty() {
            self.remove_all();
        }
    }

    fn remove_all(&mut self) {
        self.host.parents.remove_all();
        if let Ok(network) = &mut self.host.network {
            network.remove();
        }
    }
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
