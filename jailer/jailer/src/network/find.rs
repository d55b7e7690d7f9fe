//! The router's namespace of an earlier jailer: a VMM that lives holds it by its tap.

use crate::sys;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Of the first of these processes that has a tap.
pub(super) fn namespace_of(processes: &[i32]) -> Option<OwnedFd> {
    processes.iter().find_map(|pid| of_process(*pid))
}

fn of_process(pid: i32) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    folder.flatten().find_map(|entry| {
        let leads_to = fs::read_link(entry.path()).ok()?;
        (leads_to == Path::new("/dev/net/tun")).then_some(())?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        let tap = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok()?;
        sys::namespace_of_tap(tap.as_fd()).ok()
    })
}
