//! Another sandbox of the host, with a Wasm guest, that is called while hostile processes try what they try: each answer is its own,
//! and how long each took is told beside how long they took before.

use super::{
    client::{Client, Running},
    jailer, socket,
    support::{
        self,
        vmm::{call, load, send, spec},
    },
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::net::UnixStream,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use warren_vmm_protocol::{ControlReply, Hello, Outcome, PROTOCOL_VERSION, Role};

/// Calls before anybody is hostile.
const BEFORE: u64 = 500;
/// Between two calls: it is a neighbour, not a load.
const BETWEEN: Duration = Duration::from_millis(1);

/// One that answers, in the jail of a jailer of its own.
pub(crate) struct Neighbour {
    invoke: UnixStream,
    called: u64,
    _running: Running,
    _control: UnixStream,
    _jailer: Jailer,
    _folder: TempDir,
}

/// One that is called all the time.
pub(crate) struct Called {
    stop: Arc<AtomicBool>,
    caller: JoinHandle<(Neighbour, Vec<Duration>)>,
}

struct Jailer(Child);

impl Neighbour {
    /// Starts it; nothing where this host has no KVM.
    pub(crate) fn start() -> Option<Self> {
        if !support::has_kvm() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("escape-").tempdir().unwrap();
        let image = folder.path().join("guest");
        fs::write(&image, support::guest::elf()).unwrap();
        let vmm = support::real::path("WARREN_VMM", "bin/warren-vmm");
        let programs = [("--vmm", &vmm), ("--compile", &vmm), ("--pager", &vmm), ("--guest", &image)]
            .map(|(flag, file)| (flag, file.as_path()));
        let (process, mut client) =
            Client::of_new(&mut jailer(folder.path(), 500_000, programs), &socket(folder.path()));
        let jailer = Jailer(process);
        let running = client.spawn("neighbour");
        let connect = |role| {
            let mut stream = running.connect();
            stream.set_read_timeout(Some(Duration::from_mins(5))).unwrap();
            send(&mut stream, &Hello { version: PROTOCOL_VERSION, role });
            stream
        };
        let (mut control, invoke) = (connect(Role::Control), connect(Role::Invoke));
        let reply = load(&mut control, &spec(1), &[&support::sealed(b"R")]);
        assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
        Some(Self {
            invoke,
            called: 0,
            _running: running,
            _control: control,
            _jailer: jailer,
            _folder: folder,
        })
    }

    /// How long each of a few calls takes.
    pub(crate) fn before(&mut self) -> Vec<Duration> {
        (0..BEFORE).map(|_| self.call()).collect()
    }

    /// Calls it until it is told to stop.
    pub(crate) fn during(mut self) -> Called {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let caller = std::thread::spawn(move || {
            let mut all = Vec::new();
            // One at least, however soon it is over.
            while all.is_empty() || !told.load(Ordering::Relaxed) {
                all.push(self.call());
            }
            (self, all)
        });
        Called { stop, caller }
    }

    /// Its answer is what it was asked.
    fn call(&mut self) -> Duration {
        std::thread::sleep(BETWEEN);
        self.called += 1;
        let payload = format!("are you there {}", self.called).into_bytes();
        let begun = Instant::now();
        let back = call(&mut self.invoke, &payload);
        let took = begun.elapsed();
        assert_eq!((back.done.outcome, back.payload), (Outcome::Response, payload), "the neighbour's answer");
        took
    }
}

impl Called {
    /// How long each call took meanwhile.
    pub(crate) fn end(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.caller.join().unwrap().1
    }
}

impl Drop for Jailer {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// For people: nothing is asserted of it.
pub(crate) fn print(when: &str, mut all: Vec<Duration>) {
    all.sort_unstable();
    let at = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)].as_micros();
    println!("{when:>14} {:>6} {:>9} {:>9} {:>9}", all.len(), at(50), at(99), at(100));
}
