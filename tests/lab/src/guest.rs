//! What a Linux guest inside the lab is made of: a kernel as its distribution ships it, the ELF kernel inside that, the
//! modules a guest needs, and a root file system.

use crate::initramfs::{Carry, Source};
use crate::kernel::{Kernel, Series, load};
use anyhow::{Result, ensure};
use std::fs;
use std::path::Path;
use warren_image::kernel::extract_elf;
use warren_image::{modules, modules::Module, tool};

/// Where it all lies in the lab.
pub const FOLDER: &str = "/guest";

/// Everything to carry for guests with one kernel.
pub fn carries(series: Series, kernel: &Kernel, cache: &Path) -> Result<Vec<Carry>> {
    let folder = Path::new(FOLDER).join(series.name());
    let elf = cache.join(series.name()).join("vmlinux");
    if !elf.exists() {
        extract_elf(&kernel.image, &elf)?;
    }
    let mut files = vec![
        Carry { from: kernel.image.clone().into(), to: folder.join("vmlinuz") },
        Carry { from: elf.into(), to: folder.join("vmlinux") },
    ];
    let names = [&modules::GUEST[..], &modules::MEMORY].concat();
    for (at, module) in load(&kernel.tree, &names)?.into_iter().enumerate() {
        let to = folder.join("modules").join(format!("{at:02}-{}.ko", module.name));
        files.push(Carry { from: Source::Bytes(module.bytes), to });
    }
    ensure!(files.len() > 2, "no module of {} was found", series.name());
    Ok(files)
}

/// The host's own modules for guests' network cards, and for disks that freeze or fail.
pub fn host_modules(kernel: &Kernel) -> Result<Vec<Carry>> {
    let modules = load(&kernel.tree, &["tun", "loop"])?;
    ensure!(modules.len() == 2, "this kernel lacks the modules tun and loop");
    let carry = |module: Module| {
        let to = Path::new(FOLDER).join(format!("{}.ko", module.name));
        Carry { from: Source::Bytes(module.bytes), to }
    };
    Ok(modules.into_iter().map(carry).collect())
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
        let made = tool::run(
            tool::command("mke2fs")
                .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
                .arg(&tree)
                .arg(&fresh)
                .arg("16M"),
        );
        fs::remove_dir_all(&tree)?;
        made?;
        fs::rename(fresh, &image)?;
    }
    Ok(Carry { from: image.into(), to: Path::new(FOLDER).join("root.ext4") })
}
