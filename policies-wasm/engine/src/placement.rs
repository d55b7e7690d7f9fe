//! The placement decision: which host gets a new sandbox?

use crate::decided::{About, Candidate, Decided, Explained, Identity, Kind, Status};
use crate::interface::{Ask, Interface};
use crate::inventory::Inventory;
use crate::packing::host_name;
use crate::recent::{Entry, Note};
use crate::slot::Slot;
use crate::wasm::{Failure, LoadError, PlacementGuest, Policy};
use std::sync::Arc;
use warren_policy_rules::{Delta, Health, HostInfo, Place, PlaceRequest, PlacementRules, Reason};

/// Decides placement; share it in an `Arc`.
pub struct Placement {
    slot: Slot<Interfaced>,
}

impl Placement {
    /// The built-in default, following the inventory.
    #[must_use]
    pub fn new(inventory: &Arc<Inventory>) -> Self {
        Self { slot: Slot::following(inventory, String::new(), PlacementRules::new()) }
    }

    /// One of the request's fits, or none of them.
    #[expect(
        clippy::must_use_candidate,
        reason = "a decision is counted and remembered, whoever looks at it"
    )]
    pub fn choose(&self, about: &About<'_>, request: &PlaceRequest) -> Decided<Place> {
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
    const KIND: Kind = Kind::Placement;
    type Native = PlacementRules;
    type Guest = PlacementGuest;
    type Outcome = Place;

    fn apply(native: &mut PlacementRules, delta: Delta) {
        native.apply(delta);
    }

    fn start(policy: &Policy, _config: &str, hosts: &[HostInfo]) -> Result<PlacementGuest, LoadError> {
        let mut guest = PlacementGuest::start(policy)?;
        guest.snapshot(hosts)?;
        Ok(guest)
    }

    fn text(entry: &Entry<Place>, inventory: Option<&Inventory>) -> String {
        match entry.outcome {
            Place::NeedHost if entry.candidates == 0 => "no host fits: another host is needed".to_owned(),
            Place::NeedHost => format!("none of {} hosts will do: another is needed", entry.candidates),
            Place::On(choice) => {
                let why = match choice.reason {
                    Reason::BestFit => "the best fit",
                    Reason::ZoneSpread => "its zone has fewer sandboxes of this function",
                    Reason::HostSpread => "it has fewer sandboxes of this function",
                    Reason::Locality => "it has more of the function's bytes",
                    Reason::LessLoaded => "it is less busy",
                };
                let host = host_name(inventory, choice.host);
                format!("on {host}: {why} (score {}, of {} hosts)", choice.score, entry.candidates)
            }
        }
    }

    fn candidates(entry: &Entry<Place>, inventory: Option<&Inventory>) -> Vec<Candidate> {
        let candidate = |note: &Note| {
            let [siblings, locality, _] = note.facts;
            Candidate {
                id: host_name(inventory, note.id),
                score: note.score,
                chosen: note.chosen,
                note: format!("{siblings} siblings, {} % of its bytes", locality / 10),
            }
        };
        entry.notes().iter().map(candidate).collect()
    }
}

impl Ask<Interfaced> for PlaceRequest {
    type Answer = Place;

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn native(&self, native: &mut PlacementRules) -> Place {
        native.choose(self)
    }

    fn guest(
        &self,
        guest: &mut PlacementGuest,
        native: &PlacementRules,
        deltas: &[Delta],
    ) -> (Result<Place, Failure>, u64) {
        guest.choose(deltas, self, native.candidates(self))
    }

    fn check(&self, native: &PlacementRules, place: &Place) -> Result<(), String> {
        let Place::On(choice) = place else { return Ok(()) };
        let host = choice.host;
        let fit = self.fits.iter().find(|fit| fit.host == host);
        let fit = fit.ok_or_else(|| format!("host {host} was not among the candidates"))?;
        let known = native.hosts().get(host).ok_or_else(|| format!("there is no host {host}"))?;
        let wrong = if known.health != Health::Ready {
            "is not ready"
        } else if self.demand.memory_mib > known.free_memory_mib.saturating_add(fit.overcommit_mib) {
            "has not enough memory"
        } else if self.demand.cpu_millis > known.free_cpu_millis {
            "has not enough CPU"
        } else {
            return Ok(());
        };
        Err(format!("host {host} {wrong}"))
    }

    fn outcome(&self, place: &Place) -> Place {
        *place
    }

    fn note(&self, place: &Place, entry: &mut Entry<Place>) {
        for fit in &self.fits {
            entry.note(Note {
                id: fit.host,
                score: i64::from(fit.score),
                chosen: matches!(place, Place::On(choice) if choice.host == fit.host),
                facts: [fit.siblings, fit.locality, 0],
            });
        }
    }
}
