//! A sandbox without a guest around it: `warren-init serve` over a Unix socket, and the host's side of port 1.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

pub mod fetched;
pub mod machine;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use warren_vmm_protocol::frame::{PREFIX, decode, encode, read_len};
use warren_vmm_protocol::guest::{
    GUEST_VERSION, GuestConfig, GuestReply, GuestRequest, InitError, Restored, SandboxKind, Text,
};
use warren_vmm_protocol::{Done, InvokeReply, InvokeRequest, Outcome};

/// What hangs is ended by this; nothing is measured against it.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A sandbox to be: its folders, and what it is told.
pub struct Sandbox {
    folder: TempDir,
    pub config: GuestConfig,
}

/// One that runs.
pub struct Running {
    child: Option<Child>,
    stream: UnixStream,
    number: u32,
    folder: TempDir,
    /// What was logged so far.
    pub log: String,
    /// How init went.
    pub init: Result<(), InitError>,
    /// And how long it took, by the guest's clock.
    pub init_us: u64,
}

/// The end of an event.
#[derive(Debug)]
pub struct Answer {
    pub outcome: Outcome,
    pub payload: Vec<u8>,
    pub log: String,
    pub done: Done,
}

impl Sandbox {
    /// An empty one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for place in ["var/task", "var/runtime", "opt/extensions"] {
            std::fs::create_dir_all(folder.path().join(place)).unwrap();
        }
        let mut config = GuestConfig::of(Text::cut("function"));
        config.handler = Text::cut("app.handler");
        Self { folder, config }
    }

    /// A file below its root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a program there.
    pub fn program(self, name: &str, text: &str) -> Self {
        let file = self.path(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Copies one there.
    pub fn copy(self, from: &Path, name: &str) -> Self {
        std::fs::copy(from, self.path(name)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self
    }

    /// Adds a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        let mut variables: Vec<(String, String)> = self.config.env.into();
        variables.push((name.to_owned(), value.to_owned()));
        self.config.env = variables.try_into().unwrap();
        self
    }

    /// It is one to be written down.
    pub fn for_a_snapshot(mut self) -> Self {
        self.config.kind = SandboxKind::Snapshot;
        self
    }

    /// Starts it and waits for init's end.
    pub fn start(self) -> Running {
        let (mut running, config) = self.unconfigured();
        running.configure(config);
        running
    }

    /// Starts it, and tells it nothing; what it is to be told.
    pub fn unconfigured(self) -> (Running, GuestConfig) {
        let socket = self.path("socket");
        let child =
            Command::new(program()).arg("serve").arg(&socket).arg(self.folder.path()).spawn().unwrap();
        let give_up = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > give_up => panic!("{}: {error}", socket.display()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        (Running::new(stream, Some(child), self.folder), self.config)
    }

    /// The same over a stream to a supervisor that somebody else started.
    pub fn over(self, stream: UnixStream) -> Running {
        let mut running = Running::new(stream, None, self.folder);
        running.configure(self.config);
        running
    }

    /// The same, and init must go well.
    pub fn up(self) -> Running {
        let running = self.start();
        assert_eq!(running.init, Ok(()), "{}", running.log);
        running
    }
}

/// What the copy of this generation is told.
pub fn restored(generation: u128) -> Restored {
    let mut seed = [0; 32];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).unwrap();
    Restored {
        version: GUEST_VERSION,
        generation,
        sandbox: Text::cut(&format!("copy-{generation}")),
        wall_unix_ns: 1_950_000_000_000_000_000,
        seed,
    }
}

impl Running {
    fn new(stream: UnixStream, child: Option<Child>, folder: TempDir) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { child, stream, number: 0, folder, log: String::new(), init: Ok(()), init_us: 0 }
    }

    /// A copy that somebody else brought back, over a stream to it; nothing was said yet.
    pub fn copy(stream: UnixStream) -> Self {
        Self::new(stream, None, tempfile::tempdir().unwrap())
    }

    /// Reads until everybody waits, or does not; whether a restore was acknowledged, before anything else was said.
    fn outcome(&mut self) -> bool {
        let (mut acknowledged, mut first) = (false, true);
        (self.init_us, self.init) = loop {
            match self.receive().unwrap_or_else(|| panic!("no end of init; the log so far: {}", self.log)) {
                GuestReply::Log(log) => self.log.push_str(&String::from_utf8_lossy(log.as_bytes())),
                GuestReply::Ready { init_us } => break (init_us, Ok(())),
                GuestReply::InitFailed { init_us, error } => break (init_us, Err(error)),
                GuestReply::Acknowledged if first => acknowledged = true,
                other => panic!("{other:?}; the log so far: {}", self.log),
            }
            first = false;
        };
        acknowledged
    }

    /// Makes it a function's, and waits for init's end.
    pub fn configure(&mut self, config: GuestConfig) {
        self.send(&GuestRequest::Configure(Box::new(config)), &[]);
        assert!(!self.outcome(), "acknowledged what was not asked");
    }

    /// A configuration that it must not take: it ends the connection.
    pub fn refuses_to_be_configured(&mut self, config: &GuestConfig) -> bool {
        self.send(&GuestRequest::Configure(Box::new(config.clone())), &[]);
        self.receive::<GuestReply>().is_none()
    }

    /// Asks it to hold still: whether programs are held, and nothing if it does not and ends the connection.
    pub fn hold_still(&mut self) -> Option<bool> {
        self.send(&GuestRequest::HoldStill, &[]);
        loop {
            match self.receive()? {
                GuestReply::Log(log) => self.log.push_str(&String::from_utf8_lossy(log.as_bytes())),
                GuestReply::Still { held } => return Some(held),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Tells it that it is a copy, and waits until its programs are ready again; whether it acknowledged.
    pub fn restore(&mut self, restored: &Restored) -> bool {
        self.send(&GuestRequest::Restored(Box::new(restored.clone())), &[]);
        self.outcome()
    }

    /// Tells it the same again: its one answer.
    pub fn restore_again(&mut self, restored: &Restored) -> Option<GuestReply> {
        self.send(&GuestRequest::Restored(Box::new(restored.clone())), &[]);
        self.receive()
    }

    /// An event that it must not take: it ends the connection.
    pub fn refuses_an_event(&mut self) -> bool {
        let request =
            InvokeRequest { id: "early".into(), timeout_ms: 1000, context: Vec::new(), payload_len: 0 };
        self.send(&GuestRequest::Invoke(request), &[]);
        self.receive::<InvokeReply>().is_none()
    }

    fn send(&mut self, request: &GuestRequest, payload: &[u8]) {
        let mut bytes = encode(request).unwrap();
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).unwrap();
    }

    fn receive<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        let mut prefix = [0; PREFIX];
        self.stream.read_exact(&mut prefix).ok()?;
        let mut body = vec![0; read_len(prefix).unwrap()];
        self.stream.read_exact(&mut body).ok()?;
        Some(decode(&body).unwrap())
    }

    /// An event with this payload, and time as the function has it.
    pub fn invoke(&mut self, payload: &str) -> Answer {
        self.invoke_within(payload, 30_000)
    }

    /// An event with so many milliseconds.
    pub fn invoke_within(&mut self, payload: &str, timeout_ms: u32) -> Answer {
        self.send_event(payload, timeout_ms);
        self.answer()
    }

    /// An event whose end nobody waits for.
    pub fn begin(&mut self, payload: &str) {
        self.send_event(payload, 30_000);
    }

    fn send_event(&mut self, payload: &str, timeout_ms: u32) {
        self.number += 1;
        let id = format!("request-{}", self.number);
        let context = format!(r#"{{"request_id":"{id}","trace_id":"Root=1-{}"}}"#, self.number);
        let request = InvokeRequest {
            id: format!("{id}/7.1"),
            timeout_ms,
            context: context.into_bytes(),
            payload_len: payload.len().try_into().unwrap(),
        };
        self.send(&GuestRequest::Invoke(request), payload.as_bytes());
    }

    fn answer(&mut self) -> Answer {
        let mut log = String::new();
        loop {
            match self.receive().unwrap_or_else(|| panic!("no answer; the log so far: {log}")) {
                InvokeReply::Log(bytes) => log.push_str(&String::from_utf8_lossy(&bytes)),
                InvokeReply::Done(done) => {
                    let mut payload = vec![0; done.payload_len.try_into().unwrap()];
                    self.stream.read_exact(&mut payload).unwrap();
                    self.log.push_str(&log);
                    return Answer { outcome: done.outcome.clone(), payload, log, done };
                }
            }
        }
    }

    /// Asks it to end.
    pub fn shutdown(mut self) -> (String, ExitStatus) {
        self.send(&GuestRequest::Shutdown, &[]);
        self.end()
    }

    /// Waits for its end, and gives its whole log.
    pub fn end(mut self) -> (String, ExitStatus) {
        let log = self.rest();
        (log, self.child.as_mut().unwrap().wait().unwrap())
    }

    /// Everything up to the connection's end.
    pub fn rest(&mut self) -> String {
        while let Some(reply) = self.receive::<InvokeReply>() {
            match reply {
                InvokeReply::Log(bytes) => self.log.push_str(&String::from_utf8_lossy(&bytes)),
                InvokeReply::Done(done) => write!(self.log, "{done:?}").unwrap(),
            }
        }
        std::mem::take(&mut self.log)
    }

    /// Asks one that somebody else started to end.
    pub fn shutdown_over(mut self) -> String {
        self.send(&GuestRequest::Shutdown, &[]);
        self.rest()
    }

    /// The supervisor's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// A second connection takes the first one's place.
    pub fn connect_again(&mut self) {
        let socket = self.folder.path().join("socket");
        self.stream = UnixStream::connect(socket).unwrap();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Answer {
    /// The payload, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The error's kind and detail, for tables.
    pub fn error(&self) -> String {
        match &self.outcome {
            Outcome::Function { error, exit_code, detail } => {
                format!("{} {exit_code}: {detail}", error.name())
            }
            other => format!("{other:?}"),
        }
    }
}

fn program() -> PathBuf {
    std::env::var_os("WARREN_INIT").map_or_else(|| env!("CARGO_BIN_EXE_warren-init").into(), PathBuf::from)
}
