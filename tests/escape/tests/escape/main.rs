//! Every attempt, in the real jail and with the VMM's own filters: none works, and each is told by a number or by its process's end. A
//! neighbour answers as before meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure here is a failed test")]

#[path = "../../../../jailer/jailer/tests/common/client.rs"]
#[allow(dead_code, reason = "shared with the jailer's own tests, which use all of it")]
mod client;
mod neighbour;
#[macro_use]
#[allow(unused_macros, reason = "shared with the monitor's own tests, which use all of it")]
#[path = "../../../../vmm/monitor/tests/support/mod.rs"]
mod support;

use client::Client;
use neighbour::{Neighbour, print};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;
use warren_escape::{
    attempts::{ALL, Attempt, HeldBy},
    stage::Stage,
};
use warren_sandbox_plan::{
    name::SandboxName,
    request::{ExitStatus, Limits},
};

const LIMITS: Limits =
    Limits { memory_bytes: 64 << 20, cpu_millis: 1000, cpu_hard: false, pids: 16, cpu_seconds: 0 };

fn named(name: &str) -> SandboxName {
    SandboxName::new(name).unwrap()
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The filter ended the process.
    Killed,
    /// The kernel answered this error.
    Refused(i64),
    /// It worked.
    Escaped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed => f.write_str("killed"),
            Self::Refused(error) => write!(f, "refused, error {error}"),
            Self::Escaped => f.write_str("ESCAPED"),
        }
    }
}

/// A jailer that starts the hostile program in the VMM's place.
struct Host {
    jailer: Child,
    client: Client,
    spawned: u32,
    _folder: TempDir,
}

impl Host {
    fn start() -> Self {
        assert!(geteuid().is_root(), "jails are made by root: run `sudo -E cargo test -p warren-escape`");
        let folder = tempfile::Builder::new().prefix("escape-").tempdir().unwrap();
        let escape = program("warren-escape");
        let programs = ["--vmm", "--compile", "--guest", "--pager"].map(|flag| (flag, escape.as_path()));
        let (jailer, client) =
            Client::of_new(&mut jailer(folder.path(), 500_000, programs), &socket(folder.path()));
        Self { jailer, client, spawned: 0, _folder: folder }
    }

    /// One process, one attempt.
    fn attempt(&mut self, stage: Stage, at: usize) -> Verdict {
        self.spawned += 1;
        let name = format!("e{}", self.spawned);
        let running = self.client.try_spawn(&name, LIMITS).unwrap();
        let said = running.tell(&format!("{} {at}", stage.name()));
        running.wait_for_end();
        let exit = self.client.kill(&name);
        let about = || format!("{} at {}: {said:?}, {exit:?}", ALL[at].name, stage.name());
        let answer = said.strip_prefix("sealed ").unwrap_or_else(|| panic!("never came to it: {}", about()));
        match answer.split_once(' ') {
            Some(("errno", error)) => Verdict::Refused(error.parse().unwrap()),
            Some(_) => Verdict::Escaped,
            // Whoever works and cannot say so any more is not taken for one that was killed by a filter.
            None if exit == Some(ExitStatus::Signal(Signal::SYS.as_raw())) => Verdict::Killed,
            None => panic!("no answer and no filter's end: {}", about()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.jailer), Signal::TERM);
        let _ = self.jailer.wait();
    }
}

/// A jailer of a folder's own, whose users begin so far into those of this process.
fn jailer(folder: &Path, users: u32, programs: [(&str, &Path); 4]) -> Command {
    let uid_base = 1_000_000 * (1 + std::process::id() % 2000) + users + 20_000 * ordinal();
    let mut command = Command::new(program("warren-jailer"));
    command
        .args(["serve", "--agent-uid", "0", "--cgroup-name", "warren-test"])
        .args(["--uid-base", &uid_base.to_string()])
        .args(programs.iter().flat_map(|(flag, file)| [Path::new(flag), file]))
        .arg("--state")
        .arg(folder.join("state"));
    command
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("run/jailer.sock")
}

/// Jailers of this process, by number: their users are others'.
fn ordinal() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Where it was built or, on another machine, beside this test.
fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_warren-escape")).with_file_name(name);
    let found = [here.with_file_name(name), built].into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is needed beside {}: carry it along", here.display()))
}

fn soak() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}

/// What is tried at a stage: all of it in the full form, and where the jail alone holds; else each attempt with one thread's filter.
fn tried(stage: Stage, seat: usize) -> impl Iterator<Item = (usize, &'static Attempt)> {
    let filters = Stage::ALL.len() - 1;
    ALL.iter().enumerate().filter(move |(at, attempt)| match stage {
        Stage::Jail => attempt.held_by == HeldBy::Jail,
        _ => soak() || at % filters == seat - 1,
    })
}

#[test]
fn nothing_that_is_tried_works() {
    let mut host = Host::start();
    let mut neighbour = Neighbour::start();
    let before = neighbour.as_mut().map(Neighbour::before);
    let called = neighbour.map(Neighbour::during);
    let mut escaped = Vec::new();
    let mut count = 0;
    println!("{:>14} {:>6} {:>7} {:>8} {:>8}", "stage", "tried", "killed", "refused", "escaped");
    for (seat, (stage, name)) in Stage::ALL.into_iter().enumerate() {
        let mut verdicts: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, attempt) in tried(stage, seat) {
            let verdict = host.attempt(stage, at);
            let word = match verdict {
                Verdict::Killed => "killed",
                Verdict::Refused(_) => "refused",
                Verdict::Escaped => "escaped",
            };
            *verdicts.entry(word).or_default() += 1;
            if verdict == Verdict::Escaped {
                escaped.push(format!("{name}: {}", attempt.name));
            }
            if soak() {
                println!("{name:>14} {}: {verdict}", attempt.name);
            }
        }
        let of = |word| verdicts.get(word).copied().unwrap_or_default();
        let tried: usize = verdicts.values().sum();
        count += tried;
        println!("{name:>14} {tried:>6} {:>7} {:>8} {:>8}", of("killed"), of("refused"), of("escaped"));
    }
    if let (Some(before), Some(called)) = (before, called) {
        println!("{:>14} {:>6} {:>9} {:>9} {:>9}", "neighbour", "calls", "p50 us", "p99 us", "most us");
        print("before", before);
        print("meanwhile", called.end());
    }
    println!("{} attempts, tried {count} times, {} escaped", ALL.len(), escaped.len());
    assert!(escaped.is_empty(), "{escaped:#?}");
}

/// The test of the test: without filters, what only they hold works, and is told as an escape.
#[test]
fn without_filters_what_they_hold_is_an_escape() {
    let mut host = Host::start();
    for name in ["fork", "code in new memory", "memory with a name", "a pair of sockets", "be dumped"] {
        let at = ALL.iter().position(|attempt| attempt.name == name).unwrap();
        assert_eq!(ALL[at].held_by, HeldBy::Filter, "{name}");
        assert_eq!(host.attempt(Stage::Jail, at), Verdict::Escaped, "{name}");
        assert_eq!(host.attempt(Stage::WasmVcpu, at), Verdict::Killed, "{name}");
    }
}
