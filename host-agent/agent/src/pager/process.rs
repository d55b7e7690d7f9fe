//! The pager's process: found by the jailer and at its socket, or started in a jail; talked to; ended.
//!
//! ```text
//! the jailer's list ─┬─ has one ─┬─ it answers ───────────────────────────────▶ up (adopted)
//!                    │           ╰─ another version, silent, not at its socket ─▶ killed ─╮
//!                    ╰─ has none ─────────────────────────────────────────────────────────┴─▶ bind, jail, connect, greet ─▶ up
//! ```
//! It listens itself, so the kernel says of every connection which process is at its other end, and it must be the jailer's.
//!
//! What it works in it gets as descriptors. Its user id is its own, and another one each time, so it owns nothing that it did not
//! make: the origin's chunks are for whoever reaches them to read, and its cache is for whoever holds it, in a folder that is closed
//! to everybody but the agent.

use super::{PagerError, log};
use crate::jailer::{JailerClient, JailerError};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd as _, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags, open},
    io::{Errno, ioctl_fionbio},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with, socketpair,
        sockopt::{Timeout, set_socket_timeout, socket_peercred},
    },
    pipe::{PipeFlags, pipe_with},
    process::{PidfdFlags, pidfd_open},
};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use warren_chunks::l3::{Origin, OriginLimits, Reading};
use warren_pager::{
    packet::{self, Packet},
    protocol::{PACKET_MAX, PROTOCOL_VERSION, Reply, Request, decode, encode},
};
use warren_sandbox_plan::{
    name::SandboxName,
    request::{Jailed, Limits, MAX_PAGER_TASKS, PAGER_NAME, PagerOptions, Program as Jail, Spawn},
};

/// A pager answers within this, or is taken for dead: no request of ours waits for a disk or a network.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a pager that was just started is tried again.
const PAUSE: Duration = Duration::from_millis(2);
/// How often a jailer that cannot end one is asked again, and how soon.
const KILLS: u32 = 50;
const KILL_AGAIN: Duration = Duration::from_millis(100);
/// How to start it.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it is reached.
    pub socket: PathBuf,
    /// The origin's folder; `None`: it is none, and the agent brings what lies there.
    pub origin: Option<PathBuf>,
    /// The folder of its own cache; the one above is closed to everybody else.
    pub cache: PathBuf,
    /// MiB of that.
    pub cache_mib: u32,
    /// MiB of sealed chunks in its memory.
    pub memory_mib: u32,
    /// MiB beyond these: what it opens for VMs, their images and threads.
    pub work_mib: u32,
}

/// The jailer, for a thread that waits for its answers.
#[derive(Debug)]
pub(super) struct Jailer {
    client: JailerClient,
    runtime: Runtime,
    name: SandboxName,
}

/// One that lives.
#[derive(Debug)]
pub(super) struct Process {
    socket: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    /// Our end of the socket by which it asks for what it cannot reach; nobody has taken it yet.
    upstream: Option<OwnedFd>,
}

impl Jailer {
    pub(super) fn new(client: JailerClient) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let name = SandboxName::new(PAGER_NAME).map_err(io::Error::other)?;
        Ok(Self { client, runtime, name })
    }

    /// The pager that lives.
    fn find(&self) -> Result<Option<Jailed>, JailerError> {
        let listed = self.runtime.block_on(self.client.list())?;
        Ok(listed.into_iter().find(|one| one.name == self.name))
    }

    /// Ends it, if it lives; its cache is free then.
    pub(super) fn end(&self) -> Result<(), JailerError> {
        let mut tries = 0;
        loop {
            match self.runtime.block_on(self.client.kill(&self.name)) {
                Ok(_) => return Ok(()),
                Err(error) if tries >= KILLS || !error.retryable() => return Err(error),
                // One that restarts: it is back in a moment.
                Err(_) => std::thread::sleep(KILL_AGAIN),
            }
            tries += 1;
        }
    }
}

impl Process {
    /// The one that is there, or a new one.
    pub(super) fn find_or_start(program: &Program, jailer: &Jailer) -> Result<Self, PagerError> {
        if let Some(listed) = jailer.find()? {
            match Self::adopt(program, jailer, &listed) {
                Ok(found) => {
                    tracing::info!(pid = found.pid, "a pager of an earlier agent is taken over");
                    return Ok(found);
                }
                Err(error) => {
                    tracing::warn!(pid = listed.pid, %error, "a pager is of no use and is ended");
                    jailer.end()?;
                }
            }
        }
        Self::start(program, jailer)
    }

    fn adopt(program: &Program, jailer: &Jailer, listed: &Jailed) -> Result<Self, PagerError> {
        let (socket, pid) = reach(program)?;
        let process = rustix::process::Pid::from_raw(listed.pid).ok_or(PagerError::Protocol)?;
        let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(io::Error::from)?;
        // Asked after the pidfd is held: now the number cannot mean another process.
        if pid != listed.pid || jailer.find()?.as_ref() != Some(listed) {
            return Err(PagerError::Protocol);
        }
        let mut found = Self { socket, pid, pidfd, upstream: None };
        found.greet()?;
        match jailer.runtime.block_on(jailer.client.log(&jailer.name)) {
            Ok(log) => log::follow(pid, log)?,
            Err(error) => tracing::warn!(pid, %error, "the pager's log cannot be read on"),
        }
        Ok(found)
    }

    fn start(program: &Program, jailer: &Jailer) -> Result<Self, PagerError> {
        match fs::remove_file(&program.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let listener = seqpacket().map_err(io::Error::from)?;
        let address = SocketAddrUnix::new(&program.socket).map_err(io::Error::from)?;
        bind(&listener, &address).map_err(io::Error::from)?;
        let cache = program.open_cache()?;
        let Reading { live, retired } = program.open_origin()?;
        let (log, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        // A log that nobody reads loses lines; it holds nobody up.
        ioctl_fionbio(&theirs, true).map_err(io::Error::from)?;
        let (name, limits) = (jailer.name.clone(), program.limits());
        let options = PagerOptions { cache_mib: program.cache_mib, memory_mib: program.memory_mib };
        let spawn = Spawn { name, program: Jail::Pager(options), limits };
        // The jailer mounts each folder alone, and does so where it is.
        let mounts = fs::File::open("/proc/self/ns/mnt")?.into();
        let descriptors = vec![listener, theirs, live, retired, cache, mounts];
        let started = jailer.runtime.block_on(jailer.client.spawn(spawn, descriptors))?;
        let (pid, pidfd) = (started.jailed.pid, started.pidfd);
        let begun = log::follow(pid, log).map_err(PagerError::from).and_then(|()| {
            let give_up = Instant::now() + PATIENCE;
            loop {
                match reach(program) {
                    // It does not listen yet.
                    Err(error)
                        if error.kind() == io::ErrorKind::ConnectionRefused
                            && Instant::now() < give_up
                            && !has_exited(&pidfd) =>
                    {
                        std::thread::sleep(PAUSE);
                    }
                    reached => return Ok(reached?),
                }
            }
        });
        let greeted = begun.and_then(|(socket, peer)| {
            let mut started = Self { socket, pid, pidfd, upstream: None };
            if peer == pid { started.greet().map(|()| started) } else { Err(PagerError::Protocol) }
        });
        match greeted {
            Ok(started) => {
                tracing::info!(pid, "a pager was started");
                Ok(started)
            }
            Err(error) => {
                jailer.end()?;
                Err(error)
            }
        }
    }

    fn greet(&mut self) -> Result<(), PagerError> {
        match self.ask(&Request::Hello { version: PROTOCOL_VERSION }, &[])? {
            Reply::Hello { version: PROTOCOL_VERSION } => {}
            Reply::Refused { why } => return Err(PagerError::Refused(why)),
            _ => return Err(PagerError::Protocol),
        }
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)?;
        match self.ask(&Request::Upstream, &[theirs.as_fd()])? {
            Reply::Figures { .. } => self.upstream = Some(ours),
            Reply::Refused { why } => return Err(PagerError::Refused(why)),
            _ => return Err(PagerError::Protocol),
        }
        Ok(())
    }

    /// Where it asks for what it cannot reach.
    pub(super) const fn take_upstream(&mut self) -> Option<OwnedFd> {
        self.upstream.take()
    }

    /// Asks one thing and waits for its answer.
    pub(super) fn ask(&self, request: &Request, passed: &[BorrowedFd<'_>]) -> Result<Reply, PagerError> {
        let packet = encode(request).ok_or(PagerError::Protocol)?;
        packet::send(&self.socket, &packet, passed)?;
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let Packet { bytes, .. } = packet::receive(&self.socket, PACKET_MAX)?.ok_or_else(gone)?;
        decode(&bytes).ok_or(PagerError::Protocol)
    }

    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has exited.
    pub(super) fn has_exited(&self) -> bool {
        has_exited(&self.pidfd)
    }
}

impl Program {
    /// What it may take of the host's memory at most, MiB.
    #[must_use]
    pub fn host_mib(&self) -> u64 {
        u64::from(self.memory_mib) + u64::from(self.work_mib)
    }

    /// Folders of the origin. One that is away, a file system that is not mounted, is not made. Where the origin is none, two of our
    /// own with nothing in them: so a pager's jail is the same everywhere.
    fn open_origin(&self) -> Result<Reading, PagerError> {
        let origin = match &self.origin {
            Some(origin) => {
                fs::metadata(origin)?;
                origin.clone()
            }
            None => self.cache.with_file_name("no-origin"),
        };
        // What it needs is there from now on, and readable for others.
        Origin::folder(&origin, OriginLimits::default()).map_err(io::Error::other)?;
        Ok(Reading::open(&origin)?)
    }

    fn open_cache(&self) -> io::Result<OwnedFd> {
        fs::create_dir_all(&self.cache)?;
        let set = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        if let Some(above) = self.cache.parent() {
            set(above, 0o700)?;
        }
        set(&self.cache, 0o777)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(open(&self.cache, flags, Mode::empty())?)
    }

    fn limits(&self) -> Limits {
        let memory_bytes = self.host_mib() << 20;
        Limits { memory_bytes, cpu_millis: 1000, cpu_hard: false, pids: MAX_PAGER_TASKS, cpu_seconds: 0 }
    }
}

/// A connection to whoever listens there, and which process that is.
fn reach(program: &Program) -> io::Result<(OwnedFd, i32)> {
    let socket = seqpacket()?;
    connect(&socket, &SocketAddrUnix::new(&program.socket)?)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    let peer = socket_peercred(&socket)?;
    Ok((socket, peer.pid.as_raw_nonzero().get()))
}

fn has_exited(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut ready = [PollFd::new(pidfd, PollFlags::IN)];
    !matches!(poll(&mut ready, Some(&now)), Ok(0) | Err(_))
}

fn seqpacket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}
