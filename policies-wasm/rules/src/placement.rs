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

impl PlaceRequest {
    /// How many sandboxes the function has in all.
    #[must_use]
    pub fn siblings(&self) -> u32 {
        let zones = self.zones.iter().take(MAX_CANDIDATES);
        zones.fold(0, |sum, zone| sum.saturating_add(zone.siblings))
    }
}

/// A host that the packing policy listed, and how many sandboxes of the function its zone has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Candidate {
    /// The host.
    pub fit: Scored,
    /// Sandboxes of the function in its zone.
    pub zone_siblings: u32,
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
        let candidates = self.candidates(request);
        self.choose_among(&request.demand, request.siblings(), candidates)
    }

    /// The request's candidates, each with the siblings in its zone.
    pub fn candidates<'a>(&'a self, request: &'a PlaceRequest) -> impl Iterator<Item = Candidate> + 'a {
        request.fits.iter().take(MAX_CANDIDATES).map(|fit| {
            let zone = self.hosts.get(fit.host).map(|host| host.zone);
            let mut zones = request.zones.iter().take(MAX_CANDIDATES);
            let siblings = zones.find(|other| zone == Some(other.zone)).map_or(0, |found| found.siblings);
            Candidate { fit: *fit, zone_siblings: siblings }
        })
    }

    /// The best of the candidates, where the function has so many sandboxes in all.
    #[must_use]
    pub fn choose_among(
        &self,
        demand: &Demand,
        siblings: u32,
        candidates: impl Iterator<Item = Candidate>,
    ) -> Place {
        let mut first: Option<Parts> = None;
        let mut best: Option<(i32, HostIndex, Parts)> = None;
        for candidate in candidates {
            let host = self.hosts.get(candidate.fit.host);
            let Some(host) = host.filter(|host| holds(host, &candidate.fit, demand)) else { continue };
            let parts = parts_of(host, &candidate, siblings);
            let total = parts.total();
            first.get_or_insert(parts);
            // Strictly better only: equal ones keep the packing policy's order.
            if best.is_none_or(|(other, ..)| total > other) {
                best = Some((total, candidate.fit.host, parts));
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

fn holds(host: &HostInfo, fit: &Scored, demand: &Demand) -> bool {
    host.health == Health::Ready
        && demand.memory_mib <= host.free_memory_mib.saturating_add(fit.overcommit_mib)
        && demand.cpu_millis <= host.free_cpu_millis
}

fn parts_of(host: &HostInfo, candidate: &Candidate, siblings: u32) -> Parts {
    let Candidate { fit, zone_siblings } = candidate;
    Parts {
        fit: at_most_thousand(fit.score),
        zone: 1000 - thousandths(*zone_siblings, siblings),
        host: 1000 - thousandths(fit.siblings, fit.siblings.saturating_add(4)),
        locality: at_most_thousand(fit.locality),
        load: 1000 - thousandths(host.busy, host.sandboxes),
    }
}

fn at_most_thousand(value: u32) -> i32 {
    i32::try_from(value.min(1000)).unwrap_or(1000)
}

/// A share in thousandths; none of nothing is nothing.
fn thousandths(part: u32, whole: u32) -> i32 {
    if part == 0 || whole == 0 {
        return 0;
    }
    let part = part.min(whole);
    let share = match part.checked_mul(1000) {
        Some(product) => product / whole,
        None => u32::try_from(u64::from(part) * 1000 / u64::from(whole)).unwrap_or(1000),
    };
    at_most_thousand(share)
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
