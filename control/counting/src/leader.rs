//! The leader's core: who was granted what, and what of it may still be in use.
//!
//! ```text
//!         ask               expires, or the epoch ends
//! (pool) ----> Live --------------------------------------> Closing: counted in full until every host that may
//!    ^          |                                              |     run it has fenced it
//!    |          | all given back                               v
//!    +----------+<--------- the last execution ended ------- Fenced: counted by what hosts say still runs
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How long a grant is good without renewal, on its holder's clock, from before it asked.
pub(crate) const TTL_MS: u64 = 10_000;
/// How much longer it is good on the leader's clock, from after it answered: covers the drift of two clocks.
pub(crate) const DRIFT_MS: u64 = 1_000;

/// A worker host's name.
pub type HostName = Arc<str>;

/// Names a grant, over all epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantId(pub u64);

/// Which limit a slot counts against. Every invocation counts against exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolKey {
    /// What the account has beyond reservations.
    Account,
    /// One function's reserved concurrency.
    Function(Arc<str>),
}

/// The limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole account.
    pub account: u32,
    /// Of functions that reserve; their sum is at most the account's.
    pub reserved: BTreeMap<Arc<str>, u32>,
}

impl Limits {
    /// The limit of one pool.
    #[must_use]
    pub fn of(&self, pool: &PoolKey) -> u32 {
        match pool {
            PoolKey::Account => {
                self.reserved.values().fold(self.account, |left, some| left.saturating_sub(*some))
            }
            PoolKey::Function(name) => self.reserved.get(name).copied().unwrap_or(0),
        }
    }

    /// The pool that an invocation of this function counts against.
    #[must_use]
    pub fn pool_of(&self, function: &Arc<str>) -> PoolKey {
        if self.reserved.contains_key(function) {
            PoolKey::Function(Arc::clone(function))
        } else {
            PoolKey::Account
        }
    }
}

/// A slice of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// The epoch it was made in.
    pub epoch: u64,
    /// Of which pool.
    pub pool: PoolKey,
    /// How many may run at once under it.
    pub slots: u32,
}

#[derive(Clone, Debug)]
enum Standing {
    Live { until_ms: u64 },
    Closed { unfenced: BTreeSet<HostName>, running: BTreeMap<HostName, u32> },
}

#[derive(Clone, Debug)]
struct Row {
    grant: Grant,
    standing: Standing,
}

impl Row {
    /// Slots that may be in use.
    fn outstanding(&self) -> u32 {
        match &self.standing {
            Standing::Live { .. } => self.grant.slots,
            Standing::Closed { unfenced, .. } if !unfenced.is_empty() => self.grant.slots,
            Standing::Closed { running, .. } => {
                running.values().fold(0_u32, |sum, some| sum.saturating_add(*some)).min(self.grant.slots)
            }
        }
    }
}

/// The leader of one account.
#[derive(Clone, Debug)]
pub struct Leader {
    epoch: u64,
    next: u64,
    limits: Limits,
    rows: BTreeMap<GrantId, Row>,
    hosts: BTreeSet<HostName>,
}

impl Leader {
    /// Begins an epoch with what earlier ones left behind: their grants, and the hosts that may run executions of
    /// them.
    #[must_use]
    pub fn new(epoch: u64, limits: Limits, left: Vec<Grant>, hosts: BTreeSet<HostName>) -> Self {
        let next = left.iter().map(|grant| grant.id.0).max().unwrap_or(0);
        let close = |grant: Grant| {
            let standing = Standing::Closed { unfenced: hosts.clone(), running: BTreeMap::new() };
            (grant.id, Row { grant, standing })
        };
        let rows = left.into_iter().map(close).collect();
        let mut leader = Self { epoch, next, limits, rows, hosts };
        leader.forget_ended();
        leader
    }

    /// The limits that hold.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// New limits. A pool that is now over its limit grants nothing until it is below.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Slots of a pool nobody has.
    #[must_use]
    pub fn free(&self, pool: &PoolKey) -> u32 {
        let here = self.rows.values().filter(|row| row.grant.pool == *pool);
        let used = here.fold(0_u32, |sum, row| sum.saturating_add(row.outstanding()));
        // Pools may change sides with a function's reservation; the account's limit holds over all of them.
        let total = self.rows.values().fold(0_u32, |sum, row| sum.saturating_add(row.outstanding()));
        let by_pool = self.limits.of(pool).saturating_sub(used);
        by_pool.min(self.limits.account.saturating_sub(total))
    }

    /// Whether slots may come free without anybody's doing: grants of an earlier epoch are not settled yet.
    #[must_use]
    pub fn settling(&self) -> bool {
        self.rows
            .values()
            .any(|row| matches!(&row.standing, Standing::Closed { unfenced, .. } if !unfenced.is_empty()))
    }

    /// Grants at most so many slots. The answer must be durable before it is used.
    pub fn ask(&mut self, pool: &PoolKey, want: u32, now_ms: u64) -> Option<Grant> {
        let slots = want.min(self.free(pool));
        if slots == 0 {
            return None;
        }
        self.next = self.next.checked_add(1)?;
        let grant = Grant { id: GrantId(self.next), epoch: self.epoch, pool: pool.clone(), slots };
        let standing = Standing::Live { until_ms: until(now_ms) };
        self.rows.insert(grant.id, Row { grant: grant.clone(), standing });
        Some(grant)
    }

    /// The holder gives slots back that it does not use.
    pub fn give_back(&mut self, id: GrantId, slots: u32) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.grant.slots = row.grant.slots.saturating_sub(slots);
        }
        self.forget_ended();
    }

    /// The holder is there. False: too late, the grant is closed.
    pub fn renew(&mut self, id: GrantId, now_ms: u64) -> bool {
        match self.rows.get_mut(&id).map(|row| &mut row.standing) {
            Some(Standing::Live { until_ms }) => {
                *until_ms = until(now_ms);
                true
            }
            _ => false,
        }
    }

    /// Closes what was not renewed. Every host must now fence these.
    pub fn expire(&mut self, now_ms: u64) -> Vec<GrantId> {
        let mut closed = Vec::new();
        for (id, row) in &mut self.rows {
            if matches!(row.standing, Standing::Live { until_ms } if until_ms <= now_ms) {
                row.standing = Standing::Closed { unfenced: self.hosts.clone(), running: BTreeMap::new() };
                closed.push(*id);
            }
        }
        self.forget_ended();
        closed
    }

    /// A host may from now on run executions. Must be durable before it is given any.
    pub fn host_joined(&mut self, host: &HostName) -> bool {
        self.hosts.insert(Arc::clone(host))
    }

    /// Hosts that may run executions.
    #[must_use]
    pub fn hosts(&self) -> &BTreeSet<HostName> {
        &self.hosts
    }

    /// A host was declared dead and cannot run anything any more.
    pub fn host_dead(&mut self, host: &HostName) {
        self.hosts.remove(host);
        for row in self.rows.values_mut() {
            if let Standing::Closed { unfenced, running } = &mut row.standing {
                unfenced.remove(host);
                running.remove(host);
            }
        }
        self.forget_ended();
    }

    /// A host begins no execution of this grant any more, and so many still run.
    pub fn fenced(&mut self, host: &HostName, id: GrantId, still_running: u32) {
        if let Some(Row { standing: Standing::Closed { unfenced, running }, .. }) = self.rows.get_mut(&id) {
            unfenced.remove(host);
            running.insert(Arc::clone(host), still_running);
        }
        self.forget_ended();
    }

    /// A host of this epoch says what runs. It has fenced every older epoch (it was told when it registered); a grant
    /// it does not name does not run there.
    pub fn report(&mut self, host: &HostName, running: &BTreeMap<GrantId, u32>) {
        for row in self.rows.values_mut().filter(|row| row.grant.epoch < self.epoch) {
            if let Standing::Closed { unfenced, running: of } = &mut row.standing {
                unfenced.remove(host);
                of.insert(Arc::clone(host), running.get(&row.grant.id).copied().unwrap_or(0));
            }
        }
        self.forget_ended();
    }

    /// Everything that is counted, for the journal's snapshot.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.rows.values().map(|row| &row.grant)
    }

    fn forget_ended(&mut self) {
        self.rows.retain(|_, row| row.outstanding() > 0);
    }
}

fn until(now_ms: u64) -> u64 {
    now_ms.saturating_add(TTL_MS + DRIFT_MS)
}
