//! Routing: which idle sandbox, or a new one, takes an invocation?
//!
//! The one used most recently, of the caller's zone if there is one: so a falling load leaves the same few
//! sandboxes warm and lets the others grow old and be reclaimed. A sandbox on a host that is all but saturated
//! loses to any other, zone or not. None idle: start one.

use crate::MAX_CANDIDATES;
use crate::keep_alive::{Histories, Windows};
use alloc::vec::Vec;

/// From this load on, thousandths, a host counts as saturated.
const SATURATED: u32 = 950;

/// One idle sandbox of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdleSandbox {
    /// The caller's number for it; answers name it.
    pub index: u32,
    /// How long it has been idle.
    pub idle_ms: u32,
    /// How many invocations it has served.
    pub invocations: u32,
    /// Where its host is.
    pub zone: u32,
    /// How busy its host is, thousandths.
    pub host_load: u32,
}

/// Which of these sandboxes?
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteRequest {
    /// Unix milliseconds, given by the caller: deciders have no clock.
    pub now_ms: u64,
    /// Random, given by the caller.
    pub seed: u64,
    /// Stable hash of account and function.
    pub function: u64,
    /// Where the caller is.
    pub zone: u32,
    /// At most [`MAX_CANDIDATES`].
    pub idle: Vec<IdleSandbox>,
    /// How many sandboxes of the function are busy.
    pub busy: u32,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To the idle sandbox of that `index`.
    To(u32),
    /// To a new one.
    StartNew,
}

/// The state of the routing rules: when each function was used.
#[derive(Debug, Clone, Default)]
pub struct RoutingRules {
    histories: Histories,
}

impl RoutingRules {
    /// No history yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses among the idle sandboxes.
    #[must_use]
    pub fn choose(&self, request: &RouteRequest) -> Route {
        self.choose_among(request.zone, request.idle.iter().copied())
    }

    /// Chooses among these idle sandboxes for a caller in that zone.
    #[must_use]
    pub fn choose_among(&self, zone: u32, idle: impl Iterator<Item = IdleSandbox>) -> Route {
        idle.take(MAX_CANDIDATES)
            .min_by_key(|sandbox| rank(sandbox, zone))
            .map_or(Route::StartNew, |sandbox| Route::To(sandbox.index))
    }

    /// An invocation of the function came: for how long shall its sandboxes be kept?
    pub fn observe(&mut self, function: u64, now_ms: u64) -> Windows {
        self.histories.observe(function, now_ms)
    }
}

/// Smallest is best. Two words: saturation, zone and idle time; then, among equals, more invocations, lower index.
fn rank(sandbox: &IdleSandbox, zone: u32) -> (u64, u64) {
    let saturated = u64::from(sandbox.host_load >= SATURATED);
    let elsewhere = u64::from(sandbox.zone != zone);
    let first = (saturated << 33) | (elsewhere << 32) | u64::from(sandbox.idle_ms);
    let second = (u64::from(u32::MAX - sandbox.invocations) << 32) | u64::from(sandbox.index);
    (first, second)
}
