//! What the deciders know about worker hosts.

use alloc::vec::Vec;

/// A host's index, given by the engine; reused only after [`Delta::Removed`].
pub type HostIndex = u32;

/// Hosts with a larger index are ignored, so that no index can make a table grow without bound.
pub const MAX_HOSTS: u32 = 1 << 18;

/// Whether a host may be given sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Health {
    /// Not heard of for too long, or not prepared yet.
    #[default]
    NotReady,
    /// Takes sandboxes.
    Ready,
    /// Finishes what it has, takes nothing new.
    Draining,
}

/// What a worker host offers and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostInfo {
    /// Given by the engine's inventory.
    pub index: HostIndex,
    /// Given by the engine's inventory.
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
    /// Median of the memory that its sandboxes together really use; 0 if unknown.
    pub used_p50_mib: u32,
    /// Spread of that use (one standard deviation of the sum); 0 if unknown.
    pub used_spread_mib: u32,
    /// Sandboxes there.
    pub sandboxes: u32,
    /// Of them, running an invocation.
    pub busy: u32,
}

/// One change of the inventory since the last call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delta {
    /// A host is new or has changed.
    Upsert(HostInfo),
    /// A host is gone.
    Removed(HostIndex),
}

/// What a function asks for, by its identity and its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Stable hash of account and function.
    pub function: u64,
    /// The configured limit: what a host must have room for.
    pub memory_mib: u32,
    /// CPU in proportion to memory.
    pub cpu_millis: u32,
    /// Median of memory really used; 0 if unknown.
    pub memory_used_p50_mib: u32,
    /// 99th percentile of memory really used; 0 if unknown.
    pub memory_used_p99_mib: u32,
    /// Median of concurrent executions.
    pub concurrency_p50: u32,
    /// 99th percentile of concurrent executions.
    pub concurrency_p99: u32,
}

/// Hosts by index.
#[derive(Debug, Clone, Default)]
pub struct HostTable {
    hosts: Vec<Option<HostInfo>>,
    present: u32,
}

impl HostTable {
    /// The host of that index, if there is one.
    #[must_use]
    pub fn get(&self, index: HostIndex) -> Option<&HostInfo> {
        self.hosts.get(index as usize)?.as_ref()
    }

    /// How many hosts there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.present
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// All hosts, by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = &HostInfo> {
        self.hosts.iter().flatten()
    }

    /// Forgets every host.
    pub fn clear(&mut self) {
        self.hosts.clear();
        self.present = 0;
    }

    /// Takes in a change and returns what was known of that host before.
    pub fn apply(&mut self, delta: Delta) -> Option<HostInfo> {
        let (index, new) = match delta {
            Delta::Upsert(info) => (info.index, Some(info)),
            Delta::Removed(index) => (index, None),
        };
        if index >= MAX_HOSTS {
            return None;
        }
        if index as usize >= self.hosts.len() {
            new?;
            self.hosts.resize(index as usize + 1, None);
        }
        let place = self.hosts.get_mut(index as usize)?;
        let old = core::mem::replace(place, new);
        self.present = self.present + u32::from(new.is_some()) - u32::from(old.is_some());
        old
    }
}
