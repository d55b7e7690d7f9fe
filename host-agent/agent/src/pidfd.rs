//! Watching a process that is not our child.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::{io, os::fd::OwnedFd, time::Duration};
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

/// CPU time of all threads of a process so far; `None` when it is gone. proc_pid_stat(5), fields 14 and 15.
#[must_use]
pub fn cpu_time(pid: i32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, field 2, may hold anything; what follows its last parenthesis is plain and begins at field 3.
    let mut rest = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks = rest.next()?.parse::<u64>().ok()? + rest.next()?.parse::<u64>().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks.saturating_mul(1000) / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_our_own_time() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = cpu_time(own).unwrap();
        // Work until the counter moves: it has a resolution of some milliseconds.
        while cpu_time(own).unwrap() <= before {
            std::hint::black_box((0..100_000_u64).sum::<u64>());
        }
        assert_eq!(cpu_time(i32::MAX), None);
    }

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
