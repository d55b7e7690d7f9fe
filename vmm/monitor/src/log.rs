//! Lines for the operator on standard error, which is the log pipe.
//!
//! A pipe that nobody empties must not stop a VMM: a line that does not fit now is dropped.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt::Arguments;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a pipe takes without blocking once it polls writable (PIPE_BUF).
const ATOMIC: usize = 4096;

/// Writes one line, whole or not at all.
pub fn line(text: Arguments<'_>) {
    #[cfg(test)]
    if !tests::is_shown() {
        return;
    }
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

/// Counts what a guest can bring about as often as it likes, so that the log hears of it ever more seldom.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Once more: how often by now, if that is to be said (the first time, and whenever it has doubled).
    pub fn count(&self) -> Option<u64> {
        let times = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        times.is_power_of_two().then_some(times)
    }
}

/// [`line()`] with `format!` arguments.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::log::line(format_args!($($argument)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many lines: a model makes devices by the hundred thousand, and each says something.
    const SHOWN: u64 = 1000;

    /// Whether the next line is shown.
    pub(super) fn is_shown() -> bool {
        static SAID: AtomicU64 = AtomicU64::new(0);
        SAID.fetch_add(1, Ordering::Relaxed) < SHOWN
    }

    #[test]
    fn what_comes_often_is_said_seldom() {
        let seldom = Seldom::default();
        let said: Vec<u64> = (0..1000).filter_map(|_| seldom.count()).collect();
        assert_eq!(said, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }
}
