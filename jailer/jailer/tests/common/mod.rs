//! A real `warren-jailer serve` on a socket in a temporary directory, and the agent's side of its protocol.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a failure here is a failed test")]

mod client;

pub(crate) use client::{Client, Running};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    process::{Gid, Pid, Signal, kill_process},
};
use serde_json::Value;
use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};
use tempfile::TempDir;
use warren_sandbox_plan::{
    cgroup::NAME_ATTRIBUTE,
    name::SandboxName,
    request::{
        CompileOptions, CompilePurpose, JAILER_PROTOCOL_VERSION, Limits, PagerOptions, Program, Reply,
        Request,
    },
};

static PROGRAMS: OnceLock<Programs> = OnceLock::new();

/// Where the programs under test lie: where they were built or, on another machine, beside this test.
pub(crate) struct Programs {
    pub(crate) jailer: PathBuf,
    pub(crate) probe: PathBuf,
}

pub(crate) fn programs() -> &'static Programs {
    PROGRAMS.get_or_init(|| {
        let here = std::env::current_exe().unwrap();
        let find = |built: &str, name: &str| {
            let candidates = [PathBuf::from(built), here.with_file_name(name)];
            let found = candidates.into_iter().find(|path| path.exists());
            found.unwrap_or_else(|| panic!("{name} is needed beside {}: carry it along", here.display()))
        };
        Programs {
            jailer: find(env!("CARGO_BIN_EXE_warren-jailer"), "warren-jailer"),
            probe: find(env!("CARGO_BIN_EXE_jail-probe"), "jail-probe"),
        }
    })
}

/// Counts the jailers of this test process.
static NEXT: AtomicU32 = AtomicU32::new(0);
/// Uids of one jailer.
const UIDS: u32 = 10_000;

/// A jailer of this test alone.
pub(crate) struct Jailer {
    pub(crate) folder: TempDir,
    pub(crate) uid_base: u32,
    process: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) ready: String,
}

/// Fails, with what to do, where the tests cannot run.
pub(crate) fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the jail's tests make namespaces, cgroups and users and need root: run `sudo -E cargo test -p warren-jailer`"
    );
}

impl Jailer {
    /// Starts one with the probe in place of every program.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        require_root();
        Self::start_in(tempfile::Builder::new().prefix("jailer-").tempdir().unwrap(), arguments)
    }

    /// Starts one that must refuse to serve; gives its last words.
    pub(crate) fn refusal(arguments: &[&str]) -> String {
        require_root();
        let folder = tempfile::Builder::new().prefix("jailer-").tempdir().unwrap();
        let mut command = Command::new(&programs().jailer);
        command.arg("serve");
        let (socket, state) = (folder.path().join("run/jailer.sock"), folder.path().join("state"));
        let defaults = [
            ("--socket", socket.as_os_str()),
            ("--state", state.as_os_str()),
            ("--agent-uid", OsStr::new("0")),
        ];
        for (flag, value) in defaults.into_iter().filter(|(flag, _)| !arguments.contains(flag)) {
            command.arg(flag).arg(value);
        }
        let done = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(!done.status.success(), "it serves with {arguments:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    }

    pub(crate) fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        // Uid ranges of jailers that run at once do not overlap.
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        let uid_base = 1_000_000 * (1 + std::process::id() % 2000) + UIDS * number;
        // Things a careless starter leaves to the jailer and no jail may have: an open file, supplementary groups, and
        // below an environment.
        let leaked = rustix::io::fcntl_dupfd_cloexec(File::open("/etc/passwd").unwrap(), 100).unwrap();
        rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
        rustix::thread::set_thread_groups(&[Gid::from_raw(12_345), Gid::ROOT]).unwrap();
        let mut process = Command::new(&programs().jailer);
        process.arg("serve");
        let program =
            ["--vmm", "--compile", "--guest", "--pager"].map(|flag| (flag, programs().probe.as_os_str()));
        for (flag, value) in program.into_iter().chain([("--agent-uid", OsStr::new("0"))]) {
            if !arguments.contains(&flag) {
                process.arg(flag).arg(value);
            }
        }
        let mut process = process
            .args(["--cgroup-name", "warren-test", "--uid-base", &uid_base.to_string()])
            .arg("--socket")
            .arg(folder.path().join("run/jailer.sock"))
            .arg("--state")
            .arg(folder.path().join("state"))
            .args(arguments)
            .env("A_SECRET", "that no jail may see")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(leaked);
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready "), "the jailer did not come up; its last words are above");
        Self { folder, uid_base, process, stdout, ready }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/jailer.sock")
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    pub(crate) fn connect(&self) -> Client {
        let mut client = Client::connect(&self.socket());
        let version = JAILER_PROTOCOL_VERSION;
        let said = client.ask(&Request::Hello { version }, &[]).0;
        assert!(matches!(said, Reply::Hello { version: same, .. } if same == version), "{said:?}");
        client
    }

    /// Sends a signal, waits for the end, says how it ended.
    pub(crate) fn stop(&mut self, signal: Signal) -> std::process::ExitStatus {
        let _ = kill_process(self.pid(), signal);
        self.process.wait().unwrap()
    }

    /// Kills this jailer as a crash would, and starts another in its place.
    pub(crate) fn restart_after_crash(mut self, arguments: &[&str]) -> Self {
        self.stop(Signal::KILL);
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::start_in(folder, arguments)
    }

    /// The cgroup directories of this jailer, as it recorded them.
    pub(crate) fn cgroup_parents(&self) -> Vec<PathBuf> {
        let text = std::fs::read_to_string(self.folder.path().join("state/cgroups.json")).unwrap();
        let facts: Value = serde_json::from_str(&text).unwrap();
        let parents = facts["parents"].as_array().unwrap();
        parents.iter().map(|parent| PathBuf::from(parent["path"].as_str().unwrap())).collect()
    }

    /// All directories below those, by whether they are a slot's that is ready and nobody's yet.
    fn directories(&self, of_ready: bool) -> Vec<PathBuf> {
        let parents = self.cgroup_parents();
        let list = |parent: &PathBuf| std::fs::read_dir(parent).into_iter().flatten();
        let entries = parents.iter().flat_map(list).map(|entry| entry.unwrap().path());
        let is_ready = |path: &PathBuf| {
            let slot = path.file_name().and_then(OsStr::to_str).filter(|name| name.parse::<u32>().is_ok());
            slot.is_some_and(|slot| name_of(&parents[0].join(slot)).is_none())
        };
        entries.filter(|path| path.is_dir() && is_ready(path) == of_ready).collect()
    }

    /// The jails' directories below those, and whatever else is there.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        self.directories(false)
    }

    /// The processes that wait in slots that are ready.
    pub(crate) fn ready_slots(&self) -> Vec<i32> {
        let lists = self.directories(true).into_iter();
        let lists =
            lists.filter_map(|directory| std::fs::read_to_string(directory.join("cgroup.procs")).ok());
        let mut pids: Vec<i32> = lists
            .flat_map(|list| list.lines().map(|line| line.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Processes whose uid is one of this jailer's.
    pub(crate) fn jailed_processes(&self) -> Vec<i32> {
        let range = self.uid_base..self.uid_base + UIDS;
        processes(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let uid = status
                .lines()
                .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
            uid.is_some_and(|uid: u32| range.contains(&uid))
        })
    }

    /// Children of the jailer, zombies included.
    pub(crate) fn children(&self) -> Vec<i32> {
        let jailer = self.pid().as_raw_nonzero().get();
        processes(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent =
                stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            parent == Some(jailer)
        })
    }

    /// How many files the jailer has open, once it has seen the end of every connection but `client`'s, without the two of each
    /// slot that is ready.
    pub(crate) fn open_files(&self, client: &mut Client) -> usize {
        let files =
            || std::fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).unwrap().count();
        until("slots are ready, or none can be", || {
            // Whatever was ready before the first of these was seen before the second is answered.
            client.list();
            client.list();
            let seen = (files(), self.ready_slots());
            // One that fails by itself is the jailer's until it is reaped.
            let settled = self.is_settled() && seen == (files(), self.ready_slots());
            if settled { Ok(seen.0 - 2 * seen.1.len()) } else { Err(seen) }
        })
    }

    /// Nothing is on its way: the jailer's children are its jails' and those that wait in slots, each alive.
    fn is_settled(&self) -> bool {
        let mut children = self.children();
        let ready = self.ready_slots();
        let directories = self.directories(true).len();
        children.retain(|pid| !ready.contains(pid));
        children.is_empty() && directories == ready.len() * self.cgroup_parents().len()
    }

    /// Nothing of any jail is left on the host, and of slots that are ready nothing but what waits in them.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        assert_eq!(self.jailed_processes(), Vec::<i32>::new());
        let told = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        until("nothing but slots that are ready is left", || {
            let children = self.children();
            if self.is_settled() { Ok(()) } else { Err(children.iter().map(told).collect::<Vec<_>>()) }
        });
    }
}

/// Whose jail a cgroup is.
pub(crate) fn name_of(directory: &Path) -> Option<String> {
    let mut bytes = [0_u8; 64];
    let read = rustix::fs::getxattr(directory, NAME_ATTRIBUTE, &mut bytes).ok()?;
    Some(String::from_utf8(bytes[..read].to_vec()).unwrap())
}

/// Waits, ten seconds at most, until there is what is asked for.
pub(crate) fn until<T, E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(std::time::Instant::now() < deadline, "{what}: {seen:#?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

impl Drop for Jailer {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.stop(Signal::TERM);
        }
    }
}

fn processes(wanted: impl Fn(i32) -> bool) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| wanted(*pid)).collect()
}

pub(crate) const LIMITS: Limits =
    Limits { memory_bytes: 64 << 20, cpu_millis: 500, cpu_hard: false, pids: 16, cpu_seconds: 0 };

pub(crate) fn named(name: &str) -> SandboxName {
    SandboxName::new(name).unwrap()
}

/// A memfd with `content`, sealed if asked.
pub(crate) fn memory(content: &[u8], sealed: bool) -> OwnedFd {
    let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
    file.write_all(content).unwrap();
    if sealed {
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
    }
    file.into()
}

/// A pager of small bounds.
pub(crate) const PAGER: Program = Program::Pager(PagerOptions { cache_mib: 16, memory_mib: 8 });

/// Two ends of packets.
pub(crate) fn packet_pair() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// The mount namespace that this process's folders are in.
pub(crate) fn own_mounts() -> OwnedFd {
    File::open("/proc/self/ns/mnt").unwrap().into()
}

/// A folder, opened as one.
pub(crate) fn open_folder(path: &Path) -> OwnedFd {
    use rustix::fs::{Mode, OFlags, open};
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub(crate) const fn compile(purpose: CompilePurpose, isa: u64) -> Program {
    Program::Compile(CompileOptions { purpose, isa })
}
