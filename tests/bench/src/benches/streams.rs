//! `vsock`: a stream between host and a Linux guest, as an event of a function takes it: one byte there and back, and many
//! bytes one way. The guest runs `guest-probe` from its initrd; the floor is the same over a pair of sockets here.

use super::linux::{Started, memfd, receive, start};
use crate::{Places, report::Report, stats::Samples};
use anyhow::{Context as _, Result, ensure};
use cpio::{NewcBuilder, newc};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;
use warren_vmm_protocol::frame;
use warren_vmm_protocol::linux::{DeviceSpec, VsockReply};
use warren_vmm_protocol::{Hello, PROTOCOL_VERSION, Role};

const BENCH: &str = "vsock";
const KERNEL: &str = "6.1";
const COMMAND_LINE: &str = "reboot=k panic=-1 quiet loglevel=0 i8042.noaux i8042.nomux i8042.nopnp \
                            i8042.dumbkbd swiotlb=noforce -- /probe 1000 78";
/// Where the probe listens, and where it says so.
const PROBE: u32 = 1000;
const LISTENS: u32 = 78;
const MUCH: u64 = 16 << 20;

/// Round trips and a transfer, beside `socket-floor`.
pub(crate) fn vsock(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let guests = places.guests.as_ref().context("--guests: the folder with kernels (warren-lab --guests)")?;
    let folder = guests.join(KERNEL);
    let kernel = memfd(&fs::read(folder.join("vmlinux"))?, true)?;
    let initrd = initrd(&places.bin, &folder.join("modules"))?;
    let guest = start(places, &kernel, &initrd, COMMAND_LINE, vec![DeviceSpec::Vsock { guest_cid: 3 }])?;
    let mut listens = guest.connect(Role::VsockAccept { port: LISTENS })?;
    ensure!(receive::<VsockReply>(&mut listens)? == VsockReply::Parked, "not parked");
    ensure!(receive::<VsockReply>(&mut listens)? == VsockReply::Connected, "the probe did not come up");

    let mut floor = Samples::new();
    let (mut here, mut there) = UnixStream::pair()?;
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() && there.write_all(&byte).is_ok() {}
    });
    round_trips(&mut here, runs, &mut floor)?;
    drop(here);
    let _ = echo.join();
    let mut trips = Samples::new();
    let mut stream = guest.stream(b"e")?;
    round_trips(&mut stream, runs, &mut trips)?;
    drop(stream);
    report.floor(BENCH, "socket-floor", &floor);
    report.times(BENCH, "round-trip", &trips, ("socket-floor", floor.p50_us()), "");

    let [mut least, mut transfer] = [const { Samples::new() }; 2];
    for _ in 0..3 {
        let (mut here, mut there) = UnixStream::pair()?;
        let began = Instant::now();
        let sender =
            std::thread::spawn(move || there.write_all(&vec![0; usize::try_from(MUCH).unwrap_or(0)]));
        std::io::copy(&mut here, &mut std::io::sink())?;
        least.push(began.elapsed());
        let _ = sender.join();
        let mut request = b"s".to_vec();
        request.extend(MUCH.to_le_bytes());
        let began = Instant::now();
        let mut stream = guest.stream(&request)?;
        let count = std::io::copy(&mut stream, &mut std::io::sink())?;
        transfer.push(began.elapsed());
        ensure!(count == MUCH, "{count} bytes came");
    }
    report.floor(BENCH, "socket-16-mib", &least);
    report.times(BENCH, "16-mib-to-host", &transfer, ("socket-16-mib", least.p50_us()), "");
    drop(guest.stream(b"x")?);
    guest.ended()?;
    Ok(())
}

fn round_trips(stream: &mut UnixStream, runs: usize, samples: &mut Samples) -> Result<()> {
    let mut byte = [7];
    for _ in 0..runs {
        let began = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        samples.push(began.elapsed());
    }
    Ok(())
}

impl Started {
    fn connect(&self, role: Role) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(self.path())?;
        stream.write_all(&frame::encode(&Hello { version: PROTOCOL_VERSION, role })?)?;
        Ok(stream)
    }

    fn stream(&self, request: &[u8]) -> Result<UnixStream> {
        let mut stream = self.connect(Role::Vsock { port: PROBE })?;
        let reply: VsockReply = receive(&mut stream)?;
        ensure!(reply == VsockReply::Connected, "{reply:?}");
        stream.write_all(request)?;
        Ok(stream)
    }
}

/// `warren-init`, the modules, and the probe.
fn initrd(bin: &Path, modules: &Path) -> Result<Vec<u8>> {
    let mut files = vec![
        ("init".to_owned(), fs::read(bin.join("warren-init"))?),
        ("probe".to_owned(), fs::read(bin.join("guest-probe"))?),
    ];
    for entry in fs::read_dir(modules)? {
        let path = entry?.path();
        let name = path.file_name().context("a module has a name")?.to_string_lossy().into_owned();
        files.push((format!("lib/warren/modules/{name}"), fs::read(path)?));
    }
    let folders = ["dev", "lib", "lib/warren", "lib/warren/modules"];
    let entries = folders.into_iter().map(|name| (name.to_owned(), 0o04_0755, Vec::new()));
    let entries = entries.chain(files.into_iter().map(|(name, bytes)| (name, 0o10_0755, bytes)));
    let mut archive = Vec::new();
    for (number, (name, mode, bytes)) in (1..).zip(entries) {
        let builder = NewcBuilder::new(&name).ino(number).mode(mode).nlink(1);
        let mut writer = builder.write(&mut archive, u32::try_from(bytes.len())?);
        writer.write_all(&bytes)?;
        writer.finish()?;
    }
    Ok(newc::trailer(archive)?)
}
