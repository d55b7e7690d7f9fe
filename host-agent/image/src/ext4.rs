//! ext4 images made from a folder or of nothing, the same bytes each time.
//!
//! `mke2fs -d` sorts a folder's entries and takes owners, modes and mtimes from it; what it takes from this machine's clock
//! (ctime and atime of each inode, the superblock) is set afterwards by `debugfs`, under a clock that stands still.

use crate::{BuildError, tool};
use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Of every file system made here: nothing tells two of them apart but their content.
const UUID: &str = "77617272-656e-4000-8000-000000000001";
const HASH_SEED: &str = "77617272-656e-4000-8000-000000000002";
const BLOCK: u64 = 4096;
const INODE: u64 = 256;
/// The first inode that is a file's; 2 is the root, 11 is lost+found.
const FIRST_INODES: [u64; 2] = [2, 11];
const FIRST_FILE: u64 = 12;

/// Makes an image that is just large enough for a folder's files.
pub fn of_tree(tree: &Path, image: &Path, epoch: u64) -> Result<(), BuildError> {
    let Needs { blocks, inodes } = needs(tree)?;
    let tables = (inodes * INODE).div_ceil(BLOCK);
    // Bitmaps, descriptors, copies of the superblock; extents and folders grow a little beyond what files add up to.
    let whole = blocks + tables + blocks / 50 + 512;
    let mut mke2fs = mke2fs(epoch);
    mke2fs.args(["-N", &inodes.to_string(), "-d"]).arg(tree);
    run(mke2fs, image, whole)?;
    still(image, inodes, epoch)
}

/// Makes an empty one of this size, sparse.
pub fn empty(image: &Path, mib: u32, epoch: u64) -> Result<(), BuildError> {
    let mut mke2fs = mke2fs(epoch);
    // A file for each 32 KiB.
    mke2fs.args(["-i", "32768"]);
    run(mke2fs, image, u64::from(mib) * (1 << 20) / BLOCK)?;
    still(image, FIRST_FILE, epoch)
}

fn mke2fs(epoch: u64) -> Command {
    let mut command = tool::command("mke2fs");
    command.env("E2FSPROGS_FAKE_TIME", epoch.to_string());
    // No journal: the root is read-only, and a scratch disk's file system does not outlive its guest.
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0"]);
    command.args(["-O", "^has_journal,^resize_inode", "-U", UUID]);
    command.args(["-E", &format!("hash_seed={HASH_SEED},root_owner=0:0,lazy_itable_init=1,no_copy_xattrs")]);
    command
}

fn run(mut command: Command, image: &Path, blocks: u64) -> Result<(), BuildError> {
    let _ = fs::remove_file(image);
    command.arg(image).arg(blocks.to_string());
    tool::run(&mut command).map(drop)
}

/// Sets the times that are this machine's.
fn still(image: &Path, inodes: u64, epoch: u64) -> Result<(), BuildError> {
    let script = image.with_extension("debugfs");
    let mut text = String::new();
    for inode in FIRST_INODES.into_iter().chain(FIRST_FILE..=inodes) {
        for field in ["ctime", "atime"] {
            // Inodes that hold nothing are set too, which changes nothing that is read.
            let _ = writeln!(text, "sif <{inode}> {field} @{epoch}\nsif <{inode}> {field}_extra 0");
        }
    }
    fs::write(&script, text).map_err(BuildError::io(format!("write {}", script.display())))?;
    let mut debugfs = tool::command("debugfs");
    debugfs.env("E2FSPROGS_FAKE_TIME", epoch.to_string()).args(["-w", "-f"]).arg(&script).arg(image);
    let done = tool::run(&mut debugfs).map(drop);
    let _ = fs::remove_file(script);
    done
}

struct Needs {
    blocks: u64,
    inodes: u64,
}

/// What a tree's files take, hard links counted once.
fn needs(tree: &Path) -> Result<Needs, BuildError> {
    let mut needs = Needs { blocks: 0, inodes: FIRST_FILE };
    let mut linked = std::collections::HashSet::new();
    let mut folders: Vec<PathBuf> = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = || BuildError::io(format!("read {}", folder.display()));
        needs.blocks += 1;
        for entry in fs::read_dir(&folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let about = entry.path().symlink_metadata().map_err(failed())?;
            if about.nlink() > 1 && !about.is_dir() && !linked.insert(about.ino()) {
                continue;
            }
            needs.inodes += 1;
            // A folder's own blocks: an entry takes its name and eight bytes.
            needs.blocks += if about.is_dir() { about.len() / BLOCK } else { about.len().div_ceil(BLOCK) };
            if about.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(needs)
}
