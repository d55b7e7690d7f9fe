//! A Linux guest that runs `guest-probe` from its initrd, which does as a stream's first bytes say.

use super::linux::{Given, Started, memfd, receive, start};
use crate::Places;
use anyhow::{Context as _, Result, ensure};
use cpio::{NewcBuilder, newc};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use warren_vmm_protocol::frame;
use warren_vmm_protocol::linux::{DeviceSpec, VsockReply};
use warren_vmm_protocol::{Hello, PROTOCOL_VERSION, Role};

const KERNEL: &str = "6.1";
const COMMAND_LINE: &str = "reboot=k panic=-1 quiet loglevel=0 i8042.noaux i8042.nomux i8042.nopnp \
                            i8042.dumbkbd swiotlb=noforce -- /probe 1000 78";
/// Where the probe listens, and where it says so.
const PROBE: u32 = 1000;
const LISTENS: u32 = 78;
/// Every exit of every guest, in and out of the kernel's own hands.
const EXITS: &str = "/sys/kernel/debug/kvm/exits";

/// A guest whose probe listens.
pub(super) struct Probed(Started);

impl Probed {
    /// Starts one with devices beside its streams.
    pub(super) fn start(places: &Places, devices: &[Given<'_>]) -> Result<Self> {
        let guests =
            places.guests.as_ref().context("--guests: the folder with kernels (warren-lab --guests)")?;
        let folder = guests.join(KERNEL);
        let kernel = memfd(&fs::read(folder.join("vmlinux"))?, true)?;
        let initrd = initrd(&places.bin, &folder.join("modules"))?;
        let mut all = devices.to_vec();
        all.push((DeviceSpec::Vsock { guest_cid: 3 }, None));
        let guest = Self(start(places, &kernel, &initrd, COMMAND_LINE, &all)?);
        let mut listens = guest.connect(Role::VsockAccept { port: LISTENS })?;
        ensure!(receive::<VsockReply>(&mut listens)? == VsockReply::Parked, "not parked");
        ensure!(receive::<VsockReply>(&mut listens)? == VsockReply::Connected, "the probe did not come up");
        Ok(guest)
    }

    fn connect(&self, role: Role) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(self.0.path())?;
        stream.write_all(&frame::encode(&Hello { version: PROTOCOL_VERSION, role })?)?;
        Ok(stream)
    }

    /// A stream to the probe, after its request was said.
    pub(super) fn stream(&self, request: &[u8]) -> Result<UnixStream> {
        let mut stream = self.connect(Role::Vsock { port: PROBE })?;
        let reply: VsockReply = receive(&mut stream)?;
        ensure!(reply == VsockReply::Connected, "{reply:?}");
        stream.write_all(request)?;
        Ok(stream)
    }

    /// Asks for some work by a letter and numbers, and waits for the byte that says it is done.
    pub(super) fn ask(&self, what: u8, numbers: &[u64]) -> Result<()> {
        let mut request = vec![what];
        request.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let mut done = [0];
        self.stream(&request)?.read_exact(&mut done).context("the probe failed")
    }

    /// Ends the probe, and with it the guest.
    pub(super) fn end(self) -> Result<()> {
        drop(self.stream(b"x")?);
        self.0.ended().map(drop)
    }
}

/// Exits of this host's guests until now, whoever handled them.
pub(super) fn exits() -> Result<u64> {
    let text = fs::read_to_string(EXITS).with_context(|| EXITS.to_owned())?;
    Ok(text.trim().parse()?)
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
