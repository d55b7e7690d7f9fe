//! Identity: the uid and gid of the slot and no other.

use rustix::{
    io::Errno,
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

pub(super) fn become_user(id: u32) -> Result<(), Errno> {
    set_thread_groups(&[])?;
    let gid = Gid::from_raw(id);
    set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(id);
    set_thread_res_uid(uid, uid, uid)
}
