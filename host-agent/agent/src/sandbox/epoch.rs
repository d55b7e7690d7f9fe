//! The fence of epochs: a command of an older epoch than one already seen is refused.
//!
//! Control raises the floor of everything when an agent registers, a partition's own epoch with each command, and the
//! epoch of concurrency grants with each invocation. Pure; [`super::kept`] keeps it over restarts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most partitions with an epoch above the floor; every registration clears them.
const MAX_PARTITIONS: usize = 96;

/// A command came from a leader that was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a command of epoch {offered} for partition {partition}, which is at epoch {current}")]
pub struct Stale {
    /// The partition.
    pub partition: u32,
    /// What the command carried.
    pub offered: u64,
    /// What the worker knows.
    pub current: u64,
}

/// The newest epochs seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochFence {
    floor: u64,
    grants: u64,
    partitions: BTreeMap<u32, u64>,
}

impl EpochFence {
    /// From a registration: everything older is over, in every partition and for every grant.
    pub fn raise_floor(&mut self, epoch: u64) {
        self.floor = self.floor.max(epoch);
        let floor = self.floor;
        self.partitions.retain(|_, seen| *seen > floor);
    }

    /// From an invocation under a grant of this epoch: older grants are over.
    pub fn raise_grants(&mut self, epoch: u64) {
        self.grants = self.grants.max(epoch);
    }

    /// What every registration has raised it to.
    #[must_use]
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// The oldest epoch whose grants still let an execution in.
    #[must_use]
    pub fn grants(&self) -> u64 {
        self.grants.max(self.floor)
    }

    /// The newest epoch of a partition.
    #[must_use]
    pub fn current(&self, partition: u32) -> u64 {
        self.partitions.get(&partition).copied().unwrap_or(0).max(self.floor)
    }

    /// Lets a command of this or a newer epoch through and remembers it.
    pub fn admit(&mut self, partition: u32, epoch: u64) -> Result<(), Stale> {
        let current = self.current(partition);
        if epoch < current {
            return Err(Stale { partition, offered: epoch, current });
        }
        if epoch > current {
            // What is kept must fit its place in the file: beyond that, partitions share a floor.
            if self.partitions.len() >= MAX_PARTITIONS && !self.partitions.contains_key(&partition) {
                self.raise_floor(epoch);
            } else {
                self.partitions.insert(partition, epoch);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        let mut fence = EpochFence::default();
        assert_eq!(fence.admit(1, 0), Ok(()));
        assert_eq!(fence.admit(1, 5), Ok(()));
        assert_eq!(fence.admit(1, 4), Err(Stale { partition: 1, offered: 4, current: 5 }));
        assert_eq!(fence.admit(2, 4), Ok(()));
        fence.raise_floor(6);
        assert_eq!(fence.admit(1, 5), Err(Stale { partition: 1, offered: 5, current: 6 }));
        assert_eq!(fence.admit(9, 6), Ok(()));
        fence.raise_floor(3);
        assert_eq!(fence.current(1), 6);
    }

    #[test]
    fn grants_follow_the_floor_and_their_own_epoch() {
        let mut fence = EpochFence::default();
        fence.raise_floor(4);
        assert_eq!(fence.grants(), 4);
        fence.raise_grants(6);
        assert_eq!((fence.grants(), fence.floor(), fence.current(1)), (6, 4, 4));
        fence.raise_grants(5);
        fence.raise_floor(5);
        assert_eq!(fence.grants(), 6);
    }

    #[test]
    fn partitions_are_bounded() {
        let mut fence = EpochFence::default();
        for partition in 0..1000 {
            fence.admit(partition, 7).unwrap();
        }
        assert!(fence.partitions.len() <= MAX_PARTITIONS);
        for partition in 0..1000 {
            assert_eq!(fence.current(partition), 7);
        }
    }

    proptest! {
        #[test]
        fn never_goes_back(steps in proptest::collection::vec((0_u32..3, 0_u64..20, proptest::bool::ANY), 0..50)) {
            let mut fence = EpochFence::default();
            let mut newest = [0_u64; 3];
            for (partition, epoch, registers) in steps {
                if registers {
                    fence.raise_floor(epoch);
                    for seen in &mut newest {
                        *seen = (*seen).max(epoch);
                    }
                } else {
                    let seen = &mut newest[partition as usize];
                    prop_assert_eq!(fence.admit(partition, epoch).is_ok(), epoch >= *seen);
                    *seen = (*seen).max(epoch);
                }
                for (partition, seen) in (0_u32..).zip(newest) {
                    prop_assert_eq!(fence.current(partition), seen);
                }
            }
        }
    }
}
