//! The choice of a host for a new sandbox: packing lists hosts, placement takes one, hard limits have the last word.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use warren_policy_engine::{
    About, HostReport, Inventory, Packing, Placement,
    rules::{Demand, FitRequest, Health, PackingConfig, Place, PlaceRequest, Scored},
};
use warren_proto::v1::FunctionVersion;

/// Memory that goes with one whole core: a sandbox's CPU share is in proportion to its memory.
const MIB_PER_CORE: u64 = 1769;
/// CPU is shared by weight and most sandboxes idle, so a host promises its cores this many times over.
pub(crate) const CPU_PROMISED_TIMES: u32 = 16;
const SHORTLIST: u32 = 16;

/// The deciders of placement, with the inventory they follow.
pub struct Choosers {
    /// Every host, as the policies see it.
    pub inventory: Arc<Inventory>,
    /// How well functions fit hosts.
    pub packing: Packing,
    /// Which host it is.
    pub placement: Placement,
}

impl Default for Choosers {
    fn default() -> Self {
        let inventory = Inventory::new();
        let packing = Packing::new(&inventory, PackingConfig::default());
        let placement = Placement::new(&inventory);
        Self { inventory, packing, placement }
    }
}

impl std::fmt::Debug for Choosers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Choosers").field("inventory", &self.inventory).finish_non_exhaustive()
    }
}

impl Choosers {
    /// A host with room, which is set aside there until the host's next report; `siblings` counts the function's
    /// sandboxes on a host.
    pub(crate) fn choose(
        &self,
        version: &FunctionVersion,
        request_id: &str,
        siblings: impl Fn(&str) -> u32,
    ) -> Option<Arc<str>> {
        let about = About { function: &version.name, request: request_id };
        let (now_ms, seed) = (unix_ms(), 0);
        let demand = demand_of(version);
        let fits =
            self.packing.choose(&about, &FitRequest { now_ms, seed, demand, shortlist: SHORTLIST }).answer;
        let scored = fits.best.iter().map(|fit| Scored {
            host: fit.host,
            score: fit.score,
            overcommit_mib: fit.overcommit_mib,
            siblings: self.inventory.name(fit.host).map_or(0, |name| siblings(&name)),
            locality: 0,
        });
        let request = PlaceRequest { now_ms, seed, demand, fits: scored.collect(), zones: Vec::new() };
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
}

fn set_aside(host: &mut HostReport, demand: &Demand) {
    host.free_memory_mib = host.free_memory_mib.saturating_sub(demand.memory_mib);
    host.free_cpu_millis = host.free_cpu_millis.saturating_sub(demand.cpu_millis);
    host.sandboxes = host.sandboxes.saturating_add(1);
}

fn demand_of(version: &FunctionVersion) -> Demand {
    let memory_mib = version.limits.as_ref().map_or(0, |limits| limits.memory_mib);
    Demand {
        function: function_hash(&version.name),
        memory_mib,
        cpu_millis: cpu_millis(u64::from(memory_mib)),
        ..Demand::default()
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
