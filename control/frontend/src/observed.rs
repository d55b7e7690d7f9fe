//! What a version was seen to need: memory really used, and how many ran at once, as policies ask for it.
//!
//! Counts of powers of two with four steps each, so a percentile is right to a fifth; no clock, no lock, and one addition
//! an observation. Old observations fade: when a count gets large, all are halved.

use std::sync::atomic::{AtomicU32, Ordering};

/// Steps of a power of two.
const STEPS: u32 = 4;
/// Values up to 2^16 - 1: MiB of memory, or sandboxes.
const BUCKETS: usize = 17 * STEPS as usize;
/// At so many observations of one value, all are halved.
const FADE_AT: u32 = 1 << 14;

/// A distribution of small numbers.
#[derive(Debug)]
pub(crate) struct Observed {
    counts: [AtomicU32; BUCKETS],
}

impl Default for Observed {
    fn default() -> Self {
        Self { counts: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

impl Observed {
    /// One more.
    pub(crate) fn record(&self, value: u32) {
        let Some(count) = self.counts.get(bucket(value)) else { return };
        if count.fetch_add(1, Ordering::Relaxed) >= FADE_AT {
            for count in &self.counts {
                // What is added meanwhile may be lost: these are statistics.
                count.store(count.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }

    /// The values that half, and 99 of a hundred, do not exceed; 0 if nothing was seen.
    pub(crate) fn p50_p99(&self) -> (u32, u32) {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed).into()).collect();
        let all: u64 = counts.iter().sum();
        let at = |share: u64| {
            let mut left = (all * share).div_ceil(100);
            let found = counts.iter().position(|count| {
                left = left.saturating_sub(*count);
                left == 0
            });
            found.map_or(0, highest)
        };
        if all == 0 { (0, 0) } else { (at(50), at(99)) }
    }
}

/// 0, 1, 2 and 3 have their own; from 4 on, four to a power of two.
fn bucket(value: u32) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let power = value.ilog2();
    let step = (value >> (power - 2)) & (STEPS - 1);
    (((power - 1) * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn highest(bucket: usize) -> u32 {
    let bucket = u32::try_from(bucket).unwrap_or(u32::MAX);
    if bucket < STEPS {
        return bucket;
    }
    let (power, step) = (bucket / STEPS + 1, bucket % STEPS);
    ((STEPS + step + 1) << (power - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_seen_is_nothing_known() {
        assert_eq!(Observed::default().p50_p99(), (0, 0));
    }

    #[test]
    fn it_follows_what_comes_later() {
        let observed = Observed::default();
        (0..100_000).for_each(|_| observed.record(10));
        (0..400_000).for_each(|_| observed.record(100));
        let (p50, p99) = observed.p50_p99();
        assert!((100..125).contains(&p50) && p99 == p50, "{p50} {p99}");
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_put_in_it(value in 0_u32..60_000) {
            let highest_here = highest(bucket(value));
            prop_assert!(highest_here >= value && highest_here <= value + value / 4, "{value} {highest_here}");
            prop_assert!(bucket(value) == 0 || highest(bucket(value) - 1) < value);
        }

        #[test]
        fn percentiles_are_right_to_a_fifth(mut values in proptest::collection::vec(0_u32..5_000, 1..200)) {
            let observed = Observed::default();
            for value in &values {
                observed.record(*value);
            }
            values.sort_unstable();
            let (p50, p99) = observed.p50_p99();
            for (share, said) in [(50, p50), (99, p99)] {
                let exact = values[(values.len() * share).div_ceil(100) - 1];
                prop_assert!(said >= exact && said <= exact + exact / 4, "{exact} {said}");
            }
        }
    }
}
