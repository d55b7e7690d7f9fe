//! The authoritative inventory of worker hosts, and what each decider has not heard of it yet.
//!
//! Every decider subscribes. A change marks the host *dirty* for each subscriber; a decider takes its dirty hosts as
//! deltas before it decides. Marks coalesce, so a decider that sleeps through a thousand heartbeats of a host gets
//! one delta, and what waits for it never exceeds the number of hosts.
//!
//! Lock: one mutex, held for the time of a few copies; never while a policy runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warren_policy_rules::{Delta, Health, HostIndex, HostInfo, MAX_HOSTS};

/// What is reported of a host; the inventory adds the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostReport {
    /// From [`Inventory::zone`].
    pub zone: u32,
    /// Whether it may be given sandboxes.
    pub health: Health,
    /// Memory for sandboxes in all.
    pub memory_mib: u32,
    /// Of it, not yet promised to a sandbox.
    pub free_memory_mib: u32,
    /// CPU for sandboxes in all, thousandths of a core.
    pub cpu_millis: u32,
    /// Of it, not yet promised.
    pub free_cpu_millis: u32,
    /// Median of the memory its sandboxes together really use; 0 if unknown.
    pub used_p50_mib: u32,
    /// One standard deviation of that sum; 0 if unknown.
    pub used_spread_mib: u32,
    /// Sandboxes there.
    pub sandboxes: u32,
    /// Of them, running an invocation.
    pub busy: u32,
}

/// There are [`MAX_HOSTS`] hosts already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the inventory holds {MAX_HOSTS} hosts and no more")]
pub struct TooManyHosts;

/// The hosts, by name and by index.
#[derive(Debug, Default)]
pub struct Inventory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    hosts: Vec<Option<Entry>>,
    by_name: BTreeMap<Arc<str>, HostIndex>,
    /// Oldest first: an index is given again as late as possible, so that one in flight is not soon another host's.
    free: VecDeque<HostIndex>,
    zones: BTreeMap<Box<str>, u32>,
    subscribers: BTreeMap<u64, Dirty>,
    next_subscriber: u64,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    info: HostInfo,
}

#[derive(Debug, Default)]
struct Dirty {
    marked: Vec<bool>,
    order: Vec<HostIndex>,
}

impl Inventory {
    /// An empty inventory.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The number of a zone; the first mention of a name makes one, until there are as many as there may be hosts. What is named
    /// after that is one zone together: names come from workers, which may register under another each time.
    #[must_use]
    pub fn zone(&self, name: &str) -> u32 {
        let mut inner = self.lock();
        if let Some(zone) = inner.zones.get(name) {
            return *zone;
        }
        let zone = u32::try_from(inner.zones.len()).unwrap_or(u32::MAX);
        if zone >= MAX_HOSTS {
            return MAX_HOSTS;
        }
        inner.zones.insert(name.into(), zone);
        zone
    }

    /// A host is new or has changed.
    pub fn report(&self, name: &str, report: HostReport) -> Result<HostIndex, TooManyHosts> {
        self.lock().report(name, report)
    }

    /// Changes what is known of a host in place, for instance to set aside what was just promised to a sandbox and
    /// will only be in a later report. False: there is no such host.
    pub fn adjust(&self, index: HostIndex, change: impl FnOnce(&mut HostReport)) -> bool {
        let mut inner = self.lock();
        let Some(Some(entry)) = inner.hosts.get_mut(index as usize) else { return false };
        let mut report = HostReport::from(&entry.info);
        change(&mut report);
        let info = report.at(index);
        if entry.info != info {
            entry.info = info;
            inner.mark(index);
        }
        true
    }

    /// A host is gone.
    pub fn remove(&self, name: &str) -> Option<HostIndex> {
        let mut inner = self.lock();
        let index = inner.by_name.remove(name)?;
        if let Some(place) = inner.hosts.get_mut(index as usize) {
            *place = None;
        }
        inner.free.push_back(index);
        inner.mark(index);
        Some(index)
    }

    /// What a host is called.
    #[must_use]
    pub fn name(&self, index: HostIndex) -> Option<Arc<str>> {
        Some(Arc::clone(&self.lock().hosts.get(index as usize)?.as_ref()?.name))
    }

    /// The index of the host of that name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<HostIndex> {
        self.lock().by_name.get(name).copied()
    }

    /// What is known of a host.
    #[must_use]
    pub fn get(&self, index: HostIndex) -> Option<HostInfo> {
        Some(self.lock().hosts.get(index as usize)?.as_ref()?.info)
    }

    /// How many hosts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().by_name.len()
    }

    /// Whether there is no host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on, changes are remembered for the subscriber; the present hosts come as its snapshot.
    pub(crate) fn subscribe(self: &Arc<Self>) -> (Subscription, Vec<HostInfo>) {
        let mut inner = self.lock();
        let id = inner.next_subscriber;
        inner.next_subscriber += 1;
        inner.subscribers.insert(id, Dirty::default());
        let hosts = inner.hosts.iter().flatten().map(|entry| entry.info).collect();
        (Subscription { inventory: Arc::clone(self), id }, hosts)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics between two related writes, so a poisoned inventory is still consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn report(&mut self, name: &str, report: HostReport) -> Result<HostIndex, TooManyHosts> {
        if let Some(index) = self.by_name.get(name).copied() {
            let info = report.at(index);
            let known = self.hosts.get_mut(index as usize).and_then(Option::as_mut);
            if let Some(entry) = known.filter(|entry| entry.info != info) {
                entry.info = info;
                self.mark(index);
            }
            return Ok(index);
        }
        let index = self.take_index()?;
        let name: Arc<str> = name.into();
        self.by_name.insert(Arc::clone(&name), index);
        if let Some(place) = self.hosts.get_mut(index as usize) {
            *place = Some(Entry { name, info: report.at(index) });
        }
        self.mark(index);
        Ok(index)
    }

    fn take_index(&mut self) -> Result<HostIndex, TooManyHosts> {
        let next = u32::try_from(self.hosts.len()).ok().filter(|next| *next < MAX_HOSTS);
        // Fresh numbers first while there are few, freed ones after: see `free`.
        let fresh = self.free.len() < 64 || self.free.len() < self.hosts.len() / 2;
        match next {
            Some(index) if fresh => {
                self.hosts.push(None);
                Ok(index)
            }
            _ => self.free.pop_front().ok_or(TooManyHosts),
        }
    }

    fn mark(&mut self, index: HostIndex) {
        let at = index as usize;
        for dirty in self.subscribers.values_mut() {
            if dirty.marked.len() <= at {
                dirty.marked.resize(at + 1, false);
            }
            if let Some(marked) = dirty.marked.get_mut(at)
                && !*marked
            {
                *marked = true;
                dirty.order.push(index);
            }
        }
    }
}

/// A decider's place in the inventory's history; gives it back on drop.
#[derive(Debug)]
pub(crate) struct Subscription {
    inventory: Arc<Inventory>,
    id: u64,
}

impl Subscription {
    /// Moves what changed since the last call into `deltas`, which is cleared first.
    pub(crate) fn take(&self, deltas: &mut Vec<Delta>) {
        deltas.clear();
        let mut inner = self.inventory.lock();
        let Inner { hosts, subscribers, .. } = &mut *inner;
        let Some(dirty) = subscribers.get_mut(&self.id) else { return };
        for index in dirty.order.drain(..) {
            if let Some(marked) = dirty.marked.get_mut(index as usize) {
                *marked = false;
            }
            deltas.push(match hosts.get(index as usize).and_then(Option::as_ref) {
                Some(entry) => Delta::Upsert(entry.info),
                None => Delta::Removed(index),
            });
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.inventory.lock().subscribers.remove(&self.id);
    }
}

impl HostReport {
    fn at(self, index: HostIndex) -> HostInfo {
        HostInfo {
            index,
            zone: self.zone,
            health: self.health,
            memory_mib: self.memory_mib,
            free_memory_mib: self.free_memory_mib,
            cpu_millis: self.cpu_millis,
            free_cpu_millis: self.free_cpu_millis,
            used_p50_mib: self.used_p50_mib,
            used_spread_mib: self.used_spread_mib,
            sandboxes: self.sandboxes,
            busy: self.busy,
        }
    }
}

impl From<&HostInfo> for HostReport {
    fn from(info: &HostInfo) -> Self {
        Self {
            zone: info.zone,
            health: info.health,
            memory_mib: info.memory_mib,
            free_memory_mib: info.free_memory_mib,
            cpu_millis: info.cpu_millis,
            free_cpu_millis: info.free_cpu_millis,
            used_p50_mib: info.used_p50_mib,
            used_spread_mib: info.used_spread_mib,
            sandboxes: info.sandboxes,
            busy: info.busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_an_end() {
        let inventory = Inventory::new();
        let first = inventory.zone("first");
        for number in 1..MAX_HOSTS {
            assert_eq!(inventory.zone(&format!("z{number}")), number);
        }
        assert_eq!((inventory.zone("too many"), inventory.zone("another")), (MAX_HOSTS, MAX_HOSTS));
        assert_eq!(inventory.zone("first"), first);
        assert_eq!(inventory.lock().zones.len(), MAX_HOSTS as usize);
    }
}
