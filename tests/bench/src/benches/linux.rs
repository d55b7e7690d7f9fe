//! `linux-boot`: a stock kernel in a `warren-vmm linux` process, from its start to the guest's first process.
//!
//! The guest is what the peers booted: the ELF kernel, an uncompressed initrd of 0.7 MB that needs no module, the same
//! command line. Its init restarts the machine at once, so the process's end is the moment of init plus the restart. The
//! process starts through a shell that puts its descriptors in place, which is counted too. Guest memory has huge pages,
//! as the peers' has by the host's default.
//!
//! Each kernel is measured twice: mapped from a sealed memfd, which is soonest at the first instruction and then faults
//! page by page, and copied from a file, which is the other way round.

use crate::{Places, floors::kvm, report::Report, stats::Samples};
use anyhow::{Context as _, Result, bail, ensure};
use cpio::{NewcBuilder, newc};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use warren_vmm_protocol::frame::{self, PREFIX};
use warren_vmm_protocol::linux::{BootEntry, DeviceSpec, HOST_TEMPLATE, LinuxSpec};
use warren_vmm_protocol::{ControlReply, ControlRequest, Hello, PROTOCOL_VERSION, Role};

/// As the peers' figures were taken (the design's page on the lab).
const COMMAND_LINE: &str = "reboot=k panic=-1 quiet loglevel=0 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.nopnp \
                            i8042.dumbkbd nomodule swiotlb=noforce";
const MEMORY_MIB: u64 = 128;
/// The status of a guest that reset itself.
const RESET: i32 = 11;
/// Bytes of the initrd.
const INITRD_LEN: usize = 700 << 10;
/// Kernel, name of the figures, and whether it is mapped.
const BENCHES: [(&str, &str, bool); 4] = [
    ("6.1", "linux-boot-6.1-mapped", true),
    ("6.1", "linux-boot-6.1-copied", false),
    ("6.12", "linux-boot-6.12-mapped", true),
    ("6.12", "linux-boot-6.12-copied", false),
];

/// What one boot took.
struct Boot {
    /// Process start to the reply that the first vCPU was started.
    entry: Duration,
    /// Process start to its end.
    whole: Duration,
    exits: u64,
}

/// From process start to the first guest instruction and to the guest's end, beside `kvm-floor`.
pub(crate) fn boot(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let guests = places.guests.as_ref().context("--guests: the folder with kernels (warren-lab --guests)")?;
    let initrd = initrd()?;
    for (kernel, bench, mapped) in BENCHES {
        let image = fs::read(guests.join(kernel).join("vmlinux"))?;
        let image = memfd(&image, mapped)?;
        let [mut entry, mut whole, mut floor] = [const { Samples::new() }; 3];
        let mut exits = 0;
        // The first VM of a host pays for what it is the first of.
        for run in 0..=runs {
            let boot = once(places, &image, &initrd)?;
            let (least, _vm) = kvm::create_to_first_exit()?;
            if run > 0 {
                entry.push(boot.entry);
                whole.push(boot.whole);
                floor.push(least);
                exits = boot.exits;
            }
        }
        report.floor(bench, "kvm-floor", &floor);
        let least = ("kvm-floor", floor.p50_us());
        report.times(bench, "first-entry", &entry, least, "<= 12 ms (Firecracker 39 ms)");
        report.times(bench, "init", &whole, least, "<= 1319 ms (Firecracker, 6.1)");
        report.count(bench, "exits", exits, 1);
    }
    Ok(())
}

fn once(places: &Places, kernel: &OwnedFd, initrd: &[u8]) -> Result<Boot> {
    let started = start(places, kernel, initrd, COMMAND_LINE, &[])?;
    let entry = started.entry;
    let (status, whole, log) = started.ended()?;
    ensure!(status == Some(RESET), "status {status:?}: {log}");
    let exits = log.lines().find_map(|line| line.strip_suffix(" exits")?.rsplit(' ').next()?.parse().ok());
    Ok(Boot { entry, whole, exits: exits.context("the log tells the exits")? })
}

/// A guest that runs.
pub(super) struct Started {
    folder: tempfile::TempDir,
    child: Child,
    began: Instant,
    /// Process start to the reply that the first vCPU was started.
    entry: Duration,
}

impl Started {
    /// Its control socket.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// Waits for its own end: the process's status, the time from its start, its log.
    pub(super) fn ended(mut self) -> Result<(Option<i32>, Duration, String)> {
        let mut log = String::new();
        self.child.stderr.take().context("the log is a pipe")?.read_to_string(&mut log)?;
        let status = self.child.wait()?;
        Ok((status.code(), self.began.elapsed(), log))
    }
}

/// A device with its descriptor, if it needs one.
pub(super) type Given<'a> = (DeviceSpec, Option<BorrowedFd<'a>>);

/// Starts a guest.
pub(super) fn start(
    places: &Places,
    kernel: &OwnedFd,
    initrd: &[u8],
    command_line: &str,
    devices: &[Given<'_>],
) -> Result<Started> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("control");
    let listener = UnixListener::bind(&path)?;
    let initrd = kvm::memfd("initrd", initrd)?;
    let program = places.bin.join("warren-vmm");
    let words = format!(
        "exec {} linux --huge-pages --memory-mib {MEMORY_MIB} 3<&0 4<>/dev/kvm 0</dev/null",
        program.display()
    );
    let began = Instant::now();
    let child = Command::new("sh")
        .args(["-c", &words])
        .env_clear()
        .env("PATH", "/bin:/usr/bin")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut control = UnixStream::connect(&path)?;
    let spec = LinuxSpec {
        memory_bytes: MEMORY_MIB << 20,
        command_line: command_line.into(),
        cpu_template: HOST_TEMPLATE.into(),
        initrd: true,
        entry: BootEntry::Long,
        devices: devices.iter().map(|(device, _)| *device).collect(),
        label: "bench".into(),
    };
    control.write_all(&frame::encode(&Hello { version: PROTOCOL_VERSION, role: Role::Control })?)?;
    let mut descriptors = vec![kernel.as_fd(), initrd.as_fd()];
    descriptors.extend(devices.iter().filter_map(|(_, descriptor)| *descriptor));
    send(&control, &frame::encode(&ControlRequest::LoadLinux(spec))?, &descriptors)?;
    let reply = receive(&mut control);
    let started = Started { folder, child, began, entry: began.elapsed() };
    match reply {
        Ok(ControlReply::Started { .. }) => Ok(started),
        reply => bail!("{reply:?}: {}", started.ended()?.2),
    }
}

/// One message.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix)?;
    let mut body = vec![0; frame::read_len(prefix)?];
    stream.read_exact(&mut body)?;
    Ok(frame::decode(&body)?)
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    ensure!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "too many descriptors");
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?;
    ensure!(sent == bytes.len(), "a short message");
    Ok(())
}

/// Bytes as a descriptor; sealed ones are what the VMM maps.
pub(super) fn memfd(bytes: &[u8], sealed: bool) -> Result<OwnedFd> {
    let fd = memfd_create("kernel", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    File::from(fd.try_clone()?).write_all(bytes)?;
    if sealed {
        fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)?;
    }
    Ok(fd)
}

/// A first process and bytes that nobody reads.
fn initrd() -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, name, bytes) in [(1, "init", restarting_program()), (2, "rest", vec![0x5A; INITRD_LEN])] {
        let builder = NewcBuilder::new(name).ino(number).mode(0o10_0755).nlink(1);
        let mut writer = builder.write(&mut archive, u32::try_from(bytes.len())?);
        writer.write_all(&bytes)?;
        writer.finish()?;
    }
    Ok(newc::trailer(archive)?)
}

/// An ELF file by hand whose only act is `reboot(LINUX_REBOOT_CMD_RESTART)`.
fn restarting_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 0x78;
    // mov edi, magic; mov esi, magic2; mov edx, restart; mov eax, 169; syscall; jmp back
    let code = [
        0xBF, 0xAD, 0xDE, 0xE1, 0xFE, 0xBE, 0x69, 0x19, 0x12, 0x28, 0xBA, 0x67, 0x45, 0x23, 0x01, 0xB8, 0xA9,
        0, 0, 0, 0x0F, 0x05, 0xEB, 0xFE,
    ];
    let len = (HEADERS + code.len()) as u64;
    let fields: [(usize, u64); 11] = [
        (0, 0x0001_0102_464C_457F),
        (16, 2 | 62 << 16 | 1 << 32),
        (24, BASE + HEADERS as u64),
        (32, 64),
        (52, 64 | 56 << 16 | 1 << 32),
        (64, 1 | 5 << 32), // PT_LOAD, read and execute, from the file's start
        (80, BASE),
        (88, BASE),
        (96, len),
        (104, len),
        (112, 0x1000),
    ];
    let mut file = vec![0; HEADERS];
    for (at, value) in fields {
        if let Some(target) = file.get_mut(at..at + 8) {
            target.copy_from_slice(&value.to_le_bytes());
        }
    }
    file.extend(code);
    file
}
