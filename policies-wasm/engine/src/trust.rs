//! How far a policy is trusted: pure arithmetic on its failures, with the time given.
//!
//! Each failure is sixteen strikes, each decision well made takes one away: a policy that fails more often than
//! once in sixteen decisions collects strikes. At [`ENOUGH`] it rests, the first time for a second, doubling each
//! time up to a minute. After a rest it is on probation: one more failure and it rests again.

use std::time::Duration;

const STRIKES_A_FAILURE: u32 = 16;
const ENOUGH: u32 = 64;
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_mins(1);

/// A policy's record. `now` is always the time since some fixed moment, and never goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trust {
    strikes: u32,
    next_rest: Duration,
    resting_until: Option<Duration>,
}

impl Default for Trust {
    fn default() -> Self {
        Self { strikes: 0, next_rest: FIRST_REST, resting_until: None }
    }
}

impl Trust {
    /// It decided well.
    pub(crate) fn succeeded(&mut self) {
        self.strikes = self.strikes.saturating_sub(1);
        if self.strikes == 0 {
            self.next_rest = FIRST_REST;
        }
    }

    /// It failed; true: it rests from now on.
    pub(crate) fn failed(&mut self, now: Duration) -> bool {
        self.strikes += STRIKES_A_FAILURE;
        if self.strikes < ENOUGH {
            return false;
        }
        self.strikes = ENOUGH - STRIKES_A_FAILURE;
        self.resting_until = Some(now.saturating_add(self.next_rest));
        self.next_rest = (self.next_rest * 2).min(LONGEST_REST);
        true
    }

    /// Whether it rests.
    pub(crate) fn rests(&self) -> bool {
        self.resting_until.is_some()
    }

    /// Ends the rest when its time is over; true exactly then.
    pub(crate) fn wake(&mut self, now: Duration) -> bool {
        let over = self.resting_until.is_some_and(|until| now >= until);
        if over {
            self.resting_until = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn four_failures_in_a_row_rest_and_each_rest_is_longer_up_to_a_minute() {
        let mut trust = Trust::default();
        let mut now = Duration::ZERO;
        assert_eq!([0; 3].map(|_| trust.failed(now)), [false; 3]);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(trust.failed(now), "on probation one failure is enough");
            let until = now + Duration::from_secs(seconds);
            assert!(!trust.wake(now + Duration::from_millis(seconds * 1000 - 1)));
            assert!(trust.rests());
            assert!(trust.wake(until));
            assert!(!trust.rests());
            now = until;
        }
    }

    #[test]
    fn good_decisions_win_trust_back() {
        let mut trust = Trust::default();
        for _ in 0..4 {
            trust.failed(Duration::ZERO);
        }
        assert!(trust.wake(FIRST_REST));
        for _ in 0..ENOUGH {
            trust.succeeded();
        }
        assert_eq!(trust, Trust::default());
    }

    proptest! {
        #[test]
        fn one_failure_in_seventeen_never_rests(rounds in 1..200usize) {
            let mut trust = Trust::default();
            for _ in 0..rounds {
                prop_assert!(!trust.failed(Duration::ZERO));
                for _ in 0..STRIKES_A_FAILURE {
                    trust.succeeded();
                }
            }
        }

        #[test]
        fn strikes_are_bounded(outcomes in proptest::collection::vec(any::<bool>(), 0..500)) {
            let mut trust = Trust::default();
            for good in outcomes {
                if good { trust.succeeded() } else { trust.failed(Duration::ZERO); }
                prop_assert!(trust.strikes < ENOUGH);
            }
        }
    }
}
