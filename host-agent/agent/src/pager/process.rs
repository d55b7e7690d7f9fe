//! The pager's process: found at its socket, or started; talked to; ended.
//!
//! ```text
//! connect ─┬─ answers ─────────────────────────────────▶ up (adopted)
//!          ├─ another version, or silent ─▶ killed ─╮
//!          └─ nobody there ─────────────────────────┴─▶ bind, start, connect, greet ─▶ up (own)
//! ```
//! It listens itself, so the kernel says of every connection which process is at its other end.

use super::PagerError;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout, socket_peercred},
    },
    process::{PidfdFlags, Signal, getuid, pidfd_open, pidfd_send_signal},
};
use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use warren_pager::{
    packet::{self, Packet},
    protocol::{PACKET_MAX, PROTOCOL_VERSION, Reply, Request, decode, encode},
};

/// A pager answers within this, or is taken for dead: no request of ours waits for a disk or a network.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a pager that was just started is tried again.
const PAUSE: Duration = Duration::from_millis(2);
/// How long the end of one that was killed is waited for.
const END: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// How to start it.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub file: PathBuf,
    /// Where it is reached.
    pub socket: PathBuf,
    /// The origin's folder.
    pub origin: PathBuf,
    /// The folder of its own cache.
    pub cache: PathBuf,
    /// MiB of that.
    pub cache_mib: u64,
    /// MiB of sealed chunks in its memory.
    pub memory_mib: u64,
}

/// One that lives.
#[derive(Debug)]
pub(super) struct Process {
    socket: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    /// Ours, to be reaped; an earlier agent's is its init's.
    child: Option<Child>,
}

impl Process {
    /// The one that is there, or a new one.
    pub(super) fn find_or_start(program: &Program) -> Result<Self, PagerError> {
        match Self::connect(program) {
            Ok(found) => match found.greet() {
                Ok(()) => {
                    tracing::info!(pid = found.pid, "a pager of an earlier agent is taken over");
                    return Ok(found);
                }
                Err(error) => {
                    tracing::warn!(pid = found.pid, %error, "an earlier agent's pager is of no use and is ended");
                    found.end();
                }
            },
            Err(Errno::NOENT | Errno::CONNREFUSED) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        Self::start(program)
    }

    fn start(program: &Program) -> Result<Self, PagerError> {
        match fs::remove_file(&program.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let listener = seqpacket().map_err(io::Error::from)?;
        let address = SocketAddrUnix::new(&program.socket).map_err(io::Error::from)?;
        bind(&listener, &address).map_err(io::Error::from)?;
        let mut command = Command::new(&program.file);
        command.arg("serve").env_clear();
        for (name, folder) in [("--origin", &program.origin), ("--cache", &program.cache)] {
            command.arg(name).arg(folder);
        }
        for (name, mib) in [("--cache-mib", program.cache_mib), ("--memory-mib", program.memory_mib)] {
            command.arg(name).arg(mib.to_string());
        }
        if let Some(level) = std::env::var_os("WARREN_LOG") {
            command.env("WARREN_LOG", level);
        }
        let mut child = command.stdin(Stdio::from(listener)).stdout(Stdio::null()).spawn()?;
        let give_up = Instant::now() + PATIENCE;
        let connected = loop {
            match Self::connect(program) {
                // It does not listen yet.
                Err(Errno::CONNREFUSED)
                    if Instant::now() < give_up && matches!(child.try_wait(), Ok(None)) =>
                {
                    std::thread::sleep(PAUSE);
                }
                connected => break connected,
            }
        };
        let mut started = match connected {
            Ok(connected) => connected,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::from(error).into());
            }
        };
        started.child = Some(child);
        if let Err(error) = started.greet() {
            started.end();
            return Err(error);
        }
        tracing::info!(pid = started.pid, "a pager was started");
        Ok(started)
    }

    fn connect(program: &Program) -> Result<Self, Errno> {
        let socket = seqpacket()?;
        connect(&socket, &SocketAddrUnix::new(&program.socket)?)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        let peer = socket_peercred(&socket)?;
        if peer.uid != getuid() {
            return Err(Errno::PERM);
        }
        let pidfd = pidfd_open(peer.pid, PidfdFlags::empty())?;
        Ok(Self { socket, pid: peer.pid.as_raw_nonzero().get(), pidfd, child: None })
    }

    fn greet(&self) -> Result<(), PagerError> {
        match self.ask(&Request::Hello { version: PROTOCOL_VERSION }, &[])? {
            Reply::Hello { version: PROTOCOL_VERSION } => Ok(()),
            Reply::Refused { why } => Err(PagerError::Refused(why)),
            _ => Err(PagerError::Protocol),
        }
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
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut ready = [PollFd::new(&self.pidfd, PollFlags::IN)];
        !matches!(poll(&mut ready, Some(&now)), Ok(0) | Err(_))
    }

    /// Kills it, if it lives, and waits for its end: its cache is free then.
    pub(super) fn end(self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let mut ready = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if !matches!(poll(&mut ready, Some(&END)), Ok(1)) {
            tracing::warn!(pid = self.pid, "a pager that was killed has not ended yet");
            return;
        }
        if let Some(mut child) = self.child {
            let _ = child.wait();
        }
    }
}

fn seqpacket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}
