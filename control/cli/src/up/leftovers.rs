//! Processes that an earlier run left behind, and the proof that this one leaves none.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{fs, path::Path};

/// An agent that is told to stop lets invocations end first.
const STOP_WITHIN: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// A process found in /proc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its real user.
    pub uid: u32,
    /// Its command line, shortened.
    pub command: String,
}

impl Process {
    /// The program's name.
    fn program(&self) -> &str {
        self.command.split('\0').next().unwrap_or_default().rsplit('/').next().unwrap_or_default()
    }

    /// What stands behind the `=` of its arguments.
    fn values(&self) -> impl Iterator<Item = &str> {
        self.command.split('\0').skip(1).filter_map(|word| Some(word.split_once('=')?.1))
    }
}

/// Processes of sandbox users.
pub(crate) fn of_users(base: u32, count: u32) -> Vec<Process> {
    let range = base..base.saturating_add(count);
    processes().filter(|process| range.contains(&process.uid)).collect()
}

/// Services that were started with this data directory.
fn of_directory(data: &Path) -> Vec<Process> {
    let needle = format!("{}/", data.display().to_string().trim_end_matches('/'));
    let service = |process: &Process| {
        ["warren-jailer", "warren-control", "warren-agent"].contains(&process.program())
            && process.values().any(|value| value.starts_with(&needle))
    };
    processes().filter(service).collect()
}

/// Ends the services that an earlier run left in this data directory, and waits for it: they hold its locks.
pub(crate) fn end_of_directory(data: &Path) {
    end(|| of_directory(data));
}

/// Ends agents at this jailer's socket whom no `warren up` watches any more.
pub(crate) fn end_orphans_of(socket: &Path) {
    let own = rustix::process::getuid().as_raw();
    let socket = socket.display().to_string();
    end(|| {
        let all: Vec<Process> = processes().collect();
        let watched = |pid| all.iter().any(|other| other.pid == pid && other.program() == "warren");
        let agent = |process: &&Process| {
            process.uid == own
                && process.program() == "warren-agent"
                && process.values().any(|value| value == socket)
                && !watched(process.parent)
        };
        all.iter().filter(agent).cloned().collect()
    });
}

/// Ends what is found, politely first.
fn end(find: impl Fn() -> Vec<Process>) {
    for process in find() {
        crate::screen::tell(&format!("ending {} of an earlier run", process.pid));
        let Some(pidfd) =
            Pid::from_raw(process.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            continue;
        };
        // Asked again now that the descriptor is held: the number could mean another process by now.
        if !find().contains(&process) {
            continue;
        }
        let _gone = pidfd_send_signal(&pidfd, Signal::TERM);
        let mut waiting = [PollFd::new(&pidfd, PollFlags::IN)];
        if !matches!(retry_on_intr(|| poll(&mut waiting, Some(&STOP_WITHIN))), Ok(1..)) {
            let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
}

fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        // A zombie holds nothing but its exit code, and its parent's attention.
        if status.lines().any(|line| line.starts_with("State:\tZ")) {
            return None;
        }
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        let (uid, parent) = (field("Uid:")?.parse().ok()?, field("PPid:")?.parse().ok()?);
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        Some(Process { pid, parent, uid, command: String::from_utf8_lossy(&command).into_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that waits on its standard input, under the name and with the arguments of a service.
    #[test]
    fn a_service_of_a_directory_is_found_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("warren-agent");
        std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
        let mut child = std::process::Command::new(&program)
            .args(["-c", "read line", "sh", &format!("--data={}/agent", dir.path().display())])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = |place: &Path| of_directory(place).iter().any(|process| process.pid == pid);
        assert!(!found(&dir.path().join("agent-of-another")));
        assert!(found(&dir.path().join("")));
        end_of_directory(&dir.path().join(""));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn this_process_is_found_by_its_user() {
        let own = i32::try_from(std::process::id()).unwrap();
        let uid = rustix::process::getuid().as_raw();
        assert!(of_users(uid, 1).iter().any(|process| process.pid == own));
        assert!(of_users(uid + 1, 5).iter().all(|process| process.pid != own));
    }
}
