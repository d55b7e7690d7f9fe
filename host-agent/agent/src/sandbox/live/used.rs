//! What invocations really used, and what sandboxes together are expected to.

use super::Sandbox;
use std::sync::Arc;

/// Mean and squared deviations of what invocations used, MiB (Welford's recurrence).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    count: u32,
    mean: f64,
    squares: f64,
}

impl Used {
    pub(super) fn record(&mut self, bytes: u64) {
        #[expect(clippy::cast_precision_loss, reason = "MiB of a sandbox are far below 2^52")]
        let mib = bytes.div_ceil(1 << 20) as f64;
        self.count = self.count.saturating_add(1);
        let off = mib - self.mean;
        self.mean += off / f64::from(self.count);
        self.squares += off * (mib - self.mean);
    }

    fn variance(self) -> f64 {
        if self.count < 2 { 0.0 } else { self.squares / f64::from(self.count - 1) }
    }
}

/// What these sandboxes together are expected to use, MiB, and one standard deviation of it: functions that have nothing
/// to do with each other do not peak together, so their variances add. One that has run nothing counts in full.
#[must_use]
pub fn together(sandboxes: &[Arc<Sandbox>]) -> (u64, u64) {
    let (mut mean, mut variance) = (0.0, 0.0);
    for sandbox in sandboxes {
        let used = sandbox.lock().used;
        mean += if used.count == 0 { f64::from(sandbox.about.memory_mib) } else { used.mean };
        variance += used.variance();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sums of MiB, not negative")]
    (mean.round() as u64, variance.sqrt().round() as u64)
}
