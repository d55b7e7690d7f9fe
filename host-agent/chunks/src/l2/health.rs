//! Whether a peer is asked at all.
//!
//! ```text
//!        succeeded                      pause over
//!  well ◀───────── any state     avoided ────────▶ on trial (asked again; one failure is enough)
//!   │ FAILURES in a row (dead, late, outrun)  ▲             │ failed: twice the pause
//!   ╰─────────────────────────────────────────┴─────────────╯
//!   ╰─ lied once: the longest pause ──────────▲
//! ```
//! That a peer does not have an object is an answer, no failure. Time comes in as an argument.

use std::time::Duration;

/// Failures in a row before a peer is left alone.
const FAILURES: u32 = 3;
/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest, and that of one who lied.
pub const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What is known of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    failures: u32,
    pauses: u32,
    until: Option<Duration>,
}

impl Health {
    /// Whether to ask it now.
    #[must_use]
    pub fn may_be_asked(&self, now: Duration) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// It answered, and truly.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It did not answer, or too late.
    pub fn failed(&mut self, now: Duration) {
        // Answers to what was asked before the pause say nothing new.
        if !self.may_be_asked(now) {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES || self.pauses > 0 {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(8));
            self.pause(now, pause.min(LONGEST_PAUSE));
        }
    }

    /// It gave something else than it was asked for.
    pub fn lied(&mut self, now: Duration) {
        self.pause(now, LONGEST_PAUSE);
    }

    fn pause(&mut self, now: Duration, pause: Duration) {
        self.failures = 0;
        self.pauses = self.pauses.saturating_add(1);
        self.until = Some(now.saturating_add(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_lead_to_longer_and_longer_pauses() {
        let mut peer = Health::default();
        peer.failed(at(0));
        peer.failed(at(0));
        peer.succeeded();
        for _ in 0..3 {
            assert!(peer.may_be_asked(at(0)));
            peer.failed(at(0));
        }
        assert!(!peer.may_be_asked(at(0)) && peer.may_be_asked(at(1)));
        peer.failed(at(1));
        assert!(!peer.may_be_asked(at(2)) && peer.may_be_asked(at(3)));
        peer.succeeded();
        assert_eq!(peer, Health::default());
    }

    #[test]
    fn one_lie_is_enough() {
        let mut peer = Health::default();
        peer.lied(at(5));
        assert!(!peer.may_be_asked(at(64)) && peer.may_be_asked(at(65)));
    }

    proptest! {
        #[test]
        fn nobody_is_left_alone_for_ever(events in prop::collection::vec((0..3u8, 0..90u64), 0..60)) {
            let (mut peer, mut now) = (Health::default(), Duration::ZERO);
            for (event, later) in events {
                now += at(later);
                match event {
                    0 => peer.succeeded(),
                    1 => peer.failed(now),
                    _ => peer.lied(now),
                }
                prop_assert!(peer.may_be_asked(now + LONGEST_PAUSE));
            }
        }
    }
}
