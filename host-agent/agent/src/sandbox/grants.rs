//! Executions now running for each concurrency grant: the worker's half of strict counting.
//!
//! The fence of grants stands under the same lock as the counts. So once an epoch is raised, no execution of an older one
//! begins any more, and what [`GrantLedger::in_use`] says of older epochs afterwards is all there will ever be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// A grant of an epoch that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a grant of epoch {offered}, and this worker is at epoch {current}; the function has not run")]
pub struct StaleGrant {
    /// The grant's.
    pub offered: u64,
    /// What the worker knows.
    pub current: u64,
}

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct GrantLedger {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Older grants let nothing in.
    epoch: u64,
    running: HashMap<Grant, u32>,
}

impl GrantLedger {
    /// Counts one execution until the guard is dropped; refused if the grant's epoch is over.
    pub fn enter(&self, grant: Grant) -> Result<Running, StaleGrant> {
        let mut inner = self.lock();
        if grant.epoch < inner.epoch {
            return Err(StaleGrant { offered: grant.epoch, current: inner.epoch });
        }
        inner.count(grant);
        drop(inner);
        Ok(Running { ledger: self.clone(), grant })
    }

    /// Counts one that runs already, whatever its epoch.
    #[must_use]
    pub fn adopt(&self, grant: Grant) -> Running {
        self.lock().count(grant);
        Running { ledger: self.clone(), grant }
    }

    /// From now on grants of older epochs are refused.
    pub fn raise(&self, epoch: u64) {
        let mut inner = self.lock();
        inner.epoch = inner.epoch.max(epoch);
    }

    /// The oldest epoch whose grants let an execution in.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// For the heartbeat.
    #[must_use]
    pub fn in_use(&self) -> Vec<GrantUse> {
        self.lock()
            .running
            .iter()
            .map(|(grant, n)| GrantUse { grant_id: grant.id, epoch: grant.epoch, running: *n })
            .collect()
    }

    fn leave(&self, grant: Grant) {
        let mut inner = self.lock();
        if let Some(count) = inner.running.get_mut(&grant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.running.remove(&grant);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counts are whole between any two statements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, grant: Grant) {
        if grant.id != 0 {
            *self.running.entry(grant).or_default() += 1;
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

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter(Grant),
        Adopt(Grant),
        Leave(usize),
        Raise(u64),
    }

    fn steps() -> impl Strategy<Value = Step> {
        let grant = || (0_u64..3, 0_u64..4).prop_map(|(id, epoch)| Grant { id, epoch });
        prop_oneof![
            5 => grant().prop_map(Step::Enter),
            1 => grant().prop_map(Step::Adopt),
            3 => (0_usize..9).prop_map(Step::Leave),
            1 => (0_u64..4).prop_map(Step::Raise),
        ]
    }

    proptest! {
        /// Counts are those of the guards alive, and no execution of an epoch that is over is let in.
        #[test]
        fn counts_match_a_model(steps in proptest::collection::vec(steps(), 0..80)) {
            let ledger = GrantLedger::default();
            let mut held: Vec<(Grant, Running)> = Vec::new();
            let mut epoch = 0;
            for step in steps {
                match step {
                    Step::Enter(grant) => match ledger.enter(grant) {
                        Ok(running) => {
                            prop_assert!(grant.epoch >= epoch);
                            held.push((grant, running));
                        }
                        Err(stale) => {
                            prop_assert!(grant.epoch < epoch);
                            prop_assert_eq!(stale, StaleGrant { offered: grant.epoch, current: epoch });
                        }
                    },
                    Step::Adopt(grant) => held.push((grant, ledger.adopt(grant))),
                    Step::Leave(at) if at < held.len() => drop(held.swap_remove(at)),
                    Step::Leave(_) => {}
                    Step::Raise(to) => {
                        ledger.raise(to);
                        epoch = epoch.max(to);
                    }
                }
                prop_assert_eq!(ledger.epoch(), epoch);
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
