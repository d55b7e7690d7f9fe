//! A Linux function's guest as an agent has it: its disks, and what is said on port 1.

use super::super::linux::{Process, Started, memfd, receive, send};
use crate::Places;
use anyhow::{Context as _, Result, bail, ensure};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use warren_image::sparse::Sparse;
use warren_vmm_protocol::guest::{
    GUEST_VERSION, GuestConfig, GuestReply, GuestRequest, PORT, Restored, SandboxKind, Text,
};
use warren_vmm_protocol::linux::{
    BootEntry, DeviceSpec, HOST_TEMPLATE, LinuxRestore, LinuxSpec, VsockRefusal, VsockReply,
};
use warren_vmm_protocol::{
    ControlReply, ControlRequest, Hello, InvokeReply, InvokeRequest, Outcome, PROTOCOL_VERSION, Role, frame,
};

const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=k i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd warren.serve=1 \
                            warren.root=/dev/vda";
const EVENT: &[u8] = br#"{"key":"the same event each time"}"#;
const MINUTES: u32 = 900_000;

/// A guest that was written down when its function was ready, with its disks.
pub(super) struct Written {
    pub(super) state: Vec<u8>,
    pub(super) memory: OwnedFd,
    root: OwnedFd,
    scratch: OwnedFd,
    task: OwnedFd,
    memory_mib: u64,
}

fn devices(cid: u32) -> Vec<DeviceSpec> {
    let disk = |read_only| DeviceSpec::Block { read_only };
    vec![disk(true), disk(false), disk(true), DeviceSpec::Rng, DeviceSpec::Vsock { guest_cid: cid }]
}

/// Boots a guest with this application, and writes it down once it is ready.
pub(super) fn written(places: &Places, guests: &Path, memory_mib: u64, task: &[u8]) -> Result<Written> {
    let kernel = memfd(&fs::read(guests.join("kernels/6.1/vmlinux"))?, true)?;
    let initrd = memfd(&fs::read(guests.join("kernels/6.1/initrd"))?, true)?;
    let root: OwnedFd = File::open(guests.join("runtimes/debian-python/root.img"))?.into();
    let scratch = scratch(&fs::read(guests.join("scratch/1024.sparse"))?)?;
    let mut padded = task.to_vec();
    padded.resize(task.len().next_multiple_of(512), 0);
    let task_disk = memfd(&padded, false)?;
    let spec = LinuxSpec {
        memory_bytes: memory_mib << 20,
        command_line: COMMAND_LINE.into(),
        cpu_template: HOST_TEMPLATE.into(),
        initrd: true,
        entry: BootEntry::Long,
        devices: devices(3),
        label: "bench".into(),
    };
    let process = Process::with_memory(places, memory_mib, "")?;
    let descriptors = [&kernel, &initrd, &root, &scratch, &task_disk].map(|file| file.as_fd());
    let started = process.begin(&ControlRequest::LoadLinux(spec), &descriptors)?;
    let mut stream = stream(&started)?;
    let mut config = GuestConfig::of(Text::cut("bench"));
    config.handler = Text::cut("app.handler");
    config.kind = SandboxKind::Snapshot;
    config.memory = u32::try_from(memory_mib)?.try_into()?;
    config.timeout = MINUTES.try_into()?;
    config.init_timeout = MINUTES.try_into()?;
    config.task_len = task.len() as u64;
    config.wall_unix_ns = 1_900_000_000_000_000_000;
    say(&mut stream, &GuestRequest::Configure(Box::new(config)), &[])?;
    ready(&mut stream)?;
    say(&mut stream, &GuestRequest::HoldStill, &[])?;
    loop {
        match receive(&mut stream)? {
            GuestReply::Log(_) => {}
            GuestReply::Still { held } => break ensure!(held, "this kernel does not hold programs"),
            other => bail!("{other:?}"),
        }
    }
    let memory = memfd_create("memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, memory_mib << 20)?;
    let mut control = super::super::linux::control(&started.path())?;
    send(&control, &frame::encode(&ControlRequest::Snapshot)?, &[memory.as_fd()])?;
    let (len, state) = match receive(&mut control)? {
        ControlReply::Snapshot { memory_len, state } => (memory_len, state),
        other => bail!("no snapshot: {other:?}"),
    };
    started.kill()?;
    ftruncate(&memory, len)?;
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(Written { state, memory, root, scratch, task: task_disk, memory_mib })
}

impl Written {
    /// A copy, from its process's start to its first response; by a pager behind this socket, or from the file.
    pub(super) fn respond(&self, places: &Places, pager: Option<&OwnedFd>) -> Result<(Duration, Vec<u8>)> {
        // Each has a scratch disk of its own.
        let scratch = copy(&self.scratch)?;
        let flags = if pager.is_some() { "--paged" } else { "" };
        let process = Process::with_memory(places, self.memory_mib, flags)?;
        let spec = LinuxRestore {
            state: self.state.clone(),
            devices: devices(4),
            copied: false,
            label: "bench".into(),
        };
        let request =
            if pager.is_some() { ControlRequest::RestoreLinuxPaged } else { ControlRequest::RestoreLinux };
        let memory = pager.unwrap_or(&self.memory);
        let descriptors: [BorrowedFd<'_>; 4] =
            [memory, &self.root, &scratch, &self.task].map(|file| file.as_fd());
        let started = process.begin(&request(spec), &descriptors)?;
        let mut stream = stream(&started)?;
        let restored = Restored {
            version: GUEST_VERSION,
            generation: 2,
            sandbox: Text::cut("copy"),
            wall_unix_ns: 1_900_000_100_000_000_000,
            seed: [7; 32],
        };
        say(&mut stream, &GuestRequest::Restored(Box::new(restored)), &[])?;
        ready(&mut stream)?;
        let invoke = InvokeRequest {
            id: "request-1/7.1".into(),
            timeout_ms: MINUTES,
            context: br#"{"request_id":"request-1","trace_id":"Root=1-1"}"#.to_vec(),
            payload_len: u32::try_from(EVENT.len())?,
        };
        say(&mut stream, &GuestRequest::Invoke(invoke), EVENT)?;
        let answer = loop {
            match receive(&mut stream)? {
                InvokeReply::Log(_) => {}
                InvokeReply::Done(done) => {
                    let mut payload = vec![0; done.payload_len as usize];
                    stream.read_exact(&mut payload)?;
                    ensure!(
                        done.outcome == Outcome::Response,
                        "{:?}: {}",
                        done.outcome,
                        String::from_utf8_lossy(&payload)
                    );
                    break payload;
                }
            }
        };
        let took = started.since();
        started.kill()?;
        Ok((took, answer))
    }
}

/// A stream to the guest's supervisor; until it listens it has to be asked for again.
fn stream(started: &Started) -> Result<UnixStream> {
    loop {
        let mut stream = UnixStream::connect(started.path())?;
        let hello = Hello { version: PROTOCOL_VERSION, role: Role::Vsock { port: PORT } };
        stream.write_all(&frame::encode(&hello)?)?;
        match receive(&mut stream)? {
            VsockReply::Connected => return Ok(stream),
            VsockReply::Refused { why: VsockRefusal::NotListening } => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => bail!("{other:?}"),
        }
    }
}

fn say(stream: &mut UnixStream, request: &GuestRequest, payload: &[u8]) -> Result<()> {
    let mut bytes = frame::encode(request)?;
    bytes.extend_from_slice(payload);
    Ok(stream.write_all(&bytes)?)
}

/// Waits until the function is.
fn ready(stream: &mut UnixStream) -> Result<()> {
    let mut log = Vec::new();
    loop {
        match receive(stream)? {
            GuestReply::Log(more) => log.extend_from_slice(more.as_bytes()),
            GuestReply::Acknowledged => {}
            GuestReply::Ready { .. } => return Ok(()),
            other => bail!("{other:?}: {}", String::from_utf8_lossy(&log)),
        }
    }
}

fn scratch(sparse: &[u8]) -> Result<OwnedFd> {
    let sparse = Sparse::parse(sparse)?;
    let disk = memfd_create("scratch", MemfdFlags::CLOEXEC)?;
    ftruncate(&disk, sparse.len())?;
    let file = File::from(disk.try_clone()?);
    sparse.runs().try_for_each(|(at, run)| file.write_all_at(run, at))?;
    Ok(disk)
}

fn copy(disk: &OwnedFd) -> Result<OwnedFd> {
    let sparse = Sparse::of_file(&File::from(disk.try_clone()?)).context("read the scratch disk")?;
    scratch(&sparse.to_bytes())
}
