//! A guest in a real `warren-vmm linux`, with the disks that a function's sandbox has.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tar::{Builder, Header};
use warren_image::initrd::of_folder as initrd;
use warren_vmm_protocol::frame::{PREFIX, decode, encode, read_len};
use warren_vmm_protocol::guest::PORT;
use warren_vmm_protocol::linux::{
    BootEntry, DeviceSpec, HOST_TEMPLATE, LinuxRestore, LinuxSpec, VsockRefusal, VsockReply,
};
use warren_vmm_protocol::{ControlReply, ControlRequest, Hello, PROTOCOL_VERSION, Role};

/// The exit status of a VMM whose guest powered itself off.
const POWERED_OFF: i32 = 10;

const MEMORY_BYTES: u64 = 256 << 20;

/// A guest that runs.
pub struct Machine {
    vmm: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
    control: UnixStream,
    /// Root, scratch, task.
    disks: [OwnedFd; 3],
}

/// A guest that was written down, with its scratch disk as it was then.
pub struct Written {
    state: Vec<u8>,
    memory: OwnedFd,
    disks: [OwnedFd; 3],
}

impl Machine {
    /// Boots one, with these words more for init. The guest waits for its configuration.
    pub fn start(kernel: &Path, fixtures: &Path, task: &[u8], words: &str) -> Self {
        let open = |name: &Path| OwnedFd::from(fs::File::open(name).unwrap());
        let disks = [
            open(&fixtures.join("root.ext4")),
            memfd(&fs::read(fixtures.join("scratch.ext4")).unwrap()),
            memfd(&whole_sectors(task)),
        ];
        let kernel_image = open(&kernel.join("vmlinuz"));
        let initrd = memfd(&initrd(&fs::read(super::program()).unwrap(), &kernel.join("modules")).unwrap());
        let spec = LinuxSpec {
            memory_bytes: MEMORY_BYTES,
            command_line: format!(
                "console=ttyS0 quiet panic=-1 reboot=k warren.serve=1 warren.root=/dev/vda {words}"
            ),
            cpu_template: HOST_TEMPLATE.into(),
            initrd: true,
            entry: BootEntry::Long,
            devices: devices(3),
            label: "function".to_owned(),
        };
        Self::launch(&ControlRequest::LoadLinux(spec), &[&kernel_image, &initrd], disks)
    }

    /// A VMM that is asked for this, with these descriptors and then those of the disks.
    fn launch(request: &ControlRequest, descriptors: &[&OwnedFd], disks: [OwnedFd; 3]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vmm");
        let listener = UnixListener::bind(&socket).unwrap();
        let program = std::env::var("WARREN_VMM").unwrap();
        let vmm = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0 4<>/dev/kvm 0</dev/null; exec \"$0\" linux --memory-mib 256 --cpus 1"])
            .arg(program)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut control = connect(&socket, Role::Control);
        let all: Vec<_> = descriptors.iter().copied().chain(&disks).collect();
        send(&control, request, &all);
        let reply: Option<ControlReply> = receive(&mut control);
        let mut machine = Self { vmm, socket, _folder: folder, control, disks };
        if !matches!(reply, Some(ControlReply::Started { .. })) {
            let _ = machine.vmm.kill();
            panic!("{reply:?}: {}", machine.said());
        }
        machine
    }

    /// Writes it down where it stands, and ends it.
    pub fn write_down(mut self) -> Written {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create("memory", flags).unwrap();
        ftruncate(&memory, 2 * MEMORY_BYTES).unwrap();
        send(&self.control, &ControlRequest::Snapshot, &[&memory]);
        let (len, state) = match receive(&mut self.control) {
            Some(ControlReply::Snapshot { memory_len, state }) => (memory_len, state),
            other => panic!("{other:?}: {}", self.said()),
        };
        ftruncate(&memory, len).unwrap();
        fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
        let disks = self.disks.each_ref().map(|disk| disk.try_clone().unwrap());
        Written { state, memory, disks }
    }

    /// A stream to the supervisor; until it listens it has to be asked for again.
    pub fn stream(&self) -> UnixStream {
        loop {
            let mut stream = connect(&self.socket, Role::Vsock { port: PORT });
            match receive(&mut stream) {
                Some(VsockReply::Connected) => return stream,
                Some(VsockReply::Refused { why: VsockRefusal::NotListening }) => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits for the guest's own end.
    pub fn powered_off(mut self) {
        let said = self.said();
        let status = self.vmm.wait().unwrap();
        assert_eq!(status.code(), Some(POWERED_OFF), "{said}");
    }

    fn said(&mut self) -> String {
        let mut said = String::new();
        let _ = self.vmm.stderr.take().unwrap().read_to_string(&mut said);
        said
    }
}

impl Written {
    /// Brings a copy back, with a scratch disk of its own and this address.
    pub fn bring_back(&self, guest_cid: u32) -> Machine {
        self.bring_back_with(guest_cid, self.disks[2].try_clone().unwrap())
    }

    /// The same, with these files of a function where there was an empty disk.
    pub fn begin(&self, guest_cid: u32, task: &[u8]) -> Machine {
        self.bring_back_with(guest_cid, memfd(&whole_sectors(task)))
    }

    fn bring_back_with(&self, guest_cid: u32, task: OwnedFd) -> Machine {
        let [root, scratch, _] = &self.disks;
        let scratch = fs::File::from(scratch.try_clone().unwrap());
        let mut bytes = vec![0; usize::try_from(scratch.metadata().unwrap().len()).unwrap()];
        scratch.read_exact_at(&mut bytes, 0).unwrap();
        let disks = [root.try_clone().unwrap(), memfd(&bytes), task];
        let (state, devices) = (self.state.clone(), devices(guest_cid));
        let spec = LinuxRestore { state, devices, copied: false, label: "copy".to_owned() };
        Machine::launch(&ControlRequest::RestoreLinux(spec), &[&self.memory], disks)
    }
}

fn devices(guest_cid: u32) -> Vec<DeviceSpec> {
    let disk = |read_only| DeviceSpec::Block { read_only };
    vec![disk(true), disk(false), disk(true), DeviceSpec::Rng, DeviceSpec::Vsock { guest_cid }]
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
        if std::thread::panicking() && self.vmm.stderr.is_some() {
            println!("{}", self.said());
        }
    }
}

/// A ustar archive of files; names go in as they are.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn connect(socket: &Path, role: Role) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
    send(&stream, &Hello { version: PROTOCOL_VERSION, role }, &[]);
    stream
}

fn send<T: serde::Serialize>(stream: &UnixStream, message: &T, files: &[&OwnedFd]) {
    let bytes = encode(message).unwrap();
    let borrowed: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
    }
    let sent = sendmsg(stream, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::empty()).unwrap();
    let mut stream = stream;
    stream.write_all(&bytes[sent..]).unwrap();
}

fn receive<T: serde::de::DeserializeOwned>(stream: &mut UnixStream) -> Option<T> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).ok()?;
    let mut body = vec![0; read_len(prefix).unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(decode(&body).unwrap())
}

fn whole_sectors(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn memfd(bytes: &[u8]) -> OwnedFd {
    let file = memfd_create("disk", MemfdFlags::CLOEXEC).unwrap();
    fs::File::from(file.try_clone().unwrap()).write_all(bytes).unwrap();
    file
}
