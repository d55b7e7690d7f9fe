//! Placement: which host gets the new sandbox?
//!
//! Packing says which hosts suit; placement weighs that against where the function's other sandboxes are (another
//! zone survives the loss of one, another host the loss of a host), whether the host has the function's bytes, and
//! how busy it is. None that will do: ask for another host.

use crate::MAX_CANDIDATES;
use crate::host::{Delta, Demand, Health, HostIndex, HostInfo, HostTable};
use crate::packing::Fit;
use alloc::vec::Vec;

/// A host that the packing policy listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scored {
    /// Which.
    pub host: HostIndex,
    /// The packing policy's score.
    pub score: u32,
    /// What the packing policy granted beyond free memory.
    pub overcommit_mib: u32,
    /// Sandboxes of this very function there.
    pub siblings: u32,
    /// How much of the function's bytes the host has, thousandths.
    pub locality: u32,
}

impl Scored {
    /// A listed host, with what the caller knows of the function there.
    #[must_use]
    pub fn of(fit: Fit, siblings: u32, locality: u32) -> Self {
        let Fit { host, score, overcommit_mib } = fit;
        Self { host, score, overcommit_mib, siblings, locality }
    }
}

/// How many sandboxes of the function a zone has, on any host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZoneSiblings {
    /// Which zone.
    pub zone: u32,
    /// How many.
    pub siblings: u32,
}

/// Which of these hosts?
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlaceRequest {
    /// Unix milliseconds, given by the caller: deciders have no clock.
    pub now_ms: u64,
    /// Random, given by the caller.
    pub seed: u64,
    /// What is to be placed.
    pub demand: Demand,
    /// Best first, at most [`MAX_CANDIDATES`].
    pub fits: Vec<Scored>,
    /// Zones with sandboxes of this function, at most [`MAX_CANDIDATES`].
    pub zones: Vec<ZoneSiblings>,
}

/// What spoke for the chosen host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    /// It is what the packing policy likes best.
    #[default]
    BestFit,
    /// It is in a zone with fewer sandboxes of this function.
    ZoneSpread,
    /// It has fewer sandboxes of this function itself.
    HostSpread,
    /// It has more of the function's bytes.
    Locality,
    /// It is less busy.
    LessLoaded,
}

/// A chosen host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub host: HostIndex,
    /// The policy's own score, for people to compare.
    pub score: i32,
    /// What spoke for it over the packing policy's first.
    pub reason: Reason,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On that host.
    On(Choice),
    /// No host will do: ask for another.
    NeedHost,
}

/// The state of the placement rules: every host.
#[derive(Debug, Clone, Default)]
pub struct PlacementRules {
    hosts: HostTable,
}

/// The parts of one candidate's score, each in thousandths before it is weighed.
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    fit: i32,
    zone: i32,
    host: i32,
    locality: i32,
    load: i32,
}

impl Parts {
    /// Starting a function where its bytes are saves most; losing a zone costs more than losing a host; a good fit
    /// saves hosts in the long run; load is a tie-breaker until a host is nearly all busy.
    fn total(self) -> i32 {
        self.fit * 3 + self.zone * 4 + self.host * 2 + self.locality * 5 + self.load
    }
}

impl PlacementRules {
    /// No hosts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The hosts it knows.
    #[must_use]
    pub fn hosts(&self) -> &HostTable {
        &self.hosts
    }

    /// Starts again from these hosts.
    pub fn snapshot(&mut self, hosts: impl IntoIterator<Item = HostInfo>) {
        self.hosts.clear();
        for host in hosts {
            self.apply(Delta::Upsert(host));
        }
    }

    /// Takes in one change.
    pub fn apply(&mut self, delta: Delta) {
        self.hosts.apply(delta);
    }

    /// The best of the candidates.
    #[must_use]
    pub fn choose(&self, request: &PlaceRequest) -> Place {
        let zone_total: u32 =
            request.zones.iter().take(MAX_CANDIDATES).fold(0, |sum, zone| sum.saturating_add(zone.siblings));
        let mut first: Option<Parts> = None;
        let mut best: Option<(i32, HostIndex, Parts)> = None;
        for candidate in request.fits.iter().take(MAX_CANDIDATES) {
            let Some(host) = self.hosts.get(candidate.host).filter(|host| holds(host, candidate, request))
            else {
                continue;
            };
            let parts = parts_of(host, candidate, &request.zones, zone_total);
            let total = parts.total();
            first.get_or_insert(parts);
            // Strictly better only: equal ones keep the packing policy's order.
            if best.is_none_or(|(other, ..)| total > other) {
                best = Some((total, candidate.host, parts));
            }
        }
        match (first, best) {
            (Some(first), Some((score, host, parts))) => {
                Place::On(Choice { host, score, reason: reason(first, parts) })
            }
            _ => Place::NeedHost,
        }
    }
}

fn holds(host: &HostInfo, candidate: &Scored, request: &PlaceRequest) -> bool {
    host.health == Health::Ready
        && request.demand.memory_mib <= host.free_memory_mib.saturating_add(candidate.overcommit_mib)
        && request.demand.cpu_millis <= host.free_cpu_millis
}

fn parts_of(host: &HostInfo, candidate: &Scored, zones: &[ZoneSiblings], zone_total: u32) -> Parts {
    let in_zone =
        zones.iter().take(MAX_CANDIDATES).find(|zone| zone.zone == host.zone).map_or(0, |zone| zone.siblings);
    Parts {
        fit: thousandths(candidate.score.min(1000), 1000),
        zone: 1000 - thousandths(in_zone, zone_total),
        host: 1000 - thousandths(candidate.siblings, candidate.siblings.saturating_add(4)),
        locality: thousandths(candidate.locality.min(1000), 1000),
        load: 1000 - thousandths(host.busy.min(host.sandboxes), host.sandboxes.max(1)),
    }
}

fn thousandths(part: u32, whole: u32) -> i32 {
    if whole == 0 {
        return 0;
    }
    i32::try_from(u64::from(part.min(whole)) * 1000 / u64::from(whole)).unwrap_or(1000)
}

/// The part that gained most over the packing policy's first, if the choice is another.
fn reason(first: Parts, chosen: Parts) -> Reason {
    let gains = [
        ((chosen.zone - first.zone) * 4, Reason::ZoneSpread),
        ((chosen.locality - first.locality) * 5, Reason::Locality),
        ((chosen.host - first.host) * 2, Reason::HostSpread),
        (chosen.load - first.load, Reason::LessLoaded),
    ];
    let mut most = (0, Reason::BestFit);
    for gain in gains {
        if gain.0 > most.0 {
            most = gain;
        }
    }
    most.1
}
