//! The guest's program, the orphans it leaves, and the end of all of them.

use crate::{Failure, say};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::system::{RebootCommand, reboot};
use std::ffi::{OsStr, OsString};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long processes have between being asked to end and being ended.
const GRACE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(10);

/// Runs a program to its end and says how it ended.
pub(crate) fn run(program: &OsStr, arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let name = program.to_string_lossy().into_owned();
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .spawn()
        .map_err(Failure::of(format!("start {name}")))?;
    let main = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == main => {
                match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => say!("{name} ended with status {code}"),
                    (_, Some(signal)) => say!("{name} ended by signal {signal}"),
                    _ => say!("{name} ended"),
                }
                return Ok(());
            }
            // Somebody's orphan.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::of(format!("wait for {name}"))(error)),
        }
    }
}

/// Ends every process, writes everything out, and powers the machine off.
pub(crate) fn power_off() {
    end_all(Signal::TERM, GRACE);
    end_all(Signal::KILL, GRACE);
    rustix::fs::sync();
    // What is still mounted is consistent on disk now; the kernel itself ends the rest.
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        say!("power off: {error}");
    }
}

/// Ends what programs have left behind; whoever reaps meets it.
pub(crate) fn end_strays() {
    for pid in others() {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Signals every process and reaps until none is left or the grace is over.
fn end_all(signal: Signal, grace: Duration) {
    for pid in others() {
        let _ = kill_process(pid, signal);
    }
    let give_up = Instant::now() + grace;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() < give_up => std::thread::sleep(RETRY),
            // The grace is over, or nobody is left.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Every process but this one and the kernel's own, whose command lines are empty.
fn others() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_ours = |number: &i32| {
        *number > 1 && std::fs::read(format!("/proc/{number}/cmdline")).is_ok_and(|line| !line.is_empty())
    };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(is_ours).filter_map(Pid::from_raw).collect()
}
