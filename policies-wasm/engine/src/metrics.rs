//! One policy's figures.

use crate::decided::{By, Decided, WhyNative};
use hdrhistogram::Histogram;

/// Counts and distributions since the process started; kept under the slot's lock.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) decisions: u64,
    pub(crate) traps: u64,
    pub(crate) timeouts: u64,
    pub(crate) out_of_fuel: u64,
    pub(crate) invalid: u64,
    pub(crate) unavailable: u64,
    pub(crate) instances: u64,
    took_ns: Histogram<u64>,
    fuel: Histogram<u64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            decisions: 0,
            traps: 0,
            timeouts: 0,
            out_of_fuel: 0,
            invalid: 0,
            unavailable: 0,
            instances: 0,
            took_ns: histogram(1_000_000_000),
            fuel: histogram(1_000_000_000),
        }
    }
}

/// Two significant digits up to `high`: some tens of KiB, and recording never fails or grows it.
fn histogram(high: u64) -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "the bounds are constants of this file, and valid")]
    Histogram::new_with_bounds(1, high, 2).expect("valid bounds")
}

impl Metrics {
    pub(crate) fn record<T>(&mut self, decided: &Decided<T>) {
        self.decisions += 1;
        self.took_ns.saturating_record(decided.took_ns);
        match decided.by {
            By::Wasm => self.fuel.saturating_record(decided.fuel),
            By::Native(why) => match why {
                WhyNative::NoPolicy | WhyNative::Compiling => {}
                WhyNative::Trap => self.traps += 1,
                WhyNative::Timeout => self.timeouts += 1,
                WhyNative::Fuel => self.out_of_fuel += 1,
                WhyNative::Invalid => self.invalid += 1,
                WhyNative::Rebuilding | WhyNative::Resting | WhyNative::NotLoaded => self.unavailable += 1,
            },
        }
    }

    pub(crate) fn fallbacks(&self) -> u64 {
        self.traps + self.timeouts + self.out_of_fuel + self.invalid + self.unavailable
    }

    /// 0 when nothing was recorded.
    pub(crate) fn took_ns(&self, quantile: f64) -> u64 {
        self.took_ns.value_at_quantile(quantile)
    }

    pub(crate) fn fuel(&self, quantile: f64) -> u64 {
        self.fuel.value_at_quantile(quantile)
    }
}
