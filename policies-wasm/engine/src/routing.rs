//! The routing decision: which idle sandbox, or a new one, takes an invocation?

use crate::decided::{About, Candidate, Decided, Explained, Identity, Kind, Status};
use crate::interface::{Ask, Interface};
use crate::inventory::Inventory;
use crate::recent::{Entry, Note};
use crate::slot::Slot;
use crate::wasm::{Failure, LoadError, Policy, RoutingGuest};
use std::sync::Arc;
use warren_policy_rules::{Delta, HostInfo, MAX_CANDIDATES, Route, RouteRequest, RoutingRules, Windows};

/// No policy may keep a sandbox, or wait to start one, for longer.
const LONGEST_WINDOW_MS: u32 = 24 * 60 * 60 * 1000;

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
    #[expect(
        clippy::must_use_candidate,
        reason = "a decision is counted and remembered, whoever looks at it"
    )]
    pub fn choose(&self, about: &About<'_>, request: &RouteRequest) -> Decided<Route> {
        self.slot.decide(about, request)
    }

    /// An invocation of the function came at `now_ms`: for how long shall its sandboxes be kept?
    #[expect(
        clippy::must_use_candidate,
        reason = "a decision is counted and remembered, whoever looks at it"
    )]
    pub fn observe(&self, about: &About<'_>, function: u64, now_ms: u64) -> Decided<Windows> {
        self.slot.decide(about, &Observed { function, now_ms })
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

#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Route(Route),
    Windows(Windows),
}

impl Interface for Interfaced {
    const KIND: Kind = Kind::Routing;
    type Native = RoutingRules;
    type Guest = RoutingGuest;
    type Outcome = Outcome;

    fn apply(_: &mut RoutingRules, _: Delta) {}

    fn start(policy: &Policy, _config: &str, _hosts: &[HostInfo]) -> Result<RoutingGuest, LoadError> {
        RoutingGuest::start(policy)
    }

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

impl Ask<Interfaced> for RouteRequest {
    type Answer = Route;

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn native(&self, native: &mut RoutingRules) -> Route {
        native.choose(self)
    }

    fn guest(
        &self,
        guest: &mut RoutingGuest,
        _native: &RoutingRules,
        _deltas: &[Delta],
    ) -> (Result<Route, Failure>, u64) {
        guest.choose(self)
    }

    fn check(&self, _native: &RoutingRules, route: &Route) -> Result<(), String> {
        match route {
            Route::StartNew => Ok(()),
            Route::To(index) if self.idle.iter().any(|sandbox| sandbox.index == *index) => Ok(()),
            Route::To(index) => Err(format!("there is no idle sandbox {index}")),
        }
    }

    fn outcome(&self, route: &Route) -> Outcome {
        Outcome::Route(*route)
    }

    fn note(&self, route: &Route, entry: &mut Entry<Outcome>) {
        for sandbox in self.idle.iter().take(MAX_CANDIDATES) {
            entry.note(Note {
                id: sandbox.index,
                score: -i64::from(sandbox.idle_ms),
                chosen: *route == Route::To(sandbox.index),
                facts: [sandbox.idle_ms, u32::from(sandbox.zone == self.zone), sandbox.host_load],
            });
        }
    }
}

/// An invocation came.
struct Observed {
    function: u64,
    now_ms: u64,
}

impl Ask<Interfaced> for Observed {
    type Answer = Windows;

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn native(&self, native: &mut RoutingRules) -> Windows {
        native.observe(self.function, self.now_ms)
    }

    fn follow(&self, native: &mut RoutingRules) {
        native.observe(self.function, self.now_ms);
    }

    fn guest(
        &self,
        guest: &mut RoutingGuest,
        _native: &RoutingRules,
        _deltas: &[Delta],
    ) -> (Result<Windows, Failure>, u64) {
        guest.observe(self.function, self.now_ms)
    }

    fn check(&self, _native: &RoutingRules, windows: &Windows) -> Result<(), String> {
        let Windows { keep_alive_ms, pre_warm_ms } = *windows;
        if keep_alive_ms > LONGEST_WINDOW_MS || pre_warm_ms > LONGEST_WINDOW_MS {
            return Err(format!("windows of {keep_alive_ms} and {pre_warm_ms} ms: a day is the most"));
        }
        Ok(())
    }

    fn outcome(&self, windows: &Windows) -> Outcome {
        Outcome::Windows(*windows)
    }

    fn note(&self, _windows: &Windows, _entry: &mut Entry<Outcome>) {}
}
