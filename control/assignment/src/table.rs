//! The table of one control process's sandboxes: a pure core, no clock, lock or network.
//!
//! ```text
//!  acquire, none idle      placed, worker answered
//!  -----------> Creating ----------------------> Leased <---------------+
//!                  | failed, host lost             | release            | acquire
//!                  v                               v                    |
//!               (gone) <---- dead, host lost ---- Idle -----------------+
//!                  ^                               ^
//!                  |  dead, host lost              | worker: idle
//!               Occupied <-------------------------+--- worker: busy (adopted while an older
//!                                                       control's invocation still runs)
//! ```
//! The worker is the truth about its own, and about no other's: what it reports wins over every state but `Creating`, whose answer is
//! still under way.
//! A drained sandbox is simply gone from the table; destroying it is the caller's errand.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// A sandbox's name: unique over restarts because it begins with the epoch.
pub type SandboxId = Arc<str>;
/// A host's name.
pub type HostName = Arc<str>;

/// Most rows that a host's own word makes; no host has as many sandboxes.
const HOST_ROWS: usize = 16_384;

/// One version of a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionKey {
    /// The function.
    pub function: Arc<str>,
    /// The version.
    pub version: u64,
}

/// Who holds a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lessee(pub u32);

/// What a worker says of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// Ready for an invocation.
    Idle,
    /// Running one.
    Busy,
    /// On its way out or gone.
    Dead,
}

/// Where a sandbox is in its life, as assignment sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Promised to this lessee, and being made.
    Creating(Lessee),
    /// Nobody's, ready.
    Idle,
    /// A frontend's.
    Leased(Lessee),
    /// Running an invocation nobody here sent.
    Occupied,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Of which version.
    pub key: VersionKey,
    /// Where; none until placed.
    pub host: Option<HostName>,
    /// Where in its life.
    pub phase: Phase,
}

/// A sandbox that left the table, and whose it was.
pub type Gone = (SandboxId, VersionKey);

/// The answer to [`Table::acquire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// An idle one, now leased.
    Leased(SandboxId, HostName),
    /// None was idle: place and create one under this name.
    Create(SandboxId),
}

/// The sandboxes of one epoch.
#[derive(Debug)]
pub struct Table {
    epoch: u64,
    next: u64,
    rows: HashMap<SandboxId, Row>,
    idle: BTreeMap<VersionKey, Vec<SandboxId>>,
    /// How many rows each host has.
    hosted: HashMap<HostName, usize>,
}

impl Table {
    /// An empty table; workers fill it when they register.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, next: 0, rows: HashMap::new(), idle: BTreeMap::new(), hosted: HashMap::new() }
    }

    /// Hands out an idle sandbox, or a name for a new one.
    pub fn acquire(&mut self, key: &VersionKey, lessee: Lessee) -> Acquired {
        while let Some(id) = self.idle.get_mut(key).and_then(Vec::pop) {
            if let Some(row) = self.rows.get_mut(&id)
                && row.phase == Phase::Idle
                && let Some(host) = row.host.clone()
            {
                row.phase = Phase::Leased(lessee);
                return Acquired::Leased(id, host);
            }
        }
        self.next += 1;
        let id: SandboxId = format!("sb-{}-{}", self.epoch, self.next).into();
        let row = Row { key: key.clone(), host: None, phase: Phase::Creating(lessee) };
        self.rows.insert(Arc::clone(&id), row);
        Acquired::Create(id)
    }

    /// The host that was chosen for a sandbox being made.
    pub fn placed(&mut self, id: &str, host: &HostName) {
        if let Some(row) = self.rows.get_mut(id)
            && row.host.is_none()
        {
            row.host = Some(Arc::clone(host));
            *self.hosted.entry(Arc::clone(host)).or_default() += 1;
        }
    }

    /// The worker made it. False: it was given up meanwhile (host lost, version drained) and must be destroyed.
    pub fn created(&mut self, id: &str) -> bool {
        match self.rows.get_mut(id) {
            Some(row) => {
                if let Phase::Creating(lessee) = row.phase {
                    row.phase = Phase::Leased(lessee);
                }
                matches!(row.phase, Phase::Leased(_))
            }
            None => false,
        }
    }

    /// A lessee gives a sandbox back. False: it was not his (any more).
    pub fn release(&mut self, id: &str, lessee: Lessee) -> bool {
        match self.rows.get(id) {
            Some(row) if row.phase == Phase::Leased(lessee) => {
                self.set_idle(id);
                true
            }
            _ => false,
        }
    }

    /// A lessee's hint was refused: the worker says that it runs something else. Its reports will tell when it ends.
    pub fn occupied(&mut self, id: &str, lessee: Lessee) {
        if let Some(row) = self.rows.get_mut(id)
            && row.phase == Phase::Leased(lessee)
        {
            row.phase = Phase::Occupied;
        }
    }

    /// A sandbox is no more: creation failed, it died, or it is being destroyed. Returns what was known of it.
    pub fn remove(&mut self, id: &str) -> Option<Row> {
        let row = self.rows.remove(id)?;
        if row.phase == Phase::Idle {
            self.forget_idle(&row.key, id);
        }
        if let Some(host) = &row.host
            && let Some(rows) = self.hosted.get_mut(host)
        {
            *rows = rows.saturating_sub(1);
            if *rows == 0 {
                self.hosted.remove(host);
            }
        }
        Some(row)
    }

    /// A worker's report of one sandbox. False: it is another host's, of which nobody else's word counts.
    pub fn report(&mut self, id: &str, key: &VersionKey, host: &HostName, said: Reported) -> bool {
        let row = self.rows.get(id);
        if row.is_some_and(|row| row.host.as_ref().is_some_and(|of| of != host)) {
            return false;
        }
        match (row.map(|row| row.phase), said) {
            // The answer of its creation is under way and says more.
            (Some(Phase::Creating(_)), _) => {}
            (_, Reported::Dead) => drop(self.remove(id)),
            (None, Reported::Idle) => self.adopt(id, key, host, Phase::Idle),
            (None, Reported::Busy) => self.adopt(id, key, host, Phase::Occupied),
            (Some(Phase::Occupied), Reported::Idle) => self.set_idle(id),
            (Some(Phase::Idle), Reported::Busy) => {
                if let Some(row) = self.rows.get_mut(id) {
                    row.phase = Phase::Occupied;
                    // Under the key that it was put there with, whatever is said now.
                    let key = row.key.clone();
                    self.forget_idle(&key, id);
                }
            }
            // A leased one is its frontend's; idle and busy alternate there at the pace of invocations.
            (Some(Phase::Leased(_) | Phase::Idle | Phase::Occupied), _) => {}
        }
        true
    }

    /// A worker's whole table, when it registers: what it does not name is gone. Returns those.
    pub fn resync(&mut self, host: &HostName, named: &[(SandboxId, VersionKey, Reported)]) -> Vec<Gone> {
        let there: HashSet<&str> = named.iter().map(|(id, ..)| &**id).collect();
        let absent = self.on_host(host).into_iter().filter(|id| !there.contains(&**id));
        let absent: Vec<SandboxId> = absent
            .filter(|id| !matches!(self.rows.get(id).map(|row| row.phase), Some(Phase::Creating(_))))
            .collect();
        let gone = absent.into_iter().filter_map(|id| self.take(id)).collect();
        for (id, key, said) in named {
            self.report(id, key, host, *said);
        }
        gone
    }

    /// A host was lost: its sandboxes leave the table. Returns them.
    pub fn host_lost(&mut self, host: &str) -> Vec<Gone> {
        self.on_host(host).into_iter().filter_map(|id| self.take(id)).collect()
    }

    fn take(&mut self, id: SandboxId) -> Option<Gone> {
        let key = self.remove(&id)?.key;
        Some((id, key))
    }

    /// A function (or one version) is going: its idle sandboxes leave the table. Returns them with their hosts.
    /// Leased ones are their frontend's to retire, when what runs in them has ended.
    pub fn drain(&mut self, which: impl Fn(&VersionKey) -> bool) -> Vec<(SandboxId, Option<HostName>)> {
        self.drain_rows(|row| which(&row.key))
    }

    /// A host is going out of service: the same for what is idle there.
    pub fn drain_host(&mut self, host: &str) -> Vec<(SandboxId, Option<HostName>)> {
        self.drain_rows(|row| row.host.as_deref() == Some(host))
    }

    fn drain_rows(&mut self, which: impl Fn(&Row) -> bool) -> Vec<(SandboxId, Option<HostName>)> {
        let ids: Vec<SandboxId> = self
            .rows
            .iter()
            .filter(|(_, row)| row.phase == Phase::Idle && which(row))
            .map(|(id, _)| Arc::clone(id))
            .collect();
        ids.into_iter().filter_map(|id| Some((Arc::clone(&id), self.remove(&id)?.host))).collect()
    }

    /// How many sandboxes of a function are on each host.
    #[must_use]
    pub fn siblings(&self, function: &str) -> BTreeMap<HostName, u32> {
        let mut there = BTreeMap::new();
        for row in self.rows.values().filter(|row| *row.key.function == *function) {
            if let Some(host) = &row.host {
                *there.entry(Arc::clone(host)).or_default() += 1;
            }
        }
        there
    }

    /// One row.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Row> {
        self.rows.get(id)
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = (&SandboxId, &Row)> {
        self.rows.iter()
    }

    fn on_host(&self, host: &str) -> Vec<SandboxId> {
        let there = |row: &Row| row.host.as_deref() == Some(host);
        self.rows.iter().filter(|(_, row)| there(row)).map(|(id, _)| Arc::clone(id)).collect()
    }

    fn adopt(&mut self, id: &str, key: &VersionKey, host: &HostName, phase: Phase) {
        let rows = self.hosted.entry(Arc::clone(host)).or_default();
        if *rows >= HOST_ROWS {
            return;
        }
        *rows += 1;
        let id: SandboxId = id.into();
        let row = Row { key: key.clone(), host: Some(Arc::clone(host)), phase };
        self.rows.insert(Arc::clone(&id), row);
        if phase == Phase::Idle {
            self.idle.entry(key.clone()).or_default().push(id);
        }
    }

    fn set_idle(&mut self, id: &str) {
        let Some((id, _)) = self.rows.get_key_value(id) else { return };
        let id = Arc::clone(id);
        if let Some(row) = self.rows.get_mut(&id) {
            row.phase = Phase::Idle;
            self.idle.entry(row.key.clone()).or_default().push(id);
        }
    }

    fn forget_idle(&mut self, key: &VersionKey, id: &str) {
        if let Some(idle) = self.idle.get_mut(key) {
            idle.retain(|other| &**other != id);
            if idle.is_empty() {
                self.idle.remove(key);
            }
        }
    }
}
