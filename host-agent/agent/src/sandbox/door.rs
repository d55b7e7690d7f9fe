//! What every jailed VMM is given at its start, whatever it is for: a name, a socket that listens, somewhere to log.

use super::record::RunDir;
use rustix::pipe::{PipeFlags, pipe_with};
use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};
use warren_sandbox_plan::name::SandboxName;

/// Both sides of it.
#[derive(Debug)]
pub struct Door {
    /// Where the VMM is reached.
    pub socket: PathBuf,
    /// The VMM's side, in the order of its plan: the socket, what it logs into.
    pub theirs: Vec<OwnedFd>,
    /// What it logs, to be read without waiting.
    pub log: OwnedFd,
}

impl RunDir {
    /// Makes one for the jail of this name.
    pub fn door(&self, name: &SandboxName) -> io::Result<Door> {
        let socket = self.socket(name);
        let listener = OwnedFd::from(UnixListener::bind(&socket)?);
        let (log, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&log, true)?;
        Ok(Door { socket, theirs: vec![listener, write], log })
    }

    /// A name for a jail of the agent's own, unique over its restarts: one of an earlier agent may still be reclaimed.
    pub fn name(&self, kind: &str) -> io::Result<SandboxName> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        SandboxName::new(format!("{kind}-{now:x}-{count:x}")).map_err(io::Error::other)
    }
}
