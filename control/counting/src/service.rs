//! The leader's shell: the core behind a lock, the journal before every answer.

use crate::{
    journal::{Line, replay},
    leader::{Grant, GrantId, HostName, Leader, Limits, PoolKey},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Mutex as AsyncMutex;
use warren_store::{Journal, Sequence, StoreError};

const SUBJECT: &str = "counting";
/// After so many records the journal is replaced by a snapshot.
const COMPACT_AFTER: u64 = 256;

/// The counting leader of this process.
pub struct Counting {
    leader: Mutex<Leader>,
    journal: Arc<dyn Journal>,
    /// The journal's end. Held while something is appended, so records stand in the order of what they tell.
    end: AsyncMutex<End>,
}

struct End {
    last: Sequence,
    since_snapshot: u64,
    /// The last append failed, and whether its record is there is not known.
    unsure: bool,
}

impl std::fmt::Debug for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counting").field("leader", &self.leader).finish_non_exhaustive()
    }
}

impl Counting {
    /// Begins an epoch: reads what earlier ones left behind.
    pub async fn begin(journal: Arc<dyn Journal>, epoch: u64, limits: Limits) -> Result<Self, StoreError> {
        let (records, last) = journal.replay(SUBJECT).await?;
        let (left, hosts, unread) = replay(&records);
        if unread > 0 {
            tracing::error!(unread, "records of the counting journal cannot be read");
        }
        let leader = Leader::new(epoch, limits, left, hosts);
        let end = AsyncMutex::new(End { last, since_snapshot: COMPACT_AFTER, unsure: false });
        let counting = Self { leader: Mutex::new(leader), journal, end };
        counting.append(None).await?;
        Ok(counting)
    }

    /// Grants slots; durable when it returns.
    pub async fn ask(&self, pool: &PoolKey, want: u32, now_ms: u64) -> Result<Option<Grant>, StoreError> {
        let Some(grant) = self.leader().ask(pool, want, now_ms) else { return Ok(None) };
        match self.append(Some(Line::of_grant(&grant))).await {
            Ok(()) => Ok(Some(grant)),
            Err(error) => {
                // Never used, so given back; if the record did get out, a replay counts it until it is settled.
                self.leader().give_back(grant.id, grant.slots);
                Err(error)
            }
        }
    }

    /// Slots come back. The record may be lost: a replay then counts too many for a moment, never too few.
    pub async fn give_back(&self, returns: &[(GrantId, u32)]) {
        for (id, slots) in returns {
            self.leader().give_back(*id, *slots);
            if let Err(error) = self.append(Some(Line::of_return(*id, *slots))).await {
                tracing::warn!(%error, "a returned slice is not in the journal");
            }
        }
    }

    /// Whether the grant is still good, for another while.
    pub fn renew(&self, id: GrantId, now_ms: u64) -> bool {
        self.leader().renew(id, now_ms)
    }

    /// Whether slots of earlier epochs are still to be settled.
    pub fn settling(&self) -> bool {
        self.leader().settling()
    }

    /// The limits that hold.
    pub fn limits(&self) -> Limits {
        self.leader().limits().clone()
    }

    /// New limits.
    pub fn set_limits(&self, limits: Limits) {
        self.leader().set_limits(limits);
    }

    /// A worker registers: durable before it is told its epoch, so before it can run anything.
    pub async fn host_joined(&self, host: &HostName) -> Result<(), StoreError> {
        let new = self.leader().host_joined(host);
        if new { self.append(Some(Line::joined(host))).await } else { Ok(()) }
    }

    /// A worker reports what runs under which grant.
    pub fn report(&self, host: &HostName, running: &BTreeMap<GrantId, u32>) {
        self.leader().report(host, running);
    }

    /// Hosts that earlier lives knew.
    pub fn hosts(&self) -> Vec<HostName> {
        self.leader().hosts().iter().cloned().collect()
    }

    /// A host that an earlier life knew does not come back.
    pub async fn host_dead(&self, host: &HostName) {
        self.leader().host_dead(host);
        if let Err(error) = self.append(Some(Line::dead(host))).await {
            tracing::warn!(%error, %host, "a dead host is not in the journal");
        }
    }

    async fn append(&self, line: Option<Line>) -> Result<(), StoreError> {
        let mut end = self.end.lock().await;
        let mut lines: Vec<_> = line.iter().map(Line::bytes).collect();
        let compact = end.since_snapshot >= COMPACT_AFTER;
        if compact {
            let leader = self.leader();
            lines = vec![Line::of_all(leader.grants(), leader.hosts()).bytes()];
        }
        if end.unsure {
            // Nobody else appends here: the store belongs to one process. What stands there is ours.
            end.last = self.journal.replay(SUBJECT).await?.1;
            end.unsure = false;
        }
        let before = end.last;
        match self.journal.append(SUBJECT, before, lines).await {
            Ok(last) => end.last = last,
            Err(error) => {
                end.unsure = true;
                return Err(error);
            }
        }
        end.since_snapshot = end.since_snapshot.saturating_add(1);
        if compact {
            self.journal.trim(SUBJECT, before).await?;
            end.since_snapshot = 0;
        }
        Ok(())
    }

    fn leader(&self) -> MutexGuard<'_, Leader> {
        // The core is whole between any two of its operations, and none of them panics.
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
