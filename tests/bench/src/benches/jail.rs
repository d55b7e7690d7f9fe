//! `jail`: a jailed VMM from the request to its exec (`spawned`) and until it has sealed itself (`sealed`), beside the same program
//! started without any jail (`bare`); on a host where nothing else lives, beside a thousand jails, and with 500 mounts on the host.
//! The jailer has slots ready, as it does unless told otherwise; `jail-none-ready` is the same where it has none, as for whoever asks
//! for more at once.
//!
//! Needs root, for a jailer of its own.

use crate::{Places, report::Report, stats::Samples};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    fd::{AsFd as _, OwnedFd},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
};
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::net::UnixListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use warren_pager::packet;
use warren_sandbox_plan::{
    name::SandboxName,
    packet::{decode_reply, encode},
    request::{JAILER_PROTOCOL_VERSION, Limits, MAX_PACKET, Program, Reply, Request, Spawn},
};

const LIMITS: Limits =
    Limits { memory_bytes: 256 << 20, cpu_millis: 1000, cpu_hard: false, pids: 16, cpu_seconds: 0 };
/// Jails that live beside those that are measured.
const ALIVE: usize = 1000;
const MOUNTS: usize = 500;
/// Slots that are kept ready, as a jailer does of itself.
const READY: &str = "4";
const SPAWNED_REACH: &str = "bare + 300 us";
const SEALED_REACH: &str = "<= 1,500 us";

pub(crate) fn jail(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "jails are made by root: run this bench as root");
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    for (bench, mounts, ready) in
        [("jail", 0, READY), ("jail-none-ready", 0, "0"), ("jail-500-mounts", MOUNTS, READY)]
    {
        let mut jailer = Jailer::start(places, mounts, ready)?;
        measure(bench, places, &mut jailer, report, runs)?;
        if bench == "jail" {
            let alive = (0..ALIVE).map(|number| jailer.spawn(&format!("alive-{number}")));
            let alive = alive.collect::<Result<Vec<_>>>()?;
            measure("jail-1000-alive", places, &mut jailer, report, runs)?;
            drop(alive);
        }
    }
    Ok(())
}

fn measure(
    bench: &'static str,
    places: &Places,
    jailer: &mut Jailer,
    report: &mut Report,
    runs: usize,
) -> Result<()> {
    let [mut bare, mut spawned, mut sealed] = [const { Samples::new() }; 3];
    for run in 0..=runs {
        let alone = bare_spawn(&places.bin.join("warren-vmm"))?;
        let name = format!("{bench}-{run}");
        let mut started = jailer.spawn(&name)?;
        let until_sealed = started.sealed()?;
        jailer.kill(&name)?;
        // The first pays for what it is the first of.
        if run > 0 {
            bare.push(alone);
            spawned.push(started.spawned);
            sealed.push(until_sealed);
        }
    }
    report.floor(bench, "bare", &bare);
    let least = ("bare", bare.p50_us());
    report.times(bench, "spawned", &spawned, least, SPAWNED_REACH);
    report.times(bench, "sealed", &sealed, least, SEALED_REACH);
    Ok(())
}

/// The same program, from nothing to its exec.
fn bare_spawn(program: &Path) -> Result<Duration> {
    let mut command = Command::new(program);
    command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    // Returns once it is executed.
    let mut child = command.spawn()?;
    let took = began.elapsed();
    let _ = child.kill();
    child.wait()?;
    Ok(took)
}

/// A VMM in its jail.
struct Jailed {
    asked: Instant,
    spawned: Duration,
    log: BufReader<File>,
    _listener: UnixListener,
}

impl Jailed {
    /// Waits until it says that it is sealed: the time since it was asked for.
    fn sealed(&mut self) -> Result<Duration> {
        let mut line = String::new();
        self.log.read_line(&mut line)?;
        let took = self.asked.elapsed();
        ensure!(line.contains("sealed"), "it says {line:?}");
        Ok(took)
    }
}

struct Jailer {
    process: Child,
    socket: OwnedFd,
    folder: tempfile::TempDir,
}

impl Jailer {
    /// One in a mount namespace with so many mounts more, with so many slots ready.
    fn start(places: &Places, mounts: usize, ready: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("jail-bench-").tempdir()?;
        let make = format!(
            "cd \"$0\"; i=0; while [ $i -lt {mounts} ]; do mkdir m$i && mount -t tmpfs none m$i; i=$((i+1)); done; exec \"$@\""
        );
        // It changes its folder before it is executed.
        let bin = fs::canonicalize(&places.bin)?;
        let bin = |name: &str| bin.join(name);
        let mut process = Command::new("unshare")
            .args(["--mount", "sh", "-c", &make])
            .arg(folder.path())
            .arg(bin("warren-jailer"))
            .args(["serve", "--agent-uid", "0", "--cgroup-name", "warren-bench", "--network", "none"])
            .args(["--uid-base", "3000000", "--slots", "1200", "--ready-slots", ready])
            .args([Path::new("--vmm"), &bin("warren-vmm"), Path::new("--guest"), &bin("warren-guest")])
            .args([
                Path::new("--compile"),
                &bin("warren-compile"),
                Path::new("--pager"),
                &bin("warren-pager"),
            ])
            .arg("--socket")
            .arg(folder.path().join("jailer.sock"))
            .arg("--state")
            .arg(folder.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a jailer")?;
        let mut ready = String::new();
        BufReader::new(process.stdout.take().context("it has a pipe")?).read_line(&mut ready)?;
        ensure!(ready.starts_with("ready "), "the jailer did not come up; its last words are above");
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(folder.path().join("jailer.sock"))?)?;
        let mut jailer = Self { process, socket, folder };
        match jailer.ask(&Request::Hello { version: JAILER_PROTOCOL_VERSION }, &[])? {
            Reply::Hello { .. } => Ok(jailer),
            other => bail!("{other:?}"),
        }
    }

    fn ask(&mut self, request: &Request, descriptors: &[&dyn rustix::fd::AsFd]) -> Result<Reply> {
        let descriptors: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
        packet::send(&self.socket, &encode(request).context("a request too large")?, &descriptors)?;
        let answer = packet::receive(&self.socket, MAX_PACKET)?.context("the jailer hung up")?;
        decode_reply(&answer.bytes).context("no reply of a jailer")
    }

    fn spawn(&mut self, name: &str) -> Result<Jailed> {
        let path = self.folder.path().join(format!("{name}.sock"));
        let listener = UnixListener::bind(path)?;
        let (log, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let spawn = Spawn { name: SandboxName::new(name)?, program: Program::Vmm, limits: LIMITS };
        let asked = Instant::now();
        let reply = self.ask(&Request::Spawn(spawn), &[&listener, &theirs])?;
        let spawned = asked.elapsed();
        ensure!(matches!(reply, Reply::Spawned(_)), "{reply:?}");
        Ok(Jailed { asked, spawned, log: BufReader::new(log.into()), _listener: listener })
    }

    fn kill(&mut self, name: &str) -> Result<()> {
        let reply = self.ask(&Request::Kill { name: SandboxName::new(name)? }, &[])?;
        ensure!(matches!(reply, Reply::Killed { .. }), "{reply:?}");
        Ok(())
    }
}

impl Drop for Jailer {
    fn drop(&mut self) {
        // It ends every jail first.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}
