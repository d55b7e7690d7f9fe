//! The packing decision: how well does a function fit each host's present mix?

use crate::decided::{About, Candidate, Decided, Explained, Identity, Kind, Status};
use crate::interface::{Ask, Interface};
use crate::inventory::Inventory;
use crate::recent::{Entry, Note};
use crate::slot::Slot;
use crate::wasm::{Failure, LoadError, PackingGuest, Policy};
use std::sync::Arc;
use warren_policy_rules::{
    Delta, FitRequest, Fits, Health, HostInfo, MAX_CANDIDATES, PackingConfig, PackingRules,
};

/// Decides packing; share it in an `Arc`.
pub struct Packing {
    slot: Slot<Interfaced>,
}

impl Packing {
    /// The built-in default, following the inventory.
    #[must_use]
    pub fn new(inventory: &Arc<Inventory>, config: PackingConfig) -> Self {
        let words = format!("overcommit-percent={}", config.overcommit_percent);
        Self { slot: Slot::following(inventory, words, PackingRules::new(config)) }
    }

    /// The best hosts for a function, best first; none if no host has room.
    #[expect(
        clippy::must_use_candidate,
        reason = "a decision is counted and remembered, whoever looks at it"
    )]
    pub fn choose(&self, about: &About<'_>, request: &FitRequest) -> Decided<Fits> {
        self.slot.decide(about, request)
    }

    /// A policy is on its way; until it is loaded the built-in default decides and says so.
    pub fn compiling(&self, identity: Identity) {
        self.slot.announce(identity);
    }

    /// The policy that was on its way does not come.
    pub fn compilation_failed(&self, error: String) {
        self.slot.failed(error);
    }

    /// Swaps a policy in without losing a decision; whatever is loaded stays if the new one does not start.
    pub fn load(&self, policy: &Arc<Policy>) -> Result<(), LoadError> {
        self.slot.load(policy)
    }

    /// Back to the built-in default.
    pub fn unload(&self) {
        self.slot.unload();
    }

    /// State and figures.
    #[must_use]
    pub fn status(&self) -> Status {
        self.slot.status()
    }

    /// The last decisions, newest first, perhaps only those about one function.
    #[must_use]
    pub fn recent(&self, function: Option<&str>, last: usize) -> Vec<Explained> {
        self.slot.recent(function, last)
    }
}

struct Interfaced;

impl Interface for Interfaced {
    const KIND: Kind = Kind::Packing;
    type Native = PackingRules;
    type Guest = PackingGuest;
    /// How many hosts fit.
    type Outcome = usize;

    fn apply(native: &mut PackingRules, delta: Delta) {
        native.apply(delta);
    }

    fn start(policy: &Policy, config: &str, hosts: &[HostInfo]) -> Result<PackingGuest, LoadError> {
        let mut guest = PackingGuest::start(policy, config)?;
        guest.snapshot(hosts)?;
        Ok(guest)
    }

    fn text(entry: &Entry<usize>, inventory: Option<&Inventory>) -> String {
        let Some(best) = entry.notes().first() else { return "no host has room".to_owned() };
        let host = host_name(inventory, best.id);
        format!("{host} fits best ({} of 1000); {} hosts fit", best.score, entry.outcome)
    }

    fn candidates(entry: &Entry<usize>, inventory: Option<&Inventory>) -> Vec<Candidate> {
        let candidate = |note: &Note| Candidate {
            id: host_name(inventory, note.id),
            score: note.score,
            chosen: note.chosen,
            note: match note.facts {
                [0, ..] => String::new(),
                [overcommit_mib, ..] => format!("{overcommit_mib} MiB promised twice"),
            },
        };
        entry.notes().iter().map(candidate).collect()
    }
}

impl Ask<Interfaced> for FitRequest {
    type Answer = Fits;

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn native(&self, native: &mut PackingRules) -> Fits {
        native.choose(self)
    }

    fn guest(
        &self,
        guest: &mut PackingGuest,
        _native: &PackingRules,
        deltas: &[Delta],
    ) -> (Result<Fits, Failure>, u64) {
        guest.choose(deltas, self)
    }

    fn check(&self, native: &PackingRules, fits: &Fits) -> Result<(), String> {
        let most = MAX_CANDIDATES.min(self.shortlist as usize);
        if fits.best.len() > most {
            return Err(format!("{} hosts listed, {most} wanted", fits.best.len()));
        }
        for (at, fit) in fits.best.iter().enumerate() {
            let host = fit.host;
            let known = native.hosts().get(host).ok_or_else(|| format!("there is no host {host}"))?;
            let wrong = if known.health != Health::Ready {
                "is not ready"
            } else if fit.overcommit_mib > native.most_overcommit(known) {
                "may not be overcommitted so far"
            } else if self.demand.memory_mib > known.free_memory_mib.saturating_add(fit.overcommit_mib) {
                "has not enough memory"
            } else if self.demand.cpu_millis > known.free_cpu_millis {
                "has not enough CPU"
            } else if fit.score > 1000 {
                "has a score above 1000"
            } else if fits.best.iter().skip(at + 1).any(|other| other.host == host) {
                "is listed twice"
            } else {
                continue;
            };
            return Err(format!("host {host} {wrong}"));
        }
        Ok(())
    }

    fn outcome(&self, fits: &Fits) -> usize {
        fits.best.len()
    }

    fn note(&self, fits: &Fits, entry: &mut Entry<usize>) {
        for (at, fit) in fits.best.iter().enumerate() {
            entry.note(Note {
                id: fit.host,
                score: i64::from(fit.score),
                chosen: at == 0,
                facts: [fit.overcommit_mib, 0, 0],
            });
        }
    }
}

/// A host's name, or its number once it is gone.
pub(crate) fn host_name(inventory: Option<&Inventory>, index: u32) -> String {
    inventory
        .and_then(|inventory| inventory.name(index))
        .map_or_else(|| format!("host #{index} (gone)"), |name| name.to_string())
}
