//! A disk for the lab host's `/var/lib`: a RAM disk with ext4 on it.
//!
//! Without one everything lies in files of tmpfs, which are memory of whoever writes them: a jail that fills a disk has then
//! used up its cgroup's memory, which on a disk is cache that the kernel writes out and takes back. A RAM disk's own
//! pages are nobody's. (A disk of QEMU's would be slow in virtual time and finish late: that time does not wait for it.)

use crate::initramfs::{Carry, Source};
use crate::kernel::{Kernel, load};
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use warren_image::{sparse::Sparse, tool};

/// Where the second stage looks for it: the driver, the size in KiB, and runs of blocks, named by the block they begin at.
const FOLDER: &str = "/lab/disk";
const BLOCK: u64 = 4096;

/// What makes a disk of this size.
pub fn carries(kernel: &Kernel, cache: &Path, mib: u32) -> Result<Vec<Carry>> {
    let driver = load(&kernel.tree, &["brd"])?.into_iter().find(|module| module.name == "brd");
    let driver = driver.context("this kernel lacks the module brd")?;
    let carry =
        |name: String, bytes| Carry { from: Source::Bytes(bytes), to: PathBuf::from(FOLDER).join(name) };
    let mut files = vec![
        carry("brd.ko".to_owned(), driver.bytes),
        carry("kib".to_owned(), (u64::from(mib) * 1024).to_string().into_bytes()),
    ];
    let runs = file_system(cache, mib)?;
    files.extend(runs.runs().map(|(at, run)| carry(format!("blocks/{}", at / BLOCK), run.to_vec())));
    Ok(files)
}

fn file_system(cache: &Path, mib: u32) -> Result<Sparse> {
    let image = cache.join(format!("disk-{}.ext4", std::process::id()));
    let made = tool::run(
        tool::command("mke2fs")
            .args(["-q", "-t", "ext4", "-b", &BLOCK.to_string(), "-m", "0", "-N", "8192"])
            .args(["-O", "^has_journal", "-E", "lazy_itable_init=0"])
            .arg(&image)
            .arg(format!("{mib}M")),
    );
    let runs = made.map_err(anyhow::Error::from).and_then(|_| Ok(Sparse::of_file(&File::open(&image)?)?));
    fs::remove_file(&image)?;
    runs
}
