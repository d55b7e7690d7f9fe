//! Clocks from a tick counter: the host gives both clocks with each event, the counter carries them on.

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Binary places of a tick's nanoseconds: 2^-32 ns a tick is a microsecond in an hour.
const FRACTION: u32 = 32;

/// Both clocks of a sandbox. What it gives never goes backwards, except the wall clock when the host says that the
/// past must be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Nanoseconds of a tick, with [`FRACTION`] binary places: clocks are read often, and a division is slow.
    tick_ns: u64,
    base_ticks: u64,
    wall_ns: u64,
    monotonic_ns: u64,
    last_wall_ns: u64,
    last_monotonic_ns: u64,
}

impl Timeline {
    /// Clocks at 0 until the first [`Timeline::rebase`].
    #[must_use]
    pub const fn new(ticks_per_second: u64) -> Self {
        let ticks = if ticks_per_second == 0 { 1 } else { ticks_per_second };
        Self {
            tick_ns: (NANOS_PER_SECOND << FRACTION) / ticks,
            base_ticks: 0,
            wall_ns: 0,
            monotonic_ns: 0,
            last_wall_ns: 0,
            last_monotonic_ns: 0,
        }
    }

    /// Takes the host's clocks, read when the counter stood at `ticks`. Where they lie behind what was already given,
    /// the sandbox goes on from there; `forget` lets the wall clock go back.
    pub fn rebase(&mut self, ticks: u64, wall_ns: u64, monotonic_ns: u64, forget: bool) {
        self.base_ticks = ticks;
        self.wall_ns = if forget { wall_ns } else { wall_ns.max(self.last_wall_ns) };
        self.monotonic_ns = monotonic_ns.max(self.last_monotonic_ns);
        self.last_wall_ns = self.wall_ns;
        self.last_monotonic_ns = self.monotonic_ns;
    }

    /// Nanoseconds since the Unix epoch.
    pub fn wall_ns(&mut self, ticks: u64) -> u64 {
        self.last_wall_ns = self.last_wall_ns.max(self.wall_ns.saturating_add(self.elapsed_ns(ticks)));
        self.last_wall_ns
    }

    /// Monotonic nanoseconds.
    pub fn monotonic_ns(&mut self, ticks: u64) -> u64 {
        self.last_monotonic_ns =
            self.last_monotonic_ns.max(self.monotonic_ns.saturating_add(self.elapsed_ns(ticks)));
        self.last_monotonic_ns
    }

    fn elapsed_ns(&self, ticks: u64) -> u64 {
        let elapsed = u128::from(ticks.saturating_sub(self.base_ticks)) * u128::from(self.tick_ns);
        u64::try_from(elapsed >> FRACTION).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_become_nanoseconds() {
        let mut time = Timeline::new(2_000_000_000);
        time.rebase(1000, 5_000, 70, false);
        assert_eq!((time.wall_ns(1000), time.monotonic_ns(1000)), (5_000, 70));
        assert_eq!((time.wall_ns(3000), time.monotonic_ns(3000)), (6_000, 1_070));
        // Far beyond 64 bits of nanoseconds times ticks.
        assert_eq!(time.monotonic_ns(1000 + 2_000_000_000 * 3600), 3_600_000_000_070);
    }

    #[test]
    fn forgetting_lets_only_the_wall_clock_go_back() {
        let mut time = Timeline::new(1_000_000_000);
        time.rebase(0, 1000, 1000, false);
        time.rebase(0, 10, 10, true);
        assert_eq!((time.wall_ns(5), time.monotonic_ns(5)), (15, 1005));
    }

    proptest! {
        #[test]
        fn never_backwards(hz in any::<u64>(), steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 1..20)) {
            let mut time = Timeline::new(hz);
            let (mut wall, mut monotonic) = (0, 0);
            for (ticks, wall_ns, monotonic_ns) in steps {
                time.rebase(ticks, wall_ns, monotonic_ns, false);
                for ticks in [ticks, ticks.wrapping_add(1 << 30), ticks / 2] {
                    prop_assert!(time.wall_ns(ticks) >= wall);
                    prop_assert!(time.monotonic_ns(ticks) >= monotonic);
                    (wall, monotonic) = (time.wall_ns(ticks), time.monotonic_ns(ticks));
                }
            }
        }
    }
}
