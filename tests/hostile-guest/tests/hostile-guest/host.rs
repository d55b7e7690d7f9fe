//! A host: a jailer, a neighbour in a jail, disks; and cases that run beside it.

use super::client::{Client, Running};
use super::support::tap::Peer;
use super::support::vmm::{Vmm, call, load, memfd, receive, send, send_with, spec, status, try_receive};
use super::{LIMITS, support};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc::{RecvTimeoutError, channel},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};
use tempfile::TempDir;
use warren_hostile_guest::{
    cases::{Case, Ends},
    driver::{GUEST_CID, MEMORY, PATTERN},
    guest::kernel,
    verdict::Seen,
};
use warren_sandbox_plan::request::{ExitStatus, LinuxMachine, Program, Reply, Request};
use warren_vmm_protocol::linux::{BootEntry, DeviceSpec, HOST_TEMPLATE, Limits as Rates, LinuxSpec};
use warren_vmm_protocol::{ControlReply, ControlRequest, Hello, Outcome, PROTOCOL_VERSION, Role};

/// Bytes of a disk.
const DISK: usize = 1 << 20;
/// More log than any guest may bring about in its life here: the console's burst, what comes back in a minute, and the VMM's own.
const LOG_MAX: usize = 4 << 20;
/// Seconds for what a host's KVM may let go on for ever, before it is told to end.
const UNDECIDED_S: u64 = 10;
/// MiB that can be plugged.
const PLUGGABLE_MIB: &str = "64";

/// What a case is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    /// The disk that may not be written may be.
    pub(crate) writable: bool,
    /// MiB of its cgroup.
    pub(crate) memory_mib: u64,
    /// What its VMM is sent once its guest runs.
    pub(crate) signal: Option<i32>,
    /// Seconds after which what does not end is wedged.
    pub(crate) patience_s: u64,
}

impl Default for Given {
    fn default() -> Self {
        Self { writable: false, memory_mib: LIMITS.memory_bytes >> 20, signal: None, patience_s: 300 }
    }
}

/// A jailer, and what lives beside every case.
pub(crate) struct Host {
    jailer: Child,
    client: Client,
    spawned: u32,
    neighbour: Option<(Running, UnixStream, UnixStream)>,
    _folder: TempDir,
}

/// A log that is read as it comes.
struct Log {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Host {
    pub(crate) fn start() -> Self {
        assert!(
            geteuid().is_root(),
            "jails are made by root: run `sudo -E cargo test -p warren-hostile-guest`"
        );
        let folder = tempfile::Builder::new().prefix("hostile-guest-").tempdir().unwrap();
        let socket = folder.path().join("run/jailer.sock");
        let image = folder.path().join("guest");
        fs::write(&image, support::guest::elf()).unwrap();
        // The same that is started without a jail.
        let vmm = support::real::path("WARREN_VMM", "bin/warren-vmm");
        let uid_base = 1_000_000 * (1 + std::process::id() % 2000) + 600_000 + 20_000 * ordinal();
        let mut command = Command::new(program("warren-jailer"));
        command
            .args(["serve", "--agent-uid", "0", "--cgroup-name", "warren-test"])
            .args(["--uid-base", &uid_base.to_string()])
            .args(["--vmm", "--compile", "--pager"].iter().flat_map(|flag| [Path::new(flag), &vmm]))
            .args([Path::new("--guest"), &image])
            .arg("--state")
            .arg(folder.path().join("state"));
        let (jailer, client) = Client::of_new(&mut command, &socket);
        let mut host = Self { jailer, client, spawned: 0, neighbour: None, _folder: folder };
        let (_, running) = host.spawn(Program::Vmm, LIMITS.memory_bytes >> 20);
        let (mut control, invoke) = (connect(&running, Role::Control), connect(&running, Role::Invoke));
        let reply = load(&mut control, &spec(1), &[&support::sealed(b"R")]);
        assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
        host.neighbour = Some((running, control, invoke));
        host
    }

    /// A jailed program under a name of its own.
    pub(crate) fn spawn(&mut self, program: Program, memory_mib: u64) -> (String, Running) {
        self.spawned += 1;
        let name = format!("h{}", self.spawned);
        let limits = warren_sandbox_plan::request::Limits { memory_bytes: memory_mib << 20, ..LIMITS };
        let running = self.client.try_start_program(&name, limits, program).unwrap().unwrap();
        (name, running)
    }

    /// Runs a case in a jail.
    pub(crate) fn jailed(&mut self, case: &Case, given: &Given) -> Seen {
        let machine =
            LinuxMachine { memory_mib: 64, cpus: 1, disks: 2, disk_bytes: DISK as u64, network: false };
        let (name, mut running) = self.spawn(Program::Linux(machine), given.memory_mib);
        let log =
            Log::of(std::mem::replace(&mut running.log, BufReader::new(File::open("/dev/null").unwrap())));
        let disks = [disk(), disk()];
        let devices = vec![
            DeviceSpec::Block { read_only: false },
            DeviceSpec::Block { read_only: !given.writable },
            DeviceSpec::Rng,
            DeviceSpec::Vsock { guest_cid: u32::try_from(GUEST_CID).unwrap() },
        ];
        let mut control = connect(&running, Role::Control);
        let begun = begin(&mut control, case, devices, &disks.iter().collect::<Vec<_>>());
        if let Some(signal) = given.signal {
            log.until("console: stops", &running.pidfd, given.patience_s);
            kill_process(Pid::from_raw(running.jailed.pid).unwrap(), Signal::from_named_raw(signal).unwrap())
                .unwrap();
        }
        let mut host = Vec::new();
        let stays = match case.ends {
            Ends::Told => log.until("console: stops", &running.pidfd, given.patience_s),
            // On some hosts it may have come to nothing that ends.
            Ends::Named => !ends(&running.pidfd, UNDECIDED_S),
            _ => false,
        };
        if begun && stays {
            host.extend(told_to_end(&mut control, given.patience_s));
        }
        let ended = ends(&running.pidfd, given.patience_s);
        let seen = self.over(&name, ended, log);
        let [writable, read_only] = disks.map(|disk| support::linux::contents(&disk));
        if read_only != pattern() {
            host.push("the read-only disk is not as it was".into());
        }
        if writable.len() != DISK {
            host.push(format!("the disk has {} bytes", writable.len()));
        }
        Seen { host: [host, seen.host].concat(), ..seen }
    }

    /// What was seen of a jailed program that ended, or must now.
    pub(crate) fn jailed_end(&mut self, name: &str, mut running: Running, patience_s: u64) -> Seen {
        let log =
            Log::of(std::mem::replace(&mut running.log, BufReader::new(File::open("/dev/null").unwrap())));
        let ended = ends(&running.pidfd, patience_s);
        self.over(name, ended, log)
    }

    fn over(&mut self, name: &str, ended: bool, log: Log) -> Seen {
        let (exit, out_of_memory) = match self.client.ask(&Request::Kill { name: super::named(name) }, &[]).0
        {
            Reply::Killed { exit, out_of_memory, .. } => (exit, out_of_memory),
            other => panic!("{other:?}"),
        };
        let mut seen = Seen { exit: exit.filter(|_| ended), out_of_memory, log: log.end(), host: Vec::new() };
        self.look(&mut seen);
        seen
    }

    /// Runs a case in a VMM that nobody but itself sealed.
    pub(crate) fn sealed(&mut self, case: &Case) -> Seen {
        let flags = ["--memory-mib", "64", "--pluggable-mib", PLUGGABLE_MIB, "--disks", "0"];
        let vmm = Vmm::launch("linux", &flags, None);
        // Its other end reads nothing, as a network may.
        let (leave, held) = channel::<()>();
        let peer = Peer::start(Path::new("/guest/tun.ko"), move || held.recv().is_err());
        let devices = vec![
            DeviceSpec::Net { mac: [2, 0, 0, 0, 0, 9], receive: Rates::default(), send: Rates::default() },
            DeviceSpec::Balloon { reports_free: true },
            DeviceSpec::Memory { plugged_mib: 0 },
        ];
        let mut control = vmm.control();
        assert!(begin(&mut control, case, devices, &[&peer.tap]), "the VMM ended before its guest began");
        let pid = Pid::from_raw(i32::try_from(vmm.pid()).unwrap()).unwrap();
        let (done, waits) = channel::<()>();
        let guard = std::thread::spawn(move || {
            let wedged = waits.recv_timeout(Duration::from_mins(5)) == Err(RecvTimeoutError::Timeout);
            if wedged {
                let _ = kill_process(pid, Signal::KILL);
            }
            wedged
        });
        let (code, log) = vmm.wait();
        drop(done);
        let wedged = guard.join().unwrap();
        drop(leave);
        peer.end();
        let exit = if code < 0 { ExitStatus::Signal(0) } else { ExitStatus::Code(code) };
        let mut seen = Seen { exit: (!wedged).then_some(exit), out_of_memory: false, log, host: Vec::new() };
        self.look(&mut seen);
        seen
    }

    /// Whether the host is as it was.
    fn look(&mut self, seen: &mut Seen) {
        if seen.log.len() >= LOG_MAX {
            seen.host.push("a log without bound".into());
        }
        let (_, control, invoke) = self.neighbour.as_mut().unwrap();
        let payload = format!("are you there {}", self.spawned).into_bytes();
        let back = call(invoke, &payload);
        if back.done.outcome != Outcome::Response || back.payload != payload {
            seen.host.push(format!("the neighbour answers {:?}", back.done.outcome));
        }
        status(control);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.jailer), Signal::TERM);
        let _ = self.jailer.wait();
    }
}

impl Log {
    fn of(mut pipe: BufReader<File>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut line = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut line), Ok(1..)) {
                let mut text = to.lock().unwrap();
                if text.len() < LOG_MAX {
                    text.push_str(&String::from_utf8_lossy(&line));
                }
                line.clear();
            }
        });
        Self { text, reader }
    }

    /// Whether this stands in it, at last or before the end.
    fn until(&self, words: &str, pidfd: &OwnedFd, patience_s: u64) -> bool {
        let has = || self.text.lock().unwrap().contains(words);
        for _ in 0..patience_s * 50 {
            if has() || ended(pidfd, Duration::from_millis(20)) {
                break;
            }
        }
        has()
    }

    /// All of it, of a process that is gone.
    fn end(self) -> String {
        self.reader.join().unwrap();
        std::mem::take(&mut *self.text.lock().unwrap())
    }
}

/// A connection to the VMM in a jail.
pub(crate) fn connect(running: &Running, role: Role) -> UnixStream {
    let mut stream = running.connect();
    stream.set_read_timeout(Some(Duration::from_mins(5))).unwrap();
    send(&mut stream, &Hello { version: PROTOCOL_VERSION, role });
    stream
}

/// Starts the guest; whether it was started.
fn begin(control: &mut UnixStream, case: &Case, devices: Vec<DeviceSpec>, files: &[&OwnedFd]) -> bool {
    let kernel = memfd(&kernel(&case.script()));
    let load = LinuxSpec {
        memory_bytes: MEMORY,
        command_line: "quiet".into(),
        cpu_template: HOST_TEMPLATE.into(),
        initrd: false,
        entry: BootEntry::Long,
        devices,
        label: "hostile".into(),
    };
    let descriptors: Vec<_> = std::iter::once(&kernel).chain(files.iter().copied()).collect();
    send_with(control, &ControlRequest::LoadLinux(load), &descriptors);
    match try_receive::<ControlReply>(control) {
        Some(ControlReply::Started { .. }) => true,
        Some(other) => panic!("{other:?}"),
        None => false,
    }
}

/// A VMM whose guest does nothing any more answers, and is told to end. What is wrong with it.
fn told_to_end(control: &mut UnixStream, patience_s: u64) -> Option<String> {
    control.set_read_timeout(Some(Duration::from_secs(patience_s))).unwrap();
    send(control, &ControlRequest::Status);
    let mut first = [0];
    // One that is stopped says nothing: its end is waited for in vain.
    if !matches!(control.read(&mut first), Ok(1)) {
        return None;
    }
    let mut rest = vec![first[0]; warren_vmm_protocol::frame::PREFIX];
    control.read_exact(&mut rest[1..]).ok()?;
    let mut body = vec![0; warren_vmm_protocol::frame::read_len(rest.try_into().ok()?).ok()?];
    control.read_exact(&mut body).ok()?;
    send(control, &ControlRequest::Shutdown);
    let reply: ControlReply = receive(control);
    (reply != ControlReply::Stopping).then(|| format!("told to end it says {reply:?}"))
}

fn ends(pidfd: &OwnedFd, patience_s: u64) -> bool {
    ended(pidfd, Duration::from_secs(patience_s))
}

fn ended(pidfd: &OwnedFd, limit: Duration) -> bool {
    let mut waiting = [PollFd::new(pidfd, PollFlags::IN)];
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    poll(&mut waiting, Some(&limit)) == Ok(1)
}

/// What a disk holds.
fn pattern() -> Vec<u8> {
    (0..DISK as u64 / 8).flat_map(|at| PATTERN.wrapping_add(at).to_le_bytes()).collect()
}

/// A disk in a real file, which has no name.
fn disk() -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern()).unwrap();
    file.into()
}

/// Jailers of this process, by number: their users are others'.
fn ordinal() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Where it was built or, on another machine, beside this test.
fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let beside = here.with_file_name(name);
    // Test programs lie one folder below.
    let built = here.parent().and_then(Path::parent).map(|folder| folder.join(name));
    let found = std::iter::once(beside).chain(built).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is needed beside {}: carry it along", here.display()))
}
