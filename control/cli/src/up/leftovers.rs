//! Processes that an earlier run left behind, and the proof that this one leaves none.

use std::{fs, path::Path};

/// A process found in /proc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its real user.
    pub uid: u32,
    /// Its command line, shortened.
    pub command: String,
}

/// Processes of sandbox users.
pub(crate) fn of_users(base: u32, count: u32) -> Vec<Process> {
    let range = base..base.saturating_add(count);
    processes().filter(|process| range.contains(&process.uid)).collect()
}

/// Services that were started with this data directory.
pub(crate) fn of_directory(data: &Path) -> Vec<Process> {
    let needle = format!("{}/", data.display());
    let service = |process: &Process| {
        let mut words = process.command.split('\0');
        let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        ["warren-jailer", "warren-control", "warren-agent"].contains(&program)
            && words.any(|word| word.starts_with(&needle))
    };
    processes().filter(service).collect()
}

fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        // A zombie holds nothing but its exit code, and its parent's attention.
        if status.lines().any(|line| line.starts_with("State:\tZ")) {
            return None;
        }
        let uid = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        Some(Process { pid, uid, command: String::from_utf8_lossy(&command).into_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_user() {
        let own = i32::try_from(std::process::id()).unwrap();
        let uid = rustix::process::getuid().as_raw();
        assert!(of_users(uid, 1).iter().any(|process| process.pid == own));
        assert!(of_users(uid + 1, 5).iter().all(|process| process.pid != own));
    }
}
