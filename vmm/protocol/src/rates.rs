//! How fast an operator lets the devices of each Linux sandbox be, as he writes it.
//!
//! Holding one of the numbers proves that it is within its bounds: below the least a guest does not boot within its patience, above
//! the most there is no card or disk to hold back.

use crate::linux::{Limits, Rate};
use alloc::string::String;
use core::{fmt, str::FromStr};

/// A number out of its bounds, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    given: String,
    unit: &'static str,
    least: u32,
    most: u32,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { given, unit, least, most } = self;
        write!(
            f,
            "{given:?} is not a whole number of {least} to {most} {unit}; without the option there is no limit"
        )
    }
}

impl core::error::Error for OutOfBounds {}

/// A number of a setting, with its unit and its bounds.
macro_rules! setting {
    ($(#[$doc:meta])* $name:ident, $unit:literal, $least:literal..=$most:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(u32);

        impl $name {
            /// The number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = OutOfBounds;

            fn from_str(text: &str) -> Result<Self, OutOfBounds> {
                match text.parse() {
                    Ok(number @ $least..=$most) => Ok(Self(number)),
                    _ => Err(OutOfBounds { given: text.into(), unit: $unit, least: $least, most: $most }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

setting! {
    /// What a network card carries each way, Mbit/s.
    NetworkMbit, "Mbit/s", 1..=1_000_000
}
setting! {
    /// What is read from and written to a disk together, MiB/s.
    DiskMib, "MiB/s", 8..=1_000_000
}
setting! {
    /// Requests of a disk a second.
    DiskIops, "requests a second", 100..=10_000_000
}

/// All of them; what is not there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of the network card.
    pub network: Option<NetworkMbit>,
    /// Of each disk.
    pub disk: Option<DiskMib>,
    /// The same.
    pub disk_requests: Option<DiskIops>,
}

impl Rates {
    /// A card's limits, each way: a tenth of a second's worth at once, at least a few large frames.
    #[must_use]
    pub fn network(&self) -> Limits {
        let rate = |mbit: NetworkMbit| {
            let per_second = u64::from(mbit.get()) * 125_000;
            Rate { burst: (per_second / 10).max(256 << 10), per_second }
        };
        Limits { bytes: self.network.map(rate), operations: None }
    }

    /// A disk's limits: a second's worth at once, so that a start, which reads much and then little, is held up little.
    #[must_use]
    pub fn disk(&self) -> Limits {
        let rate = |per_second| Rate { burst: per_second, per_second };
        Limits {
            bytes: self.disk.map(|mib| rate(u64::from(mib.get()) << 20)),
            operations: self.disk_requests.map(|number| rate(number.get().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[track_caller]
    fn check<T: FromStr<Err = OutOfBounds>>(get: fn(T) -> u32, least: u32, most: u32) {
        for inside in [least, most] {
            assert_eq!(inside.to_string().parse().map(get), Ok(inside));
        }
        let outside =
            [(least - 1).to_string(), (most + 1).to_string(), "-8".into(), "8.5".into(), "much".into()];
        for text in outside.iter().map(String::as_str).chain(["", " 9", "99999999999999999999"]) {
            let said = text.parse().map(get).unwrap_err().to_string();
            assert!(
                said.contains(&alloc::format!("{text:?} is not a whole number of {least} to {most}")),
                "{said}"
            );
        }
    }

    #[test]
    fn settings_are_within_their_bounds() {
        check(NetworkMbit::get, 1, 1_000_000);
        check(DiskMib::get, 8, 1_000_000);
        check(DiskIops::get, 100, 10_000_000);
    }

    #[test]
    fn a_setting_is_a_limit_and_none_is_none() {
        let none = Rates::default();
        assert_eq!((none.network(), none.disk()), Default::default());
        let rates = Rates {
            network: Some(NetworkMbit(8)),
            disk: Some(DiskMib(8)),
            disk_requests: Some(DiskIops(500)),
        };
        let rate = |burst, per_second| Some(Rate { burst, per_second });
        assert_eq!(rates.network(), Limits { bytes: rate(256 << 10, 1_000_000), operations: None });
        assert_eq!(rates.disk(), Limits { bytes: rate(8 << 20, 8 << 20), operations: rate(500, 500) });
        let fast = Rates { network: Some(NetworkMbit(10_000)), ..none };
        assert_eq!(fast.network().bytes, rate(125_000_000, 1_250_000_000));
        let most = Rates {
            network: Some(NetworkMbit(1_000_000)),
            disk: Some(DiskMib(1_000_000)),
            disk_requests: Some(DiskIops(10_000_000)),
        };
        let each = [most.network().bytes, most.disk().bytes, most.disk().operations];
        assert!(each.into_iter().flatten().all(|rate| rate.burst > 0 && rate.per_second > 0));
    }
}
