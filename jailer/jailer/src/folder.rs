//! Folders of a request, each as a mount of its own: nothing leads up from it, whatever its holder may do.
//!
//! ```text
//! the request's folders ── in the namespace in which they are mounted: open_tree, cloned ── back ── read-only, nosuid ... ──▶ the jail
//! ```
//! A descriptor of a folder would lead to the whole file system above it, by `..`. A cloned mount that is attached nowhere has
//! its own root for an end. A mount is cloned where it is, so the jailer goes there, resolves no name, and comes back.

use crate::sys;
use rustix::{
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A mount for each folder, in order; `true`: it may be written. `theirs` is the mount namespace they are in, `own` the jailer's.
pub(crate) fn mount_alone(
    own: BorrowedFd<'_>,
    theirs: BorrowedFd<'_>,
    folders: &[(BorrowedFd<'_>, bool)],
) -> Result<Vec<OwnedFd>, Errno> {
    let enter = |namespace| move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount));
    enter(theirs)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let cloned: Result<Vec<OwnedFd>, Errno> =
        folders.iter().map(|(folder, _)| open_tree(folder, c"", flags)).collect();
    if enter(own).is_err() {
        // Somebody else's files are in reach: better no jailer. The next one finds the jails.
        sys::exit(1);
    }
    let cloned = cloned?;
    for (mount, (_, write)) in cloned.iter().zip(folders) {
        sys::narrow_mount(mount.as_fd(), *write)?;
    }
    Ok(cloned)
}
