//! The jailer's own confinement, and at once the template of every jail's root.
//!
//! Once everything it needs is open, the jailer moves into a network namespace with nothing in it and a mount
//! namespace whose only mount is an empty read-only tmpfs. From then on it reaches the host through the descriptors
//! it kept (cgroup directories, /proc, its state directory) and through nothing else. A jail's mount namespace is a
//! copy of that single mount, so making one costs the same however many mounts the host has, and its network
//! namespace is the jailer's, inherited: there is no other to fall back into.

use rustix::{
    fs::Mode,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{chdir, pivot_root},
    thread::UnshareFlags,
};
use std::path::Path;

/// One inode (the root directory itself), one page.
const ROOT_OPTIONS: &std::ffi::CStr = c"size=4k,nr_inodes=1,mode=0555";

/// Why the jailer could not confine itself: the host's fault.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub(crate) struct ConfineError {
    what: &'static str,
    source: rustix::io::Errno,
}

/// Enters the empty root and network. `over` is any directory: the new root is mounted on it for a moment, in the
/// new namespace only.
pub(crate) fn confine(over: &Path) -> Result<(), ConfineError> {
    let step = |what| move |source| ConfineError { what, source };
    crate::sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET)
        .map_err(step("enter a mount and a network namespace of its own"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(step("make mount propagation private"))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", over, "tmpfs", flags, ROOT_OPTIONS).map_err(step("mount an empty root"))?;
    chdir(over).map_err(step("enter the empty root"))?;
    // The old root ends up on top of the new one and is taken off at once: no directory is needed for it.
    pivot_root(".", ".").map_err(step("pivot into the empty root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(step("take the old root off"))?;
    chdir("/").map_err(step("enter the empty root"))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    Ok(())
}
