//! The choice of a host for a new sandbox: packing lists hosts, placement takes one, hard limits have the last word.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use warren_policy_engine::{
    About, HostReport, Inventory, Packing, Placement,
    rules::{
        Demand, FitRequest, Health, MAX_CANDIDATES, PackingConfig, Place, PlaceRequest, Scored, ZoneSiblings,
    },
};
use warren_proto::v1::{FunctionVersion, Kind};

/// Memory that goes with one whole core: a sandbox's CPU share is in proportion to its memory.
const MIB_PER_CORE: u64 = 1769;
/// CPU is shared by weight and most sandboxes idle, so a host promises its cores this many times over.
pub(crate) const CPU_PROMISED_TIMES: u32 = 16;
const SHORTLIST: u32 = 16;

/// How many sandboxes of the function each host has.
pub type Siblings = BTreeMap<Arc<str>, u32>;

/// What a function was seen to need; zeros are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// MiB of memory that half, and 99 of a hundred, of its invocations did not exceed.
    pub memory_used_mib: (u32, u32),
    /// The same of how many ran at once.
    pub concurrency: (u32, u32),
}

/// A sandbox that is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Of which version.
    pub version: &'a FunctionVersion,
    /// For which invocation.
    pub request_id: &'a str,
    /// What its function was seen to need.
    pub observed: Observations,
}

/// The deciders of placement, with the inventory they follow.
pub struct Choosers {
    /// Every host, as the policies see it.
    pub inventory: Arc<Inventory>,
    /// How well functions fit hosts.
    pub packing: Packing,
    /// Which host it is.
    pub placement: Placement,
    /// Where the seeds of decisions come from: another each, and others in every life.
    seeds: AtomicU64,
}

impl Default for Choosers {
    fn default() -> Self {
        let inventory = Inventory::new();
        let packing = Packing::new(&inventory, PackingConfig::default());
        let placement = Placement::new(&inventory);
        let seeds = AtomicU64::new(RandomState::new().hash_one(0_u64));
        Self { inventory, packing, placement, seeds }
    }
}

impl std::fmt::Debug for Choosers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Choosers").field("inventory", &self.inventory).finish_non_exhaustive()
    }
}

impl Choosers {
    /// A host with room, which is set aside there until the host's next report; `locality` says how much of the
    /// function's bytes a host has, thousandths, and `can` whether it can run the function at all. Policies do not know of
    /// that: a choice of theirs that cannot is left out, and with nothing left the roomiest host that can is taken.
    pub(crate) fn choose(
        &self,
        wanted: &Wanted<'_>,
        siblings: &Siblings,
        locality: impl Fn(&str) -> u32,
        can: impl Fn(&str) -> bool,
    ) -> Option<Arc<str>> {
        let about = About { function: &wanted.version.name, request: wanted.request_id };
        let (now_ms, seed) = (unix_ms(), self.seed());
        let demand = demand_of(wanted);
        let fits =
            self.packing.choose(&about, &FitRequest { now_ms, seed, demand, shortlist: SHORTLIST }).answer;
        let any_can = wanted.version.kind() != Kind::Linux;
        let scored = fits.best.iter().filter_map(|fit| {
            let name = self.inventory.name(fit.host).unwrap_or_default();
            let there = siblings.get(&name).copied().unwrap_or(0);
            (any_can || can(&name)).then(|| Scored::of(*fit, there, locality(&name)))
        });
        let (fits_list, zones) = (scored.collect::<Vec<_>>(), self.zones(siblings));
        if !any_can && fits_list.is_empty() {
            return self.roomiest(&demand, can);
        }
        let request = PlaceRequest { now_ms, seed, demand, fits: fits_list, zones };
        let Place::On(choice) = self.placement.choose(&about, &request).answer else { return None };
        let beyond = fits.best.iter().find(|fit| fit.host == choice.host).map_or(0, |fit| fit.overcommit_mib);
        // The hard limits, checked and taken in one step under the inventory's lock.
        let mut fits_still = false;
        self.inventory.adjust(choice.host, |host| {
            fits_still = host.health == Health::Ready
                && demand.memory_mib <= host.free_memory_mib.saturating_add(beyond);
            if fits_still {
                set_aside(host, &demand);
            }
        });
        if fits_still { self.inventory.name(choice.host) } else { None }
    }

    /// Of the hosts that can, the one with most memory left; none, if it is not enough.
    fn roomiest(&self, demand: &Demand, can: impl Fn(&str) -> bool) -> Option<Arc<str>> {
        let mut hosts: Vec<_> = (0..)
            .map_while(|index| self.inventory.get(index).map(|info| (info.free_memory_mib, index)))
            .collect();
        hosts.sort_unstable_by_key(|(free, _)| std::cmp::Reverse(*free));
        let names = hosts.into_iter().filter_map(|(_, index)| Some((index, self.inventory.name(index)?)));
        let (index, name) = names.into_iter().find(|(_, name)| can(name))?;
        let mut fits = false;
        self.inventory.adjust(index, |host| {
            fits = host.health == Health::Ready && demand.memory_mib <= host.free_memory_mib;
            if fits {
                set_aside(host, demand);
            }
        });
        fits.then_some(name)
    }

    /// How many sandboxes of the function each zone has; the fullest, if there are more than a policy is told of.
    fn zones(&self, siblings: &Siblings) -> Vec<ZoneSiblings> {
        let mut zones: BTreeMap<u32, u32> = BTreeMap::new();
        for (host, count) in siblings {
            let info = self.inventory.index(host).and_then(|index| self.inventory.get(index));
            if let Some(info) = info {
                let zone = zones.entry(info.zone).or_default();
                *zone = zone.saturating_add(*count);
            }
        }
        let mut zones: Vec<_> =
            zones.into_iter().map(|(zone, siblings)| ZoneSiblings { zone, siblings }).collect();
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.siblings));
        zones.truncate(MAX_CANDIDATES);
        zones
    }

    /// Splitmix64 over a counter: a policy has no randomness of its own.
    pub(crate) fn seed(&self) -> u64 {
        let at = self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn set_aside(host: &mut HostReport, demand: &Demand) {
    host.free_memory_mib = host.free_memory_mib.saturating_sub(demand.memory_mib);
    host.free_cpu_millis = host.free_cpu_millis.saturating_sub(demand.cpu_millis);
    host.sandboxes = host.sandboxes.saturating_add(1);
}

fn demand_of(wanted: &Wanted<'_>) -> Demand {
    let Wanted { version, observed, .. } = wanted;
    let memory_mib = version.limits.as_ref().map_or(0, |limits| limits.memory_mib);
    Demand {
        function: function_hash(&version.name),
        memory_mib,
        cpu_millis: cpu_millis(u64::from(memory_mib)),
        memory_used_p50_mib: observed.memory_used_mib.0,
        memory_used_p99_mib: observed.memory_used_mib.1,
        concurrency_p50: observed.concurrency.0,
        concurrency_p99: observed.concurrency.1,
    }
}

/// The CPU share that goes with so much memory.
pub(crate) fn cpu_millis(memory_mib: u64) -> u32 {
    u32::try_from(memory_mib.saturating_mul(1000) / MIB_PER_CORE).unwrap_or(u32::MAX)
}

/// A stable hash of a function's name, as policies know it (FNV-1a, 64 bits).
#[must_use]
pub fn function_hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The wall clock, as policies and people see it.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
