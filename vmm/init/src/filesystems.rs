//! Mounting what a Linux program expects, and entering the root file system.

use crate::settings::Root;
use crate::{Failure, say};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};
use std::path::Path;
use std::time::{Duration, Instant};

/// What every guest has: source, target, type, flags.
const EARLY: [(&str, &str, MountFlags); 3] =
    [("proc", "/proc", HARDENED), ("sysfs", "/sys", HARDENED), ("devtmpfs", "/dev", MountFlags::NOSUID)];
/// What a root file system gets besides, where it has a place for it.
const LATE: [(&str, &str, MountFlags); 2] = [
    ("tmpfs", "/run", MountFlags::NOSUID.union(MountFlags::NODEV)),
    ("tmpfs", "/tmp", MountFlags::NOSUID.union(MountFlags::NODEV)),
];
const HARDENED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Where the root file system stands before it becomes `/`.
const NEW_ROOT: &str = "/newroot";
/// How long a disk may take to appear.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(10);

/// Mounts what init itself needs.
pub(crate) fn mount_early() -> Result<(), Failure> {
    for (kind, target, flags) in EARLY {
        std::fs::create_dir_all(target).map_err(Failure::of(format!("make {target}")))?;
        mount_kind(kind, target, flags)?;
    }
    Ok(())
}

fn mount_kind(kind: &str, target: &str, flags: MountFlags) -> Result<(), Failure> {
    match mount(kind, target, kind, flags, None) {
        // Kernels may have mounted devtmpfs themselves.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(Failure::of(format!("mount {target}"))(error)),
    }
}

/// Mounts the root file system, under an overlay if there is a scratch disk, and makes it `/`.
pub(crate) fn enter_root(root: &Root, scratch: Option<&str>) -> Result<(), Failure> {
    std::fs::create_dir_all(NEW_ROOT).map_err(Failure::of("make a place for the root file system"))?;
    await_device(&root.device);
    if let Some(scratch) = scratch {
        await_device(scratch);
        crate::guest::disks::overlay(&root.device, &root.kind, scratch, NEW_ROOT)?;
    } else {
        let flags = if root.writable { MountFlags::empty() } else { MountFlags::RDONLY };
        let what = format!("mount {} as {}", root.device, root.kind);
        mount(&*root.device, NEW_ROOT, &*root.kind, flags, None).map_err(Failure::of(what))?;
        say!("root is {}", root.device);
    }
    for (_, target, _) in EARLY {
        let inside = format!("{NEW_ROOT}{target}");
        if scratch.is_some() {
            std::fs::create_dir_all(&inside).map_err(Failure::of(format!("make {target}")))?;
        }
        mount_move(target, &*inside)
            .map_err(Failure::of(format!("move {target} into the root file system")))?;
    }
    let step = || Failure::of("enter the root file system");
    std::env::set_current_dir(NEW_ROOT).map_err(step())?;
    mount_move(".", "/").map_err(Failure::of("enter the root file system"))?;
    rustix::process::chroot(".").map_err(Failure::of("enter the root file system"))?;
    std::env::set_current_dir("/").map_err(step())?;
    for (kind, target, flags) in LATE {
        // On a scratch disk /tmp has its own place.
        if Path::new(target).is_dir() && !(scratch.is_some() && target == "/tmp") {
            mount_kind(kind, target, flags)?;
        }
    }
    Ok(())
}

/// A disk appears some time after its module.
fn await_device(device: &str) {
    let give_up = Instant::now() + PATIENCE;
    while !Path::new(device).exists() && Instant::now() < give_up {
        std::thread::sleep(RETRY);
    }
}
