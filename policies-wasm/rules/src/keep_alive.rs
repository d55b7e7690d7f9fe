//! How long to keep a function's idle sandboxes: a hybrid histogram of the times between its invocations.
//!
//! Minutes between two invocations are counted in bins of one minute up to four hours. With enough of them in a few
//! bins (the histogram is *representative*), sandboxes are kept until the 99th percentile; and if even the 5th is
//! minutes away they may be let go at once and one be started shortly before it. Else, a fixed window. A tenth is
//! added on the late side and taken off on the early one, since the next gap need not repeat the last ones.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// Longer gaps are counted, but in no bin.
const BINS: usize = 240;
const BIN_MS: u64 = 60_000;
/// Counts are halved when one reaches this, so that old habits fade.
const COUNT_LIMIT: u16 = 4096;
/// With fewer gaps than this there is no pattern to speak of.
const ENOUGH: u32 = 10;
/// What everybody gets until then.
const STANDARD_MS: u32 = 600_000;
/// More functions than this in one generation start a new one; see [`Histories`].
const GENERATION: usize = 2048;

/// For how long to keep an idle sandbox, and when to start one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Keep an idle sandbox so long (after pre-warming, if there is any).
    pub keep_alive_ms: u32,
    /// 0: keep sandboxes from their last use on. Else let them go, and start one so long after that use.
    pub pre_warm_ms: u32,
}

impl Windows {
    /// For functions without a pattern.
    pub const STANDARD: Self = Self { keep_alive_ms: STANDARD_MS, pre_warm_ms: 0 };
}

/// One function's gaps between invocations.
#[derive(Debug, Clone)]
pub struct History {
    last_ms: Option<u64>,
    bins: Box<[u16; BINS]>,
    in_bins: u32,
    beyond: u32,
    windows: Windows,
    /// Gaps since `windows` was computed; it is not computed at every gap.
    stale: u32,
}

impl Default for History {
    fn default() -> Self {
        Self {
            last_ms: None,
            bins: Box::new([0; BINS]),
            in_bins: 0,
            beyond: 0,
            windows: Windows::STANDARD,
            stale: 0,
        }
    }
}

impl History {
    /// Counts an invocation and says for how long to keep the sandbox.
    pub fn observe(&mut self, now_ms: u64) -> Windows {
        let last = self.last_ms.replace(now_ms.max(self.last_ms.unwrap_or(0)));
        if let Some(last) = last {
            self.count(now_ms.saturating_sub(last));
            // A sixteenth more evidence is worth a new look; that keeps the look's cost off most invocations.
            self.stale += 1;
            if self.stale * 16 >= self.in_bins + self.beyond {
                self.stale = 0;
                self.windows = self.compute();
            }
        }
        self.windows
    }

    fn count(&mut self, gap_ms: u64) {
        let bin = usize::try_from(gap_ms / BIN_MS).unwrap_or(usize::MAX);
        let Some(count) = self.bins.get_mut(bin) else {
            self.beyond = self.beyond.saturating_add(1);
            return;
        };
        *count += 1;
        self.in_bins += 1;
        if *count >= COUNT_LIMIT {
            self.fade();
        }
    }

    fn fade(&mut self) {
        self.in_bins = 0;
        for count in self.bins.iter_mut() {
            *count /= 2;
            self.in_bins += u32::from(*count);
        }
        self.beyond /= 2;
    }

    fn compute(&self) -> Windows {
        if self.in_bins < ENOUGH || self.beyond > self.in_bins || !self.is_representative() {
            return Windows::STANDARD;
        }
        let head = self.percentile(5);
        let tail = self.percentile(99) + 1;
        let early = minutes(head) / 10 * 9;
        let late = minutes(tail) / 10 * 11;
        // A head in the first minute means: no time to let go and start again.
        if head == 0 {
            return Windows { keep_alive_ms: late, pre_warm_ms: 0 };
        }
        Windows { keep_alive_ms: late - early, pre_warm_ms: early }
    }

    /// Whether the counts differ enough between bins (coefficient of variation at least 2) to be a pattern.
    fn is_representative(&self) -> bool {
        let sum = u64::from(self.in_bins);
        let squares: u64 = self.bins.iter().map(|count| u64::from(*count).pow(2)).sum();
        // variance / mean^2 = n * squares / sum^2 - 1 >= 4
        (BINS as u64) * squares >= 5 * sum * sum
    }

    /// The bin in which that share of the gaps is reached.
    fn percentile(&self, percent: u32) -> u32 {
        let wanted = (u64::from(self.in_bins) * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let reached = self.bins.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        reached.and_then(|bin| u32::try_from(bin).ok()).unwrap_or(0)
    }
}

fn minutes(bins: u32) -> u32 {
    bins * 60_000
}

/// The histories of the functions seen lately: two generations, so that a flood of functions forgets the ones not
/// seen for longest without ever looking through them all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histories {
    young: BTreeMap<u64, History>,
    old: BTreeMap<u64, History>,
}

impl Histories {
    pub(crate) fn observe(&mut self, function: u64, now_ms: u64) -> Windows {
        if let Some(history) = self.young.get_mut(&function) {
            return history.observe(now_ms);
        }
        let mut history = self.old.remove(&function).unwrap_or_default();
        let windows = history.observe(now_ms);
        if self.young.len() >= GENERATION {
            self.old = core::mem::take(&mut self.young);
        }
        self.young.insert(function, history);
        windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The windows after that many invocations, so many seconds apart.
    fn windows(gaps_s: impl IntoIterator<Item = u64>) -> Windows {
        let mut history = History::default();
        let mut now_ms = 1_000_000;
        let mut last = history.observe(now_ms);
        for gap in gaps_s {
            now_ms += gap * 1000;
            last = history.observe(now_ms);
        }
        last
    }

    #[test]
    fn without_a_pattern_the_standard_window() {
        assert_eq!(windows([]), Windows::STANDARD);
        assert_eq!(windows([30; 9]), Windows::STANDARD, "too few");
        assert_eq!(windows((0..240).map(|minute| minute * 60)), Windows::STANDARD, "anything goes");
        assert_eq!(windows([20_000; 50]), Windows::STANDARD, "longer than anything counted");
    }

    #[test]
    fn a_busy_function_is_kept_for_a_minute_and_a_tenth() {
        assert_eq!(windows([1; 500]), Windows { keep_alive_ms: 66_000, pre_warm_ms: 0 });
    }

    #[test]
    fn a_function_of_every_half_hour_is_let_go_and_started_shortly_before() {
        // Bin 30: let go, start again after 27 minutes, keep until minute 34.1.
        let expected = Windows { keep_alive_ms: 426_000, pre_warm_ms: 1_620_000 };
        assert_eq!(windows([1800; 100]), expected);
    }

    #[test]
    fn habits_fade() {
        let busy = core::iter::repeat_n(1, 20_000);
        let slow = core::iter::repeat_n(1800, 9_000);
        assert!(windows(busy.chain(slow)).keep_alive_ms > 30 * 60_000);
    }

    #[test]
    fn a_flood_of_functions_forgets_the_ones_not_seen_for_longest() {
        let mut histories = Histories::default();
        let regular = |histories: &mut Histories, now_ms| histories.observe(7, now_ms);
        for step in 0..100 {
            regular(&mut histories, step * 1000);
        }
        let known = regular(&mut histories, 100_000);
        assert_ne!(known, Windows::STANDARD);
        for function in 100..100 + 2 * GENERATION as u64 {
            histories.observe(function, 100_000);
            if function.is_multiple_of(1000) {
                assert_eq!(regular(&mut histories, 100_500), known, "seen lately, kept");
            }
        }
        for function in 10_000..10_000 + 3 * GENERATION as u64 {
            histories.observe(function, 100_000);
        }
        assert_eq!(regular(&mut histories, 101_000), Windows::STANDARD, "forgotten");
        assert!(histories.young.len() <= GENERATION && histories.old.len() <= GENERATION);
    }

    proptest! {
        /// Whatever the clock does, windows stay within bounds and counts within theirs.
        #[test]
        fn bounded(times in proptest::collection::vec(any::<u64>(), 0..300)) {
            let mut history = History::default();
            for now_ms in times {
                let windows = history.observe(now_ms);
                prop_assert!(windows.keep_alive_ms <= 5 * 60 * 60 * 1000);
                prop_assert!(windows.pre_warm_ms <= 4 * 60 * 60 * 1000);
                let sum: u32 = history.bins.iter().map(|count| u32::from(*count)).sum();
                prop_assert_eq!(sum, history.in_bins);
            }
        }
    }
}
