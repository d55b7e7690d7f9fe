//! The wall clock follows the host's.

use crate::clock::unix_ms;
use rustix::time::{ClockId, Timespec, clock_settime};

/// What the two may differ.
const TOLERANCE_MS: u64 = 500;

/// Sets it.
pub(crate) fn set(unix_ns: u64) {
    let (seconds, nanoseconds) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let time = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    // A kernel that refuses keeps its own; deadlines are counted on another clock.
    let _ = clock_settime(ClockId::Realtime, time);
}

/// Sets it if it is far from the host's: a guest that was held or restored has missed time.
pub(crate) fn follow(host_unix_ms: u64) {
    if host_unix_ms.abs_diff(unix_ms()) > TOLERANCE_MS {
        set(host_unix_ms.saturating_mul(1_000_000));
    }
}
