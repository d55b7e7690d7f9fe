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
            |fits| Outcome { fits: fits.best.len(), overcommit_mib: fits.overcommit_mib },
            |fits, entry| {
                for (at, fit) in fits.best.iter().enumerate() {
                    entry.note(Note {
                        id: fit.host,
                        score: i64::from(fit.score),
                        chosen: at == 0,
                        facts: [0; 3],
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

#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    fits: usize,
    overcommit_mib: u32,
}

impl Interface for Interfaced {
    const KIND: Kind = Kind::Packing;
    type Native = PackingRules;
    type Outcome = Outcome;

    fn apply(native: &mut PackingRules, delta: Delta) {
        native.apply(delta);
    }

    fn text(entry: &Entry<Outcome>, inventory: Option<&Inventory>) -> String {
        let Some(best) = entry.notes().first() else { return "no host has room".to_owned() };
        let host = host_name(inventory, best.id);
        let Outcome { fits, overcommit_mib } = entry.outcome;
        let grant =
            if overcommit_mib == 0 { String::new() } else { format!(", {overcommit_mib} MiB beyond") };
        format!("{host} fits best ({} of 1000){grant}; {fits} hosts fit", best.score)
    }

    fn candidates(entry: &Entry<Outcome>, inventory: Option<&Inventory>) -> Vec<Candidate> {
        let candidate = |note: &Note| Candidate {
            id: host_name(inventory, note.id),
            score: note.score,
            chosen: note.chosen,
            note: String::new(),
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
