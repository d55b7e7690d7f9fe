//! Starting, ending and reaping programs, and reading what they write.

use super::environment::Variables;
use super::freezer::Freezer;
use crate::core::{Ending, Who};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{PipeReader, Result as IoResult};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Who programs run as in a guest; nobody else has this number there.
pub(crate) const USER: u32 = 993;
/// Its group.
pub(crate) const GROUP: u32 = 990;

/// What to start.
pub(crate) struct Launch<'a> {
    /// The program and its arguments.
    pub(crate) words: Vec<OsString>,
    /// Its environment; nothing else is in it.
    pub(crate) variables: Variables,
    /// Where it starts.
    pub(crate) folder: &'a Path,
    /// As [`USER`], or as whoever runs this.
    pub(crate) as_user: bool,
}

/// A process that has ended.
pub(crate) enum Reaped {
    /// One of the programs.
    Program(Who, Ending),
    /// Somebody else's.
    Orphan,
}

/// The programs that run.
#[derive(Default)]
pub(crate) struct Programs {
    running: HashMap<Pid, Who>,
    /// The kernel's count of processes killed for memory, when last looked.
    out_of_memory: u64,
}

impl Programs {
    /// Starts one, where `freezer` can hold it. What it writes comes out of the pipe. Its process group is its own, so that all of it can be ended.
    pub(crate) fn launch(&mut self, who: Who, launch: Launch<'_>, freezer: &Freezer) -> IoResult<PipeReader> {
        let mut words = launch.words.into_iter();
        let program = words.next().ok_or(Errno::NOENT)?;
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .envs(launch.variables)
            .current_dir(launch.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        if launch.as_user {
            command.uid(USER).gid(GROUP);
        }
        let child = freezer.inside(|| command.spawn())?;
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            self.running.insert(pid, who);
            // The supervisor is spared when memory runs out; what it starts is not.
            let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "500");
        }
        self.out_of_memory = out_of_memory_kills();
        Ok(reader)
    }

    /// Signals a program and what it started in its group.
    pub(crate) fn signal(&self, who: Who, signal: Signal) {
        for (pid, _) in self.running.iter().filter(|(_, running)| **running == who) {
            let _ = kill_process_group(*pid, signal);
        }
    }

    /// Whether none runs.
    pub(crate) fn none(&self) -> bool {
        self.running.is_empty()
    }

    /// The highest memory of all that run, each at its own peak.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let peak = |pid: &Pid| {
            let text = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        self.running.keys().filter_map(peak).sum::<u64>().saturating_mul(1024)
    }

    /// Takes one process that has ended, whoever's it was; `None` when there is no more. Orphans are reaped here too.
    pub(crate) fn reap(&mut self) -> Option<Reaped> {
        let (pid, status) = match wait(WaitOptions::NOHANG) {
            Ok(Some(ended)) => ended,
            Err(Errno::INTR) => return Some(Reaped::Orphan),
            Ok(None) | Err(_) => return None,
        };
        let Some(who) = self.running.remove(&pid) else { return Some(Reaped::Orphan) };
        // Whatever it left in its group goes with it.
        let _ = kill_process_group(pid, Signal::KILL);
        let kills = out_of_memory_kills();
        let ending = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ending::Status(code),
            (None, Some(9)) if kills > self.out_of_memory => Ending::OutOfMemory,
            (None, signal) => Ending::Signal(signal.unwrap_or_default()),
        };
        self.out_of_memory = kills;
        Some(Reaped::Program(who, ending))
    }
}

fn out_of_memory_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
}
