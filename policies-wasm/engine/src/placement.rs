//! The placement decision: which host gets a new sandbox?

use crate::decided::{About, Candidate, Decided, Explained, Identity, Kind, Status};
use crate::inventory::Inventory;
use crate::packing::host_name;
use crate::recent::{Entry, Note};
use crate::slot::{Interface, Slot};
use std::sync::Arc;
use warren_policy_rules::{Delta, Place, PlaceRequest, PlacementRules, Reason};

/// Decides placement; share it in an `Arc`.
pub struct Placement {
    slot: Slot<Interfaced>,
}

impl Placement {
    /// The built-in default, following the inventory.
    #[must_use]
    pub fn new(inventory: &Arc<Inventory>) -> Self {
        Self { slot: Slot::following(inventory, PlacementRules::new()) }
    }

    /// One of the request's fits, or none of them.
    pub fn choose(&self, about: &About<'_>, request: &PlaceRequest) -> Decided<Place> {
        self.slot.decide(
            about,
            request.now_ms,
            |native| native.choose(request),
            |place| *place,
            |place, entry| {
                for fit in &request.fits {
                    entry.note(Note {
                        id: fit.host,
                        score: i64::from(fit.score),
                        chosen: matches!(place, Place::On(choice) if choice.host == fit.host),
                        facts: [fit.siblings, fit.locality, 0],
                    });
                }
            },
        )
    }

    /// A policy is on its way; until it is loaded the built-in default decides and says so.
    pub fn compiling(&self, identity: Identity) {
        self.slot.compiling(identity);
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
    type Outcome = Place;

    fn apply(native: &mut PlacementRules, delta: Delta) {
        native.apply(delta);
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
                format!("on {host}: {why} ({} of {} hosts)", choice.score, entry.candidates)
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
