//! Linux guests: what they are made of (on the lab host), and a VMM that runs one.

use super::life::Snapshot;
use super::vmm::{Vmm, memfd, sealed, send_with, status, try_receive};
use rustix::fd::OwnedFd;
use std::any::Any;
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use warren_vmm::linux::windows::Kind;
use warren_vmm_protocol::linux::{
    Base, BootEntry, DeviceSpec, HOST_TEMPLATE, Limits, LinuxRestore, LinuxSpec,
};
use warren_vmm_protocol::{ControlReply, ControlRequest, VmState};

/// Kernels and root file system, as `warren-lab --guests` carries them.
pub fn guests() -> Option<PathBuf> {
    let folder = std::env::var_os("WARREN_GUESTS").map(PathBuf::from);
    if folder.is_none() {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        let line =
            format!("warren-skipped: monitor::linux::{name}: no guests here, they run on the lab host\n");
        rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
    }
    folder
}

/// A guest to be.
pub struct Guest {
    pub kernel: PathBuf,
    /// Kernel and initrd are given as sealed memory.
    pub sealed: bool,
    pub modules: PathBuf,
    pub entry: BootEntry,
    pub memory_mib: u64,
    pub cpus: u8,
    pub command_line: String,
    pub cpu_template: String,
    pub disks: Vec<(OwnedFd, bool)>,
    /// Of the last disk.
    pub limits: Option<Limits>,
    pub entropy: bool,
    /// The guest's address, if it has streams.
    pub cid: Option<u32>,
    /// A network card with its tap device.
    pub card: Option<(OwnedFd, DeviceSpec)>,
    /// Devices without a descriptor.
    pub others: Vec<DeviceSpec>,
    /// More flags of the VMM.
    pub flags: Vec<&'static str>,
    /// Written down when this stands in the log, and brought back in another VMM.
    pub point: Option<&'static str>,
    /// How it is brought back then.
    pub bring: Bring,
}

/// A way to bring a guest back.
pub type Bring = fn(&Guest, &Snapshot) -> Running;

/// A guest that runs.
pub struct Running {
    pub vmm: Vmm,
    pub control: UnixStream,
    /// The log of its life before.
    pub before: String,
    /// What it needs beside it as long as it runs.
    pub beside: Option<Box<dyn Any + Send + Sync>>,
}

/// How a guest ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub log: String,
}

impl Guest {
    /// A guest whose root file system is the lab's, read-only, and that runs `script` from its second disk.
    pub fn new(folder: &Path, kernel: &str, script: &str) -> Self {
        let root = fs::File::open(folder.join("root.ext4")).unwrap();
        let mut script = format!("b() {{ /bin/busybox \"$@\"; }}\n{script}\n").into_bytes();
        script.resize(script.len().next_multiple_of(512), b'\n');
        let folder = folder.join(kernel);
        Self {
            kernel: folder.join("vmlinuz"),
            sealed: false,
            modules: folder.join("modules"),
            entry: BootEntry::Long,
            memory_mib: 256,
            cpus: 1,
            command_line: "console=ttyS0 quiet reboot=k panic=-1 warren.root=/dev/vda -- /bin/sh /dev/vdb"
                .into(),
            cpu_template: HOST_TEMPLATE.into(),
            disks: vec![(root.into(), true), (memfd(&script), true)],
            limits: None,
            entropy: true,
            cid: None,
            card: None,
            others: Vec::new(),
            flags: Vec::new(),
            point: None,
            bring: Self::restore,
        }
    }

    /// Changes kernel file, entry, vCPUs and memory.
    pub fn shape(&mut self, elf: Option<BootEntry>, cpus: u8, memory_mib: u64) {
        if let Some(entry) = elf {
            self.kernel.set_file_name("vmlinux");
            self.entry = entry;
        }
        (self.cpus, self.memory_mib) = (cpus, memory_mib);
    }

    /// A guest whose script has the probe as `/tmp/probe`, from `/dev/vdc`; and a device for its streams.
    pub fn with_probe(folder: &Path, kernel: &str, script: &str) -> Self {
        let begin = "b dd if=/dev/vdc of=/tmp/probe bs=65536 2>/dev/null; b chmod 755 /tmp/probe";
        let mut guest = Self::new(folder, kernel, &format!("{begin}\n{script}"));
        let probe = std::env::var_os("WARREN_PROBE").expect("WARREN_PROBE names guest-probe");
        let mut bytes = fs::read(probe).unwrap();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        guest.disks.push((memfd(&bytes), true));
        guest.cid = Some(42);
        guest
    }

    /// Runs it to its end.
    pub fn run(&self) -> Ended {
        self.start().end()
    }

    /// Starts it, up to its point in another life if it has one.
    pub fn start(&self) -> Running {
        let mut running = self.boot();
        let Some(point) = self.point else { return running };
        if !running.vmm.until(point) {
            let (status, log) = running.vmm.wait();
            panic!("{point:?} does not come, status {status}: {log}");
        }
        let snapshot = running.snapshot();
        let before = running.kill().log;
        let mut running = (self.bring)(self, &snapshot);
        running.before = before;
        running
    }

    /// A machine for it.
    pub fn launch(&self) -> Vmm {
        self.launch_with(&[])
    }

    /// The same with more flags.
    pub fn launch_with(&self, more: &[&str]) -> Vmm {
        let words = [self.memory_mib, self.cpus.into(), self.disks.len() as u64].map(|word| word.to_string());
        let [memory, cpus, disks] = &words;
        let mut flags = vec!["--memory-mib", memory, "--cpus", cpus, "--disks", disks];
        flags.extend(&self.flags);
        flags.extend(more);
        Vmm::launch("linux", &flags, None)
    }

    /// A machine made ready for its devices, waiting, before anything of it is known.
    pub fn zygote(&self) -> (Vmm, UnixStream) {
        let kinds: Vec<_> = self.devices().iter().map(|device| Kind::of(device).to_string()).collect();
        let [memory, cpus] = [self.memory_mib, self.cpus.into()].map(|word| word.to_string());
        let devices = kinds.join(",");
        let mut flags = vec!["--memory-mib", &memory, "--cpus", &cpus, "--devices", &devices];
        flags.extend(&self.flags);
        let vmm = Vmm::launch("linux", &flags, None);
        let mut control = vmm.control();
        // It answers once every thread of it is sealed.
        assert_eq!(status(&mut control).state, VmState::Empty);
        (vmm, control)
    }

    /// Brings it back from a snapshot of it in a machine that waited for that.
    pub fn adopt(&self, snapshot: &Snapshot) -> Running {
        let (vmm, mut control) = self.zygote();
        let reply = self.ask_restore(&mut control, snapshot, &snapshot.state);
        Running::started(vmm, control, reply.as_ref())
    }

    /// Brings it back from a snapshot of it.
    pub fn restore(&self, snapshot: &Snapshot) -> Running {
        let vmm = self.launch();
        let mut control = vmm.control();
        let reply = self.ask_restore(&mut control, snapshot, &snapshot.state);
        Running::started(vmm, control, reply.as_ref())
    }

    /// The same with its memory copied.
    pub fn copy(&self, snapshot: &Snapshot) -> Running {
        let (vmm, (devices, descriptors)) = (self.launch(), self.parts());
        let mut control = vmm.control();
        let (state, label) = (snapshot.state.clone(), "test-guest".into());
        let spec = LinuxRestore { state, devices, copied: true, label };
        let all: Vec<_> = std::iter::once(&snapshot.memory).chain(descriptors).collect();
        send_with(&mut control, &ControlRequest::RestoreLinux(spec), &all);
        let reply = try_receive(&mut control);
        Running::started(vmm, control, reply.as_ref())
    }

    /// Asks for that, with this state.
    pub fn ask_restore(
        &self,
        control: &mut UnixStream,
        snapshot: &Snapshot,
        state: &[u8],
    ) -> Option<ControlReply> {
        let (devices, descriptors) = self.parts();
        Self::ask_restore_with(control, snapshot, state, devices, &descriptors)
    }

    /// The same with other devices.
    pub fn ask_restore_with(
        control: &mut UnixStream,
        snapshot: &Snapshot,
        state: &[u8],
        devices: Vec<DeviceSpec>,
        descriptors: &[&OwnedFd],
    ) -> Option<ControlReply> {
        let spec = LinuxRestore { state: state.to_vec(), devices, copied: false, label: "test-guest".into() };
        let all: Vec<_> = std::iter::once(&snapshot.memory).chain(descriptors.iter().copied()).collect();
        send_with(control, &ControlRequest::RestoreLinux(spec), &all);
        try_receive(control)
    }

    /// Asks for a guest whose memory comes by this socket.
    pub fn ask_paged(&self, control: &mut UnixStream, state: &[u8], socket: &OwnedFd) {
        let (devices, descriptors) = self.parts();
        let spec = LinuxRestore { state: state.to_vec(), devices, copied: false, label: "test-guest".into() };
        let all: Vec<_> = std::iter::once(socket).chain(descriptors).collect();
        send_with(control, &ControlRequest::RestoreLinuxPaged(spec), &all);
    }

    /// The same, and its disk of this number comes by a socket of its own: what is in its file is written over before it is read.
    pub fn ask_all_paged(
        &self,
        control: &mut UnixStream,
        state: &[u8],
        socket: &OwnedFd,
        (disk, under): (usize, &OwnedFd),
    ) {
        let (mut devices, descriptors) = self.parts();
        devices[disk] =
            DeviceSpec::OverlaidBlock { base: Base::Pager, limits: self.limits.unwrap_or_default() };
        let spec = LinuxRestore { state: state.to_vec(), devices, copied: false, label: "test-guest".into() };
        let mut all: Vec<_> = std::iter::once(socket).chain(descriptors).collect();
        all.insert(disk + 2, under);
        send_with(control, &ControlRequest::RestoreLinuxPaged(spec), &all);
    }

    /// Its devices and their descriptors.
    pub fn parts(&self) -> (Vec<DeviceSpec>, Vec<&OwnedFd>) {
        (self.devices(), self.devices_descriptors().collect())
    }

    fn boot(&self) -> Running {
        let vmm = self.launch();
        let mut control = vmm.control();
        let initrd = initrd(&self.modules);
        let (kernel, initrd) = if self.sealed {
            (sealed(&fs::read(&self.kernel).unwrap()), sealed(&initrd))
        } else {
            (fs::File::open(&self.kernel).unwrap().into(), memfd(&initrd))
        };
        let spec = LinuxSpec {
            memory_bytes: self.memory_mib << 20,
            command_line: self.command_line.clone(),
            cpu_template: self.cpu_template.clone(),
            initrd: true,
            entry: self.entry,
            devices: self.devices(),
            label: "test-guest".into(),
        };
        let mut descriptors = vec![&kernel, &initrd];
        descriptors.extend(self.devices_descriptors());
        send_with(&mut control, &ControlRequest::LoadLinux(spec), &descriptors);
        let reply = try_receive(&mut control);
        Running::started(vmm, control, reply.as_ref())
    }

    fn devices_descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        self.disks.iter().map(|(disk, _)| disk).chain(self.card.iter().map(|(tap, _)| tap))
    }

    fn devices(&self) -> Vec<DeviceSpec> {
        let mut devices: Vec<_> =
            self.disks.iter().map(|(_, read_only)| DeviceSpec::Block { read_only: *read_only }).collect();
        if let (Some(last), Some(limits)) = (devices.last_mut(), self.limits)
            && let DeviceSpec::Block { read_only } = *last
        {
            *last = DeviceSpec::LimitedBlock { read_only, limits };
        }
        devices.extend(self.entropy.then_some(DeviceSpec::Rng));
        devices.extend(self.cid.map(|guest_cid| DeviceSpec::Vsock { guest_cid }));
        devices.extend(self.card.iter().map(|(_, device)| *device));
        devices.extend(&self.others);
        devices
    }
}

impl Running {
    /// Of the reply to whatever started it.
    pub fn started(vmm: Vmm, control: UnixStream, reply: Option<&ControlReply>) -> Self {
        if !matches!(reply, Some(ControlReply::Started { .. })) {
            let (status, log) = vmm.wait();
            panic!("{reply:?}, status {status}: {log}");
        }
        Self { vmm, control, before: String::new(), beside: None }
    }

    /// Written down; it holds still.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take_of(&mut self.control.try_clone().unwrap(), 8 << 30)
    }

    /// Ends it from outside.
    pub fn kill(mut self) -> Ended {
        self.vmm.kill();
        self.end()
    }

    /// Waits for the guest's own end.
    pub fn end(self) -> Ended {
        let (status, log) = self.vmm.wait();
        Ended { status, log: self.before + &log }
    }
}

impl Ended {
    /// Checks the exit status and lines of the log.
    pub fn with(&self, status: i32, lines: &[&str]) -> &Self {
        assert_eq!(self.status, status, "{}", self.log);
        for line in lines {
            assert!(self.log.contains(line), "{:?} is not in\n{}", line, self.log);
        }
        self
    }

    /// The number behind a text.
    pub fn number(&self, text: &str) -> u64 {
        let rest = self.log.split_once(text).map(|(_, rest)| rest).unwrap_or_default();
        rest.split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_default()
    }
}

/// An initrd: `warren-init` and the modules.
pub fn initrd(modules: &Path) -> Vec<u8> {
    let init = std::env::var_os("WARREN_INIT").expect("WARREN_INIT names warren-init");
    warren_image::initrd::of_folder(&fs::read(init).unwrap(), modules).unwrap()
}

/// What is in a disk's file.
pub fn contents(disk: &OwnedFd) -> Vec<u8> {
    let mut file = fs::File::from(disk.try_clone().unwrap());
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}
