//! The scratch disk: overlay, `/tmp`, `/var/task`, and the quota of `/tmp`.
//!
//! # The quota
//! Programs run as a user of their own, and in the whole tree only `/tmp` (and what the image leaves open to everybody, which
//! lies on the same disk) is theirs to write. So what is free on the scratch disk *is* the quota, once a file holds the rest:
//! its blocks are allocated and never written, which costs the host nothing. Project quotas would need a file system
//! made for them and quotactl, a tmpfs would take the function's memory, a file system in a file would need a loop device and
//! write everything twice.

use crate::{Failure, say};
use rustix::fs::{FallocateFlags, Mode, fallocate, statvfs};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{Error as IoError, Result as IoResult, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where disks are mounted before the overlay stands; nobody sees them later.
const LOWER: &str = "/lower";
const SCRATCH: &str = "/scratch";
/// On the scratch disk.
const BALLAST: &str = "ballast";
/// How often it is asked how large a disk is.
const LOOK: Duration = Duration::from_millis(1);

/// Mounts root and scratch disk as one tree at `target`.
pub(crate) fn overlay(root: &str, kind: &str, scratch: &str, target: &str) -> Result<(), Failure> {
    let step = |text: String| Failure::of::<std::io::Error>(text);
    for folder in [LOWER, SCRATCH, target] {
        fs::create_dir_all(folder).map_err(Failure::of(format!("make {folder}")))?;
    }
    mount(root, LOWER, kind, MountFlags::RDONLY, None)
        .map_err(Failure::of(format!("mount {root} as {kind}")))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    // An empty disk of this sandbox alone: what a crash leaves is thrown away with it.
    let scratch_options = c"noauto_da_alloc,nobarrier";
    mount(scratch, SCRATCH, "ext4", flags, Some(scratch_options))
        .map_err(Failure::of(format!("mount {scratch}")))?;
    for (name, mode) in [("upper", 0o755), ("work", 0o755), ("task", 0o755), ("tmp", 0o1777)] {
        let folder = Path::new(SCRATCH).join(name);
        DirBuilder::new().create(&folder).map_err(step(format!("make {}", folder.display())))?;
        fs::set_permissions(&folder, Permissions::from_mode(mode)).map_err(step("set a mode".to_owned()))?;
    }
    let options = format!("lowerdir={LOWER},upperdir={SCRATCH}/upper,workdir={SCRATCH}/work");
    let options =
        std::ffi::CString::new(options).map_err(|error| step("overlay".to_owned())(error.into()))?;
    mount("overlay", target, "overlay", MountFlags::NODEV | MountFlags::NOSUID, Some(&*options))
        .map_err(Failure::of("mount the overlay"))?;
    mount_change(target, MountPropagationFlags::PRIVATE).map_err(Failure::of("make the overlay private"))?;
    for (from, to, mode) in [("tmp", "tmp", 0o1777), ("task", "var/task", 0o755)] {
        let to = Path::new(target).join(to);
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&to)
            .map_err(step(format!("make {}", to.display())))?;
        let from = Path::new(SCRATCH).join(from);
        // What the image itself has there stays what there is when the host brings no archive.
        let keep = to.ends_with("task") && to.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if !keep {
            mount_bind(&from, &to).map_err(Failure::of(format!("bind {}", to.display())))?;
        }
    }
    say!("root is {root} under {scratch}");
    Ok(())
}

/// Waits until a disk holds so many bytes: one that came with a restore is there once its driver has heard of it.
pub(super) fn await_bytes(disk: &mut fs::File, bytes: u64) -> IoResult<()> {
    let give_up = Instant::now() + crate::filesystems::PATIENCE;
    loop {
        let held = disk.seek(SeekFrom::End(0))?;
        if held >= bytes {
            return disk.rewind();
        }
        if Instant::now() >= give_up {
            return Err(IoError::other(format!("it holds {held} bytes, {bytes} are to be on it")));
        }
        std::thread::sleep(LOOK);
    }
}

/// Programs read `/var/task` and no more.
pub(super) fn close_task() -> IoResult<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    match mount_remount("/var/task", flags, c"") {
        // The image's own folder: no mount, and root's already.
        Err(rustix::io::Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Leaves `bytes` free on the disk that `/tmp` is on.
pub(super) fn limit_tmp(bytes: u64) -> IoResult<()> {
    let about = statvfs("/tmp")?;
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let Some(rest) = free.checked_sub(bytes).filter(|rest| *rest > 0) else {
        // The disk's own size is the limit then.
        say!("/tmp has {} MiB, {} were asked for", free >> 20, bytes >> 20);
        return Ok(());
    };
    // In a folder that is gone in the next moment: it has no name that a program could find.
    let name = format!("/tmp/{BALLAST}");
    let file = OpenOptions::new().write(true).create_new(true).open(&name)?;
    fs::remove_file(&name)?;
    rustix::fs::fchmod(&file, Mode::empty())?;
    fallocate(&file, FallocateFlags::empty(), 0, rest)?;
    // Held open by the first process for as long as the guest lives.
    std::mem::forget(file);
    Ok(())
}
