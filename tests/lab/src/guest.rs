//! What a Linux guest inside the lab is made of: a kernel as its distribution ships it, the ELF kernel inside that, the
//! modules a guest needs, and a root file system.

use crate::initramfs::Carry;
use crate::kernel::{Kernel, Release, find_module, run};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where it all lies in the lab.
pub const FOLDER: &str = "/guest";
/// In loading order. What a kernel has built in is not among its modules.
const MODULES: [&str; 12] = [
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_blk",
    "rng-core",
    "virtio-rng",
    "failover",
    "net_failover",
    "virtio_net",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
];
/// Compressed kernels by the first bytes of their payload, and what unpacks them.
const FORMATS: [(&[u8], &[&str]); 2] =
    [(&[0x02, 0x21, 0x4C, 0x18], &["lz4", "-dc"]), (&[0x28, 0xB5, 0x2F, 0xFD], &["zstd", "-dc"])];

/// Everything to carry for guests with one kernel.
pub fn carries(release: Release, kernel: &Kernel, cache: &Path) -> Result<Vec<Carry>> {
    let folder = Path::new(FOLDER).join(release.name());
    let elf = cache.join(release.name()).join("vmlinux");
    if !elf.exists() {
        extract_elf(&kernel.image, &elf)?;
    }
    let mut files = vec![
        Carry { from: kernel.image.clone(), to: folder.join("vmlinuz") },
        Carry { from: elf, to: folder.join("vmlinux") },
    ];
    for (at, name) in MODULES.iter().enumerate() {
        // Not every kernel has every one as a module.
        if let Ok(from) = find_module(&kernel.tree, name) {
            files.push(Carry { from, to: folder.join("modules").join(format!("{at:02}-{name}.ko")) });
        }
    }
    ensure!(files.len() > 2, "no module of {} was found", release.name());
    Ok(files)
}

/// A small root file system with a shell, as an ext4 image.
pub fn root_image(kernel: &Kernel, cache: &Path) -> Result<Carry> {
    let image = cache.join("guest-root.ext4");
    if !image.exists() {
        let tree = cache.join(format!("guest-root-{}", std::process::id()));
        for folder in ["bin", "dev", "proc", "sys", "tmp", "run", "mnt"] {
            fs::create_dir_all(tree.join(folder))?;
        }
        fs::copy(&kernel.busybox, tree.join("bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", tree.join("bin/sh"))?;
        let fresh = cache.join(format!("guest-root-{}.new", std::process::id()));
        let made = run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
            .arg(&tree)
            .arg(&fresh)
            .arg("16M"));
        fs::remove_dir_all(&tree)?;
        made?;
        fs::rename(fresh, &image)?;
    }
    Ok(Carry { from: image, to: Path::new(FOLDER).join("root.ext4") })
}

/// Unpacks the ELF kernel that a bzImage unpacks into memory (boot protocol, `payload_offset`, `payload_length`).
fn extract_elf(image: &Path, elf: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| image.display().to_string())?;
    let word = |at: usize| -> Result<usize> {
        let field = bytes.get(at..at + 4).context("no boot protocol header")?;
        Ok(usize::try_from(u32::from_le_bytes(field.try_into()?))?)
    };
    let code = (usize::from(*bytes.get(0x1F1).context("no header")?) + 1) * 512;
    let start = code + word(0x248)?;
    // Its last four bytes are the unpacked length.
    let payload = bytes.get(start..start + word(0x24C)? - 4).context("the payload is not in the file")?;
    let Some((_, words)) = FORMATS.iter().find(|(magic, _)| payload.starts_with(magic)) else {
        bail!("{}: a compression that is not known here", image.display());
    };
    let fresh = elf.with_extension("new");
    let packed = elf.with_extension("packed");
    fs::write(&packed, payload)?;
    let (program, arguments) = words.split_first().context("a format names its program")?;
    let status = Command::new(program)
        .args(arguments)
        .stdin(fs::File::open(&packed)?)
        .stdout(fs::File::create(&fresh)?)
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("{program} (Debian package {program})"))?;
    fs::remove_file(&packed)?;
    let magic = fs::read(&fresh)?;
    // A warning about what follows the stream is no failure; an ELF header is the proof.
    ensure!(magic.starts_with(b"\x7FELF"), "{program} ended with {status} and gave no ELF kernel");
    fs::rename(fresh, elf)?;
    Ok(())
}
