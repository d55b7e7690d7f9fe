//! What is left to do about namespaces once the child is in them.

use crate::sys;
use rustix::{
    io::Errno,
    system::{setdomainname, sethostname},
    thread::UnshareFlags,
};

/// The root of the new namespace is the group the child is in at this moment, hence not by clone3.
pub(super) fn enter_cgroup_namespace() -> Result<(), Errno> {
    sys::unshare(UnshareFlags::NEWCGROUP)
}

/// A new uts namespace starts with the host's names.
pub(super) fn set_hostname(name: &str) -> Result<(), Errno> {
    sethostname(name.as_bytes())?;
    setdomainname(b"")
}
