//! When to try again: a bounded number of times, each after a random part of a pause that doubles.
//!
//! The random part is all of it ("full jitter"), so that those who failed together do not come back together.

use std::time::Duration;

/// How often and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, at least one.
    pub tries: u32,
    /// The longest pause after the first.
    pub first: Duration,
    /// The longest pause there is.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries: 4, first: Duration::from_millis(50), longest: Duration::from_secs(2) }
    }
}

impl Retry {
    /// The pause after so many failures, of 0..=`u32::MAX` drawn; `None` if that was the last try.
    #[must_use]
    pub fn pause(&self, failures: u32, drawn: u32) -> Option<Duration> {
        if failures >= self.tries {
            return None;
        }
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let most = self.first.saturating_mul(doubled).min(self.longest);
        Some(most.mul_f64(f64::from(drawn) / f64::from(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_end() {
        let retry = Retry { tries: 6, first: Duration::from_millis(50), longest: Duration::from_millis(300) };
        let longest: Vec<_> = (1..7).map(|failures| retry.pause(failures, u32::MAX)).collect();
        let millis = [50, 100, 200, 300, 300].map(|millis| Some(Duration::from_millis(millis)));
        assert_eq!(longest, [&millis[..], &[None]].concat());
        assert_eq!(retry.pause(1, 0), Some(Duration::ZERO));
        assert!(retry.pause(2, u32::MAX / 2).unwrap() < Duration::from_millis(51));
        let forever = Retry { tries: u32::MAX, ..retry };
        assert_eq!(forever.pause(4_000_000, u32::MAX), Some(retry.longest));
    }
}
