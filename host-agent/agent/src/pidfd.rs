//! Waiting for a process that is not our child.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::{io, os::fd::OwnedFd};
use tokio::io::{Interest, unix::AsyncFd};

/// A process; readable when it is gone.
#[derive(Debug)]
pub struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// Over a descriptor the jailer gave.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "the replacement is unsafe because some AsRawFd types change their descriptor; an OwnedFd cannot"
        )]
        AsyncFd::with_interest(fd, Interest::READABLE).map(Self)
    }

    /// Of a process by number; the caller makes sure that the number still names it.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Self::new(pidfd_open(pid, PidfdFlags::empty())?)
    }

    /// Returns when the process is gone.
    pub async fn exited(&self) -> io::Result<()> {
        self.0.readable().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_the_end() {
        let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let pidfd = Pidfd::open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(futures::poll!(Box::pin(pidfd.exited())).is_pending());
        child.kill().unwrap();
        pidfd.exited().await.unwrap();
        child.wait().unwrap();
    }
}
