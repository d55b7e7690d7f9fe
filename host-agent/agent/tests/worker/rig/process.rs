//! Child processes of a test, with a ready line.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

/// A program that said `ready key=value ...`.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    pub(crate) ready: HashMap<String, String>,
}

impl Process {
    pub(crate) fn start(name: &'static str, mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if !line.starts_with("ready ") {
            panic!("{name} did not get ready: {line:?}, {:?}", child.wait());
        }
        let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
        let ready = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { name, child, ready }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return status.code();
        }
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let status = self.child.wait().unwrap();
        assert!(status.code().is_some(), "{} ended with {status}", self.name);
        status.code()
    }

    /// Resident bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether it is the jailer's child in a slot that is ready: nobody's jail, and alive.
pub(crate) fn waits_in_a_slot(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.split_once('(').is_some_and(|(_, rest)| rest.starts_with("warren-slot) ") && !rest.contains(") Z "))
}

/// Every process below this one.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may hold anything, parentheses too; what follows the last one is plain.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if let Some(parent) = fields.get(1).and_then(|text| text.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut queue) = (Vec::new(), VecDeque::from([root]));
    while let Some(pid) = queue.pop_front() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(child);
            queue.push_back(child);
        }
    }
    found
}
