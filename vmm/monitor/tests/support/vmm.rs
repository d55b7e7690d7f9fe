//! A `warren-vmm run` process with the descriptors the jailer would give it.
#![allow(unsafe_code, reason = "descriptors are placed between fork and exec")]

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use warren_vmm_protocol::frame;
use warren_vmm_protocol::{
    ControlReply, ControlRequest, Done, FunctionSpec, Hello, InvokeReply, InvokeRequest, IsaSet, LoadSpec,
    Outcome, PROTOCOL_VERSION, Role, Status, World,
};

/// After this a VMM counts as wedged.
const WEDGED: Duration = Duration::from_secs(30);

/// A running VMM.
pub struct Vmm {
    child: Child,
    /// Of its log, what was read already.
    seen: String,
    path: PathBuf,
}

/// What came back from one event.
#[derive(Debug)]
pub struct Invocation {
    pub log: Vec<u8>,
    pub done: Done,
    pub payload: Vec<u8>,
}

impl Vmm {
    /// Starts one with `image` as the guest program.
    pub fn spawn(image: &[u8]) -> Self {
        Self::spawn_with(image, &[])
    }

    /// The same, with more flags.
    pub fn spawn_with(image: &[u8], flags: &[&str]) -> Self {
        Self::launch("run", flags, Some(image))
    }

    /// A machine of either kind; the one for Linux guests has no guest program.
    pub fn launch(kind: &str, flags: &[&str], image: Option<&[u8]>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("warren-vmm-test-{}-{id}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let kvm = device("/dev/kvm");
        let image = image.map(memfd);
        let high = |fd: &dyn AsRawFd| {
            // SAFETY: 1. the owner outlives this call.
            let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
            rustix::io::fcntl_dupfd_cloexec(fd, 20).unwrap()
        };
        let mut passed = vec![high(&listener), high(&kvm)];
        passed.extend(image.as_ref().map(|image| high(image)));
        let userfaultfd = flags.contains(&"--paged").then(|| device("/dev/userfaultfd"));
        passed.extend(userfaultfd.as_ref().map(|device| high(device)));
        // Other crates' tests of a VMM have it from `cargo xtask build`.
        let built = option_env!("CARGO_BIN_EXE_warren-vmm").map(PathBuf::from);
        let program = std::env::var_os("WARREN_VMM").map(PathBuf::from).or(built);
        let program = program.unwrap_or_else(|| super::real::path("WARREN_VMM", "bin/warren-vmm"));
        let mut command = Command::new(program);
        command.arg(kind).args(flags).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: 1. only dup2 runs between fork and exec; 2. the sources are above the targets.
        unsafe {
            command.pre_exec(move || {
                for (target, source) in (3..).zip(&passed) {
                    if libc::dup2(source.as_raw_fd(), target) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        Self { child: command.spawn().unwrap(), seen: String::new(), path }
    }

    /// One with the test guest, loaded with `code`.
    pub fn loaded(code: &[u8]) -> (Self, UnixStream) {
        let vmm = Self::spawn(&super::guest::elf());
        let mut control = vmm.control();
        let code_fd = sealed(code);
        let reply = load(&mut control, &spec(code.len()), &[&code_fd]);
        assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
        (vmm, control)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection that says nothing.
    pub fn stranger(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    pub fn connect(&self, role: Role) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(WEDGED)).unwrap();
        stream.set_write_timeout(Some(WEDGED)).unwrap();
        send(&mut stream, &Hello { version: PROTOCOL_VERSION, role });
        stream
    }

    pub fn control(&self) -> UnixStream {
        self.connect(Role::Control)
    }

    pub fn invoke(&self) -> UnixStream {
        self.connect(Role::Invoke)
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Reads the log until a text stands in it; whether it ever does.
    pub fn until(&mut self, text: &str) -> bool {
        let log = self.child.stderr.as_mut().unwrap();
        let mut line = Vec::new();
        while !self.seen.contains(text) {
            let mut byte = [0];
            if log.read(&mut byte).unwrap() == 0 {
                return false;
            }
            line.push(byte[0]);
            if byte[0] == b'\n' {
                self.seen.push_str(&String::from_utf8_lossy(&std::mem::take(&mut line)));
            }
        }
        true
    }

    /// Waits for the process: its exit status and its log.
    pub fn wait(mut self) -> (i32, String) {
        let mut log = std::mem::take(&mut self.seen);
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let status = self.child.wait().unwrap();
        (status.code().unwrap_or(-1), log)
    }

    /// Waits for the end and checks status and a piece of the log.
    pub fn ends(self, code: i32, reason: &str) {
        let (status, log) = self.wait();
        assert_eq!(status, code, "{log}");
        assert!(log.contains(reason), "{log:?} lacks {reason:?}");
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn device(path: &str) -> std::fs::File {
    let opened = std::fs::File::options().read(true).write(true).open(path);
    opened.unwrap_or_else(|error| panic!("these tests need {path}: {error}"))
}

pub fn send<T: serde::Serialize>(stream: &mut UnixStream, message: &T) {
    stream.write_all(&frame::encode(message).unwrap()).unwrap();
}

pub fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> T {
    try_receive(stream).expect("the VMM closed the connection")
}

/// `None` when the VMM closed the connection.
pub fn try_receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Option<T> {
    let mut prefix = [0; frame::PREFIX];
    loop {
        match stream.read(&mut prefix[..1]) {
            Ok(0) => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            // A machine that was stopped and goes on: reads with a time limit are not begun again by the kernel.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break assert_eq!(result.expect("wedged"), 1),
        }
    }
    stream.read_exact(&mut prefix[1..]).unwrap();
    let mut body = vec![0; frame::read_len(prefix).unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(frame::decode(&body).unwrap())
}

pub fn load(control: &mut UnixStream, spec: &LoadSpec, descriptors: &[&OwnedFd]) -> ControlReply {
    send_load(control, spec, descriptors);
    receive(control)
}

pub fn send_load(control: &mut UnixStream, spec: &LoadSpec, descriptors: &[&OwnedFd]) {
    send_with(control, &ControlRequest::Load(spec.clone()), descriptors);
}

/// Sends a request with descriptors.
pub fn send_with(control: &mut UnixStream, request: &ControlRequest, descriptors: &[&OwnedFd]) {
    let bytes = frame::encode(request).unwrap();
    // As many as Linux takes in one message.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control_data = SendAncillaryBuffer::new(&mut space);
    let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    if !borrowed.is_empty() {
        assert!(control_data.push(SendAncillaryMessage::ScmRights(&borrowed)));
    }
    let sent = sendmsg(&*control, &[IoSlice::new(&bytes)], &mut control_data, SendFlags::empty()).unwrap();
    control.write_all(&bytes[sent..]).unwrap();
}

pub fn status(control: &mut UnixStream) -> Status {
    send(control, &ControlRequest::Status);
    match receive(control) {
        ControlReply::Status(status) => status,
        other => panic!("{other:?}"),
    }
}

pub fn request(payload_len: usize, timeout_ms: u32) -> InvokeRequest {
    InvokeRequest {
        id: "request-1".into(),
        timeout_ms,
        context: br#"{"requestId":"request-1"}"#.to_vec(),
        payload_len: u32::try_from(payload_len).unwrap(),
    }
}

pub fn call(stream: &mut UnixStream, payload: &[u8]) -> Invocation {
    call_with(stream, payload, 20_000)
}

pub fn call_with(stream: &mut UnixStream, payload: &[u8], timeout_ms: u32) -> Invocation {
    send(stream, &request(payload.len(), timeout_ms));
    stream.write_all(payload).unwrap();
    answer(stream)
}

pub fn answer(stream: &mut UnixStream) -> Invocation {
    let mut log = Vec::new();
    loop {
        match receive(stream) {
            InvokeReply::Log(piece) => log.extend(piece),
            InvokeReply::Done(done) => {
                let mut payload = vec![0; done.payload_len as usize];
                stream.read_exact(&mut payload).unwrap();
                return Invocation { log, done, payload };
            }
        }
    }
}

/// Calls and insists on the payload coming back.
pub fn echo(stream: &mut UnixStream, payload: &[u8]) -> Invocation {
    let back = call(stream, payload);
    assert_eq!(back.done.outcome, Outcome::Response);
    assert!(back.payload == payload, "{} bytes came back for {}", back.payload.len(), payload.len());
    back
}

pub fn spec(code_len: usize) -> LoadSpec {
    LoadSpec {
        function: FunctionSpec {
            world: World::WasiPreview1,
            args: vec!["test".into()],
            env: vec![("KEY".into(), "value".into())],
            tmp_quota_bytes: 1 << 20,
            memory_limit_bytes: 16 << 20,
        },
        memory_bytes: 32 << 20,
        isa: IsaSet::BASELINE,
        code_len: code_len as u64,
        task_len: 0,
        init_timeout_ms: 20_000,
        label: "test-function".into(),
    }
}

pub fn memfd(bytes: &[u8]) -> OwnedFd {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).unwrap();
    file.into()
}

pub fn sealed(bytes: &[u8]) -> OwnedFd {
    let fd = memfd(bytes);
    fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    fd
}
