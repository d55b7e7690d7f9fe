//! The routing decision: which idle sandbox, or a new one, takes an invocation?

use crate::decided::{About, Candidate, Decided, Explained, Identity, Kind, Status};
use crate::inventory::Inventory;
use crate::recent::{Entry, Note};
use crate::slot::{Interface, Slot};
use warren_policy_rules::{Delta, Route, RouteRequest, RoutingRules, Windows};

/// Decides routing; share it in an `Arc`. It needs no inventory, so it runs in frontends too.
pub struct Routing {
    slot: Slot<Interfaced>,
}

impl Default for Routing {
    fn default() -> Self {
        Self::new()
    }
}

impl Routing {
    /// The built-in default.
    #[must_use]
    pub fn new() -> Self {
        Self { slot: Slot::alone(RoutingRules::new()) }
    }

    /// One of the request's idle sandboxes, or a new one.
    pub fn choose(&self, about: &About<'_>, request: &RouteRequest) -> Decided<Route> {
        self.slot.decide(
            about,
            request.now_ms,
            |native| native.choose(request),
            |route| Outcome::Route(*route),
            |route, entry| {
                for sandbox in &request.idle {
                    entry.note(Note {
                        id: sandbox.index,
                        score: -i64::from(sandbox.idle_ms),
                        chosen: *route == Route::To(sandbox.index),
                        facts: [sandbox.idle_ms, u32::from(sandbox.zone == request.zone), sandbox.host_load],
                    });
                }
            },
        )
    }

    /// An invocation of the function came at `now_ms`: for how long shall its sandboxes be kept?
    pub fn observe(&self, about: &About<'_>, function: u64, now_ms: u64) -> Decided<Windows> {
        self.slot.decide(
            about,
            now_ms,
            |native| native.observe(function, now_ms),
            |windows| Outcome::Windows(*windows),
            |_, _| {},
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
pub(crate) enum Outcome {
    Route(Route),
    Windows(Windows),
}

impl Interface for Interfaced {
    const KIND: Kind = Kind::Routing;
    type Native = RoutingRules;
    type Outcome = Outcome;

    fn apply(_: &mut RoutingRules, _: Delta) {}

    fn text(entry: &Entry<Outcome>, _: Option<&Inventory>) -> String {
        match entry.outcome {
            Outcome::Route(Route::StartNew) => format!("{} idle: start a new one", entry.candidates),
            Outcome::Route(Route::To(index)) => {
                let idle = entry.notes().iter().find(|note| note.chosen).map_or(0, |note| note.facts[0]);
                format!("to sandbox #{index}, idle for {idle} ms, of {} idle", entry.candidates)
            }
            Outcome::Windows(Windows { keep_alive_ms, pre_warm_ms: 0 }) => {
                format!("keep idle sandboxes for {} s", keep_alive_ms / 1000)
            }
            Outcome::Windows(Windows { keep_alive_ms, pre_warm_ms }) => {
                let (keep, warm) = (keep_alive_ms / 1000, pre_warm_ms / 1000);
                format!("let go, start again after {warm} s, keep for {keep} s")
            }
        }
    }

    fn candidates(entry: &Entry<Outcome>, _: Option<&Inventory>) -> Vec<Candidate> {
        let candidate = |note: &Note| {
            let [idle_ms, same_zone, load] = note.facts;
            let zone = if same_zone == 1 { "same zone" } else { "other zone" };
            Candidate {
                id: format!("#{}", note.id),
                score: note.score,
                chosen: note.chosen,
                note: format!("idle for {idle_ms} ms, {zone}, host {} % busy", load / 10),
            }
        };
        entry.notes().iter().map(candidate).collect()
    }
}
