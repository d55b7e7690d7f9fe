//! The packing decision: how well does a function fit each host's present mix?

use crate::decided::{About, Candidate, Decided, Explained, Identity, Kind, Status};
use crate::inventory::Inventory;
use crate::recent::{Entry, Note};
use crate::slot::{Interface, Slot};
use std::sync::Arc;
use warren_policy_rules::{Delta, FitRequest, Fits, PackingConfig, PackingRules};

/// Decides packing; share it in an `Arc`.
pub struct Packing {
    slot: Slot<Interfaced>,
}

impl Packing {
    /// The built-in default, following the inventory.
    #[must_use]
    pub fn new(inventory: &Arc<Inventory>, config: PackingConfig) -> Self {
        Self { slot: Slot::following(inventory, PackingRules::new(config)) }
    }

    /// The best hosts for a function, best first; none if no host has room.
    pub fn choose(&self, about: &About<'_>, request: &FitRequest) -> Decided<Fits> {
        self.slot.decide(
            about,
            request.now_ms,
            |native| native.choose(request),
            |fits| fits.best.len(),
            |fits, entry| {
                for (at, fit) in fits.best.iter().enumerate() {
                    entry.note(Note {
                        id: fit.host,
                        score: i64::from(fit.score),
                        chosen: at == 0,
                        facts: [fit.overcommit_mib, 0, 0],
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
    const KIND: Kind = Kind::Packing;
    type Native = PackingRules;
    /// How many hosts fit.
    type Outcome = usize;

    fn apply(native: &mut PackingRules, delta: Delta) {
        native.apply(delta);
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

/// A host's name, or its number once it is gone.
pub(crate) fn host_name(inventory: Option<&Inventory>, index: u32) -> String {
    inventory
        .and_then(|inventory| inventory.name(index))
        .map_or_else(|| format!("host #{index} (gone)"), |name| name.to_string())
}
