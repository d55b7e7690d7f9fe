//! Executions now running for each concurrency grant: the worker's half of strict counting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use warren_proto::v1::GrantUse;

/// Which grant an execution runs under; id 0 means none and is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    /// The grant.
    pub id: u64,
    /// Its epoch.
    pub epoch: u64,
}

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct GrantLedger {
    running: Arc<Mutex<HashMap<Grant, u32>>>,
}

impl GrantLedger {
    /// Counts one execution until the guard is dropped.
    #[must_use]
    pub fn enter(&self, grant: Grant) -> Running {
        if grant.id != 0 {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            *running.entry(grant).or_default() += 1;
        }
        Running { ledger: self.clone(), grant }
    }

    /// For the heartbeat.
    #[must_use]
    pub fn in_use(&self) -> Vec<GrantUse> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .iter()
            .map(|(grant, n)| GrantUse { grant_id: grant.id, epoch: grant.epoch, running: *n })
            .collect()
    }

    fn leave(&self, grant: Grant) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&grant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(&grant);
            }
        }
    }
}

/// One counted execution.
#[derive(Debug)]
pub struct Running {
    ledger: GrantLedger,
    grant: Grant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ledger.leave(self.grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_match_a_model(steps in proptest::collection::vec((0_u64..3, 0_u64..2, proptest::bool::ANY), 0..80)) {
            let ledger = GrantLedger::default();
            let mut held: Vec<(Grant, Running)> = Vec::new();
            for (id, epoch, enter) in steps {
                let grant = Grant { id, epoch };
                if enter {
                    held.push((grant, ledger.enter(grant)));
                } else if let Some(at) = held.iter().position(|(other, _)| *other == grant) {
                    held.swap_remove(at);
                }
                let in_use = ledger.in_use();
                for entry in &in_use {
                    let of = Grant { id: entry.grant_id, epoch: entry.epoch };
                    let expect = held.iter().filter(|(other, _)| *other == of).count();
                    prop_assert_eq!(entry.running as usize, expect);
                    prop_assert!(expect > 0 && of.id != 0);
                }
                let total: usize = in_use.iter().map(|entry| entry.running as usize).sum();
                prop_assert_eq!(total, held.iter().filter(|(grant, _)| grant.id != 0).count());
            }
        }
    }
}
