//! The fence of epochs: a command of an older epoch than one already seen is refused.
//!
//! Control raises the floor of every partition when an agent registers, and a partition's own epoch with each command.

use std::collections::HashMap;

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
#[derive(Clone, Debug, Default)]
pub struct EpochFence {
    floor: u64,
    partitions: HashMap<u32, u64>,
}

impl EpochFence {
    /// From a registration: everything older is over, in every partition.
    pub fn raise_floor(&mut self, epoch: u64) {
        self.floor = self.floor.max(epoch);
        let floor = self.floor;
        self.partitions.retain(|_, seen| *seen > floor);
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
            self.partitions.insert(partition, epoch);
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
