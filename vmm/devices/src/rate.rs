//! Rate limits of a device: a bucket for bytes, one for operations, each refilled with time.
//!
//! Both must hold something for the next operation to begin. What it costs is known afterwards and may leave a bucket in
//! debt, so that no operation is too large to happen and the average holds all the same.

/// One bucket: full at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What it holds.
    pub burst: u64,
    /// What comes back a second.
    pub per_second: u64,
}

/// Limits of one direction of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub bytes: Option<Rate>,
    /// Operations: requests, frames.
    pub operations: Option<Rate>,
}

/// Two buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    rate: Rate,
    /// In billionths, so that no time is too short to count: below 0 is debt.
    level: i128,
    at_ns: u64,
}

const SECOND: i128 = 1_000_000_000;

impl Limiter {
    /// Full buckets at `now_ns`.
    #[must_use]
    pub fn new(limits: Limits, now_ns: u64) -> Self {
        let bucket = |rate: Rate| Bucket { rate, level: i128::from(rate.burst) * SECOND, at_ns: now_ns };
        Self { bytes: limits.bytes.map(bucket), operations: limits.operations.map(bucket) }
    }

    /// Whether an operation may begin at `now_ns`. If not, when to ask again.
    pub fn ready(&mut self, now_ns: u64) -> Result<(), u64> {
        let buckets = [&mut self.bytes, &mut self.operations];
        let latest = buckets.into_iter().flatten().filter_map(|bucket| bucket.ready(now_ns).err()).max();
        latest.map_or(Ok(()), Err)
    }

    /// One operation was made, of so many bytes.
    pub fn charge(&mut self, bytes: u64) {
        for (bucket, cost) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.level = bucket.level.saturating_sub(i128::from(cost) * SECOND);
            }
        }
    }
}

impl Bucket {
    fn ready(&mut self, now_ns: u64) -> Result<(), u64> {
        // A clock that stands or runs backwards gives nothing.
        let passed = i128::from(now_ns.saturating_sub(self.at_ns));
        self.at_ns = self.at_ns.max(now_ns);
        let full = i128::from(self.rate.burst) * SECOND;
        self.level = self.level.saturating_add(passed.saturating_mul(self.rate.per_second.into())).min(full);
        // A whole unit, so that waiting for it ends.
        let missing = SECOND.saturating_sub(self.level);
        if missing <= 0 {
            return Ok(());
        }
        let wait = missing / i128::from(self.rate.per_second.max(1)) + 1;
        Err(self.at_ns.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn limits(burst: u64, per_second: u64) -> Limits {
        Limits { bytes: Some(Rate { burst, per_second }), operations: None }
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut limiter = Limiter::new(limits(1000, 100), 0);
        assert_eq!(limiter.ready(0), Ok(()));
        limiter.charge(1000);
        let later = limiter.ready(0).unwrap_err();
        assert_eq!(later, 10_000_001, "the hundredth of a second that one byte takes");
        assert!(limiter.ready(9_999_999).is_err());
        assert_eq!(limiter.ready(later), Ok(()));
        // Debt: what was too much is waited for afterwards.
        limiter.charge(201);
        assert!(limiter.ready(later).unwrap_err() >= 2_000_000_000);
        assert_eq!(limiter.ready(u64::MAX), Ok(()), "and time forgives, up to the burst");
        limiter.charge(1000);
        assert!(limiter.ready(u64::MAX).is_err());
    }

    #[test]
    fn the_slower_bucket_counts_and_none_is_no_limit() {
        let rate = |per_second| Some(Rate { burst: 1, per_second });
        let mut limiter = Limiter::new(Limits { bytes: rate(10), operations: rate(2) }, 0);
        limiter.charge(1);
        assert_eq!(limiter.ready(0), Err(500_000_001));
        let mut free = Limiter::default();
        free.charge(u64::MAX);
        assert_eq!(free.ready(0), Ok(()));
    }

    proptest! {
        /// Whoever asks as told never moves more than burst, rate and one operation allow, and is never stuck.
        #[test]
        fn the_average_holds(
            burst in 1_u64..10_000,
            per_second in 1_u64..1_000_000_000,
            operations in 1_u64..1000,
            start in 0_u64..1 << 60,
            steps in prop::collection::vec((0_u64..100_000, 0_u64..2_000_000_000), 1..100),
        ) {
            let mut limits = limits(burst, per_second);
            limits.operations = Some(Rate { burst: operations, per_second: 1000 });
            let mut limiter = Limiter::new(limits, start);
            let (mut now, mut moved, mut made, mut largest) = (start, 0_u128, 0_u128, 0_u128);
            for (bytes, pause) in steps {
                now += pause;
                if let Err(later) = limiter.ready(now) {
                    prop_assert!(later > now);
                    now = later;
                    prop_assert_eq!(limiter.ready(now), Ok(()), "asked when told");
                }
                limiter.charge(bytes);
                moved += u128::from(bytes);
                made += 1;
                largest = largest.max(bytes.into());
                let passed = u128::from(now - start);
                let back = |rate: u64| passed * u128::from(rate) / 1_000_000_000;
                prop_assert!(moved <= u128::from(burst) + back(per_second) + largest);
                prop_assert!(made <= u128::from(operations) + back(1000) + 1);
            }
        }

        #[test]
        fn any_numbers_are_numbers(
            rates in prop::collection::vec(any::<(u64, u64)>(), 2),
            steps in prop::collection::vec(any::<(u64, u64)>(), 0..50),
        ) {
            let rates: Vec<Rate> = rates.into_iter().map(|(burst, per_second)| Rate { burst, per_second }).collect();
            let limits = Limits { bytes: Some(rates[0]), operations: Some(rates[1]) };
            let mut limiter = Limiter::new(limits, 0);
            for (now, bytes) in steps {
                let _ = limiter.ready(now);
                limiter.charge(bytes);
            }
        }
    }
}
