//! Samples and what is said of them.

use std::time::Duration;

/// Durations of one kind of run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<u64>);

impl Samples {
    /// None.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one.
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The nearest-rank percentile in nanoseconds; 0 without samples.
    pub(crate) fn percentile_ns(&self, percent: usize) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied().unwrap_or(0)
    }

    /// The median in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people: 52 bits of nanoseconds are 52 days")]
    pub(crate) fn p50_us(&self) -> f64 {
        self.percentile_ns(50) as f64 / 1e3
    }

    /// The 99th percentile in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people: 52 bits of nanoseconds are 52 days")]
    pub(crate) fn p99_us(&self) -> f64 {
        self.percentile_ns(99) as f64 / 1e3
    }
}

impl Extend<Duration> for Samples {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, iter: T) {
        iter.into_iter().for_each(|took| self.push(took));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile_ns(50), 0);
        samples.extend((1..=100).rev().map(Duration::from_nanos));
        assert_eq!([1, 50, 99, 100].map(|p| samples.percentile_ns(p)), [1, 50, 99, 100]);
        assert_eq!(samples.len(), 100);
    }
}
