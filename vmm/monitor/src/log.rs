//! Lines for the operator on standard error, which is the log pipe.
//!
//! A pipe that nobody empties must not stop a VMM: a line that does not fit now is dropped.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt::Arguments;

/// Bytes that a pipe takes without blocking once it polls writable (PIPE_BUF).
const ATOMIC: usize = 4096;

/// Writes one line, whole or not at all.
pub fn line(text: Arguments<'_>) {
    let stderr = std::io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut fds, Some(&now)) != Ok(1) {
        return;
    }
    // Some of the text is a guest's: it must neither begin a line of its own nor talk to a terminal.
    let mut line = format!("warren-vmm: {text}").replace(char::is_control, " ");
    line.truncate(line.floor_char_boundary(ATOMIC - 1));
    line.push('\n');
    let _ = rustix::io::write(&stderr, line.as_bytes());
}

/// [`line()`] with `format!` arguments.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::log::line(format_args!($($argument)*)) };
}
