//! Root: the child's mount namespace is a copy of the jailer's, whose one mount is an empty read-only tmpfs.

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
    mount::{MountPropagationFlags, mount_change},
    process::chdir,
};

pub(super) fn enter() -> Result<(), Errno> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    chdir("/")?;
    let wanted = StatVfsMountFlags::RDONLY
        | StatVfsMountFlags::NOSUID
        | StatVfsMountFlags::NODEV
        | StatVfsMountFlags::NOEXEC;
    if statvfs("/")?.f_flag.contains(wanted) { Ok(()) } else { Err(Errno::ROFS) }
}
