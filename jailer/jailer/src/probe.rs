//! What the host offers, found by trying.

use crate::{cgroup::write_file, ready::reap_quietly, sys};
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    process::Uid,
};
use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};
use warren_sandbox_plan::facts::Availability;

/// Highest capability number of this kernel.
pub(crate) fn last_capability() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    // A kernel that does not say: all numbers that can exist; dropping one that does not would fail, so the plan
    // would say so loudly.
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(40)
}

/// Whether a child can be given a user namespace in which `id` alone is mapped, and can become it.
pub(crate) fn user_namespace(processes: &OwnedFd, id: u32) -> Availability {
    match try_user_namespace(processes, id) {
        Ok(()) => Availability::Yes,
        Err((what, errno)) => Availability::No(format!("{what}: {}", std::io::Error::from(errno))),
    }
}

fn try_user_namespace(processes: &OwnedFd, id: u32) -> Result<(), (&'static str, Errno)> {
    let at = |what| move |errno| (what, errno);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(at("socketpair"))?;
    let (ours_raw, theirs_raw) = (ours.as_raw_fd(), theirs.as_raw_fd());
    let flags = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    let (pid, pidfd) = sys::clone_child(flags, None, || {
        sys::close(ours_raw);
        let mut go = [0_u8; 1];
        let uid = Uid::from_raw(id);
        if matches!(sys::read(theirs_raw, &mut go), Ok(1))
            && rustix::thread::set_thread_res_uid(uid, uid, uid).is_ok()
        {
            sys::write(theirs_raw, b"y");
        }
    })
    .map_err(at("clone3(CLONE_NEWUSER)"))?;
    drop(theirs);
    let result = write_file(processes.as_fd(), &format!("{pid}/uid_map"), &format!("{id} {id} 1"))
        .map_err(at("writing uid_map"))
        .and_then(|()| send(&ours, b"g", SendFlags::NOSIGNAL).map_err(at("waking the child")))
        .and_then(|_| match recv(&ours, &mut [0_u8; 1], RecvFlags::empty()) {
            Ok((1, _)) => Ok(()),
            _ => Err(("setresuid in the namespace", Errno::PERM)),
        });
    drop(ours);
    reap_quietly(pidfd.as_fd());
    result
}
