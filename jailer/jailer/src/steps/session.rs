//! Session: nothing of the jailer's terminal, signals or habits reaches the jail.

use crate::sys;
use rustix::{
    fs::Mode,
    io::Errno,
    process::{set_parent_process_death_signal, setsid, umask},
};

pub(super) fn begin() -> Result<(), Errno> {
    // Ctrl-C goes to the foreground process group: a jail is in none.
    setsid()?;
    sys::default_signals()?;
    sys::default_personality()?;
    umask(Mode::RWXG | Mode::RWXO);
    set_parent_process_death_signal(None)
}
