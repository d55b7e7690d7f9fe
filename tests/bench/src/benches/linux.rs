//! `linux-boot`: a stock kernel in a `warren-vmm linux` process, from its start to the guest's first process.
//!
//! The guest is what the peers booted: the ELF kernel, an uncompressed initrd of 0.7 MB that needs no module, the same
//! command line. Its init resets the machine at once, and the moment of init is when the VMM says so; how long the process
//! then takes to its own end is `end`. The process starts through a shell that puts its descriptors in place, which is
//! counted too. Guest memory has huge pages, as the peers' has by the host's default.
//!
//! `overhead` is what the VMM holds for itself while a guest idles: private dirty pages outside guest memory, without huge
//! pages.
//!
//! Kernel and initrd are sealed memfds, as the agent gives them.

use super::first_process::{Act, elf};
use crate::{Places, floors::kvm, report::Report, stats::Samples};
use anyhow::{Context as _, Result, bail, ensure};
use cpio::{NewcBuilder, newc};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};
use warren_vmm_protocol::frame::{self, PREFIX};
use warren_vmm_protocol::linux::{BootEntry, DeviceSpec, HOST_TEMPLATE, LinuxSpec};
use warren_vmm_protocol::{ControlReply, ControlRequest, Hello, PROTOCOL_VERSION, Role, VmState};

/// As the peers' figures were taken (the design's page on the lab).
const COMMAND_LINE: &str = "reboot=k panic=-1 quiet loglevel=0 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.nopnp \
                            i8042.dumbkbd nomodule swiotlb=noforce";
pub(super) const MEMORY_MIB: u64 = 128;
/// The status of a guest that reset itself.
const RESET: i32 = 11;
/// How long a machine that said it waits has to do so.
const SETTLES: Duration = Duration::from_millis(20);
/// Bytes of the initrd.
const INITRD_LEN: usize = 700 << 10;
/// Kernel, and names of the figures by mode: as the host is, and with grace periods expedited ([`GracePeriods`]).
const BENCHES: [(&str, [&str; 2]); 2] = [
    ("6.1", ["linux-boot-6.1", "linux-boot-6.1-expedited"]),
    ("6.12", ["linux-boot-6.12", "linux-boot-6.12-expedited"]),
];

/// What one boot took.
struct Boot {
    /// Process start to the reply that the first vCPU was started.
    entry: Duration,
    /// Process start to init.
    init: Duration,
    /// Process start to its end.
    whole: Duration,
    exits: u64,
}

/// From process start to the first guest instruction and to the guest's end, beside `kvm-floor`.
pub(crate) fn boot(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let guests = places.guests.as_ref().context("--guests: the folder with kernels (warren-lab --guests)")?;
    let (initrd, idle) = (initrd(Act::Reset)?, initrd(Act::Idle)?);
    for (kernel, names) in BENCHES {
        let image = fs::read(guests.join(kernel).join("vmlinux"))?;
        // Not sealed, for the VMM's own memory: what is mapped of a file would count as that.
        let (image, copied) = (memfd(&image, true)?, memfd(&image, false)?);
        for (bench, mode) in names.into_iter().zip(GracePeriods::BOTH) {
            let [mut entry, mut init, mut whole, mut floor] = [const { Samples::new() }; 4];
            let mut exits = 0;
            let _set = mode.set()?;
            // The first VM of a host pays for what it is the first of.
            for run in 0..=runs {
                let boot = once(places, &image, &initrd)?;
                let least = kvm_floor()?;
                if run > 0 {
                    entry.push(boot.entry);
                    init.push(boot.init);
                    whole.push(boot.whole);
                    floor.push(least);
                    exits = boot.exits;
                }
            }
            report.floor(bench, "kvm-floor", &floor);
            let least = ("kvm-floor", floor.p50_us());
            report.times(bench, "first-entry", &entry, least, "<= 12 ms (Firecracker 39 ms)");
            report.times(bench, "init", &init, least, "<= 1319 ms (Firecracker, 6.1)");
            report.times(bench, "end", &whole, least, "");
            report.count(bench, "exits", exits, 1);
        }
        let kib = overhead(places, &copied, &idle)?;
        let reach = "<= 3072 KiB (Firecracker 5 MiB)";
        report.value(names[0], "overhead", "KiB", (kib, kib), 1, ("", 0.0), reach);
    }
    Ok(())
}

/// Whether the kernel hurries grace periods of RCU. A VM that is made after a pause waits for some, ticks of four milliseconds
/// each (KVM's recovery thread moves into its maker's cgroup); one made right after another does not.
#[derive(Clone, Copy)]
pub(super) enum GracePeriods {
    AsTheyAre,
    Expedited,
}

impl GracePeriods {
    pub(super) const BOTH: [Self; 2] = [Self::AsTheyAre, Self::Expedited];
    const SETTING: &str = "/sys/kernel/rcu_expedited";

    /// Until what it gives is dropped.
    pub(super) fn set(self) -> Result<impl Drop> {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                let _ = fs::write(GracePeriods::SETTING, "0");
            }
        }
        fs::write(Self::SETTING, if matches!(self, Self::Expedited) { "1" } else { "0" })?;
        Ok(Reset)
    }
}

/// The floor as where peers were measured: of a VM made right after another one.
pub(super) fn kvm_floor() -> Result<Duration> {
    let _waits = kvm::create_to_first_exit()?;
    Ok(kvm::create_to_first_exit()?.0)
}

fn once(places: &Places, kernel: &OwnedFd, initrd: &[u8]) -> Result<Boot> {
    let started = start(places, kernel, initrd, COMMAND_LINE, &[])?;
    let entry = started.entry;
    let mut started = started;
    let init = started.says("end: reset")?;
    let (status, whole, log) = started.ended()?;
    ensure!(status == Some(RESET), "status {status:?}: {log}");
    let exits = log.lines().find_map(|line| line.strip_suffix(" exits")?.rsplit(' ').next()?.parse().ok());
    Ok(Boot { entry, init, whole, exits: exits.context("the log tells the exits")? })
}

/// KiB of private dirty memory that is not the guest's, while the guest idles.
fn overhead(places: &Places, kernel: &OwnedFd, initrd: &[u8]) -> Result<f64> {
    let started = launch(places, (kernel, initrd), COMMAND_LINE, &[], "")?;
    // Its kernel is up and its init waits when it has run for long.
    started.idles()?;
    let maps = fs::read_to_string(format!("/proc/{}/smaps", started.child.id()))?;
    started.kill()?;
    let number = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let (mut guests, mut dirty) = (false, 0);
    for line in maps.lines() {
        if line.starts_with("Size:") {
            guests = number(line).is_some_and(|kib| kib >= MEMORY_MIB << 10);
        } else if line.starts_with("Private_Dirty:") && !guests {
            dirty += number(line).unwrap_or_default();
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
    Ok(dirty as f64)
}

/// A guest that runs.
pub(super) struct Started {
    folder: tempfile::TempDir,
    child: Child,
    output: BufReader<ChildStderr>,
    log: String,
    began: Instant,
    /// Process start to the reply that the first vCPU was started.
    entry: Duration,
}

impl Started {
    /// Its control socket.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// From process start to now.
    pub(super) fn since(&self) -> Duration {
        self.began.elapsed()
    }

    /// Process start to the reply that it runs.
    pub(super) fn entry(&self) -> Duration {
        self.entry
    }

    /// Ends it.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.ended().map(drop)
    }

    /// Waits for its own end: the process's status, the time from its start, its log.
    pub(super) fn ended(mut self) -> Result<(Option<i32>, Duration, String)> {
        self.output.read_to_string(&mut self.log)?;
        let status = self.child.wait()?;
        Ok((status.code(), self.began.elapsed(), self.log))
    }

    /// Waits for a line of its log: the time from its start. (The end of the log is for [`Self::ended`] to judge.)
    pub(super) fn says(&mut self, text: &str) -> Result<Duration> {
        loop {
            let from = self.log.len();
            let read = self.output.read_line(&mut self.log)?;
            if read == 0 || self.log.get(from..).is_some_and(|line| line.contains(text)) {
                return Ok(self.began.elapsed());
            }
        }
    }

    /// Has the guest put back to its snapshot: the time from the request to its first line that has this text.
    pub(super) fn put_back(&mut self, text: &str) -> Result<Duration> {
        let mut control = control(&self.path())?;
        let asked = Instant::now();
        send(&control, &frame::encode(&ControlRequest::Reset)?, &[])?;
        self.says("guest put back")?;
        self.says(text)?;
        let took = asked.elapsed();
        match receive(&mut control)? {
            ControlReply::Started { .. } => Ok(took),
            other => bail!("not put back: {other:?}"),
        }
    }

    /// Waits until its vCPU has used no processor for a while.
    fn idles(&self) -> Result<()> {
        const STEP: Duration = Duration::from_millis(250);
        let used = || -> Result<u64> {
            let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
            let mut words = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
            let mut next =
                || words.next().and_then(|word| word.parse::<u64>().ok()).context("no times in stat");
            Ok(next()? + next()?)
        };
        let mut before = used()?;
        loop {
            std::thread::sleep(STEP);
            let now = used()?;
            // One tick of ten milliseconds: timers of an idle guest.
            if now <= before + 1 {
                return Ok(());
            }
            before = now;
        }
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
    launch(places, (kernel, initrd), command_line, devices, "--huge-pages")
}

/// The same with flags of one's own.
pub(super) fn launch(
    places: &Places,
    (kernel, initrd): (&OwnedFd, &[u8]),
    command_line: &str,
    devices: &[Given<'_>],
    flags: &str,
) -> Result<Started> {
    let initrd = memfd(initrd, true)?;
    let process = Process::start(places, flags)?;
    let spec = LinuxSpec {
        memory_bytes: MEMORY_MIB << 20,
        command_line: command_line.into(),
        cpu_template: HOST_TEMPLATE.into(),
        initrd: true,
        entry: BootEntry::Long,
        devices: devices.iter().map(|(device, _)| *device).collect(),
        label: "bench".into(),
    };
    let mut descriptors = vec![kernel.as_fd(), initrd.as_fd()];
    descriptors.extend(devices.iter().filter_map(|(_, descriptor)| *descriptor));
    process.begin(&ControlRequest::LoadLinux(spec), &descriptors)
}

/// A `warren-vmm linux` without a guest.
pub(super) struct Process {
    folder: tempfile::TempDir,
    child: Child,
    control: UnixStream,
    began: Instant,
}

impl Process {
    /// Starts one, with flags of one's own.
    pub(super) fn start(places: &Places, flags: &str) -> Result<Self> {
        Self::with_memory(places, MEMORY_MIB, flags)
    }

    /// The same with so much memory; with `--paged` it has /dev/userfaultfd.
    pub(super) fn with_memory(places: &Places, memory_mib: u64, flags: &str) -> Result<Self> {
        let more = if flags.contains("--paged") { "5<>/dev/userfaultfd" } else { "" };
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path)?;
        let program = places.bin.join("warren-vmm");
        let words = format!(
            "exec {} linux {flags} --memory-mib {memory_mib} 3<&0 4<>/dev/kvm {more} 0</dev/null",
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
        let control = control(&path)?;
        Ok(Self { folder, child, control, began })
    }

    /// Waits until it waits itself, sealed and with its machine made: times count from then.
    pub(super) fn waits(mut self) -> Result<Self> {
        send(&self.control, &frame::encode(&ControlRequest::Status)?, &[])?;
        match receive(&mut self.control)? {
            ControlReply::Status(status) if status.state == VmState::Empty => {}
            other => bail!("no empty machine: {other:?}"),
        }
        // It has said so: now it goes back to where it waits.
        std::thread::sleep(SETTLES);
        self.began = Instant::now();
        Ok(self)
    }

    /// Puts a guest in.
    pub(super) fn begin(self, request: &ControlRequest, descriptors: &[BorrowedFd<'_>]) -> Result<Started> {
        let Self { folder, mut child, mut control, began } = self;
        send(&control, &frame::encode(request)?, descriptors)?;
        let reply = receive(&mut control);
        let entry = began.elapsed();
        let output = BufReader::new(child.stderr.take().context("the log is a pipe")?);
        let started = Started { folder, child, output, log: String::new(), began, entry };
        match reply {
            Ok(ControlReply::Started { .. }) => Ok(started),
            reply => bail!("{reply:?}: {}", started.ended()?.2),
        }
    }
}

/// A control connection.
pub(super) fn control(path: &Path) -> Result<UnixStream> {
    let mut control = UnixStream::connect(path)?;
    control.write_all(&frame::encode(&Hello { version: PROTOCOL_VERSION, role: Role::Control })?)?;
    Ok(control)
}

/// One message.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix)?;
    let mut body = vec![0; frame::read_len(prefix)?];
    stream.read_exact(&mut body)?;
    Ok(frame::decode(&body)?)
}

pub(super) fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    ensure!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "too many descriptors");
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?;
    // A snapshot's state is larger than a socket's buffer may be.
    (&*stream).write_all(bytes.get(sent..).unwrap_or_default())?;
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
pub(super) fn initrd(act: Act) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, name, bytes) in [(1, "init", elf(act)), (2, "rest", vec![0x5A; INITRD_LEN])] {
        let builder = NewcBuilder::new(name).ino(number).mode(0o10_0755).nlink(1);
        let mut writer = builder.write(&mut archive, u32::try_from(bytes.len())?);
        writer.write_all(&bytes)?;
        writer.finish()?;
    }
    Ok(newc::trailer(archive)?)
}
