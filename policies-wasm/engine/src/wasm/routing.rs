//! A routing policy's instance.

use super::bindings::routing::Routing;
use super::bindings::routing::exports::warren::policy::router;
use super::instance::{Budget, Failure, Instance};
use super::policy::{Linked, LoadError, Policy};
use crate::decided::Kind;
use warren_policy_rules::{Route, RouteRequest, Windows, extend};

/// One instance; buffers are kept so that a decision allocates nothing on this side.
pub(crate) struct RoutingGuest {
    instance: Instance<Routing>,
    idle: Vec<u32>,
}

impl RoutingGuest {
    pub(crate) fn start(policy: &Policy) -> Result<Self, LoadError> {
        let Linked::Routing(linked) = &policy.linked else {
            return Err(LoadError::WrongKind { found: policy.kind(), wanted: Kind::Routing });
        };
        let instance = Instance::start(
            &policy.runtime,
            |store| linked.instantiate(store),
            |exports, store| exports.warren_policy_router().state().call_constructor(store, ""),
        )?;
        Ok(Self { instance, idle: Vec::new() })
    }

    pub(crate) fn choose(&mut self, request: &RouteRequest) -> (Result<Route, Failure>, u64) {
        self.idle.clear();
        extend(&mut self.idle, request.idle.iter().copied());
        let budget = Budget::decision(self.instance.limits(), 0);
        let request = router::RouteRequest {
            now_ms: request.now_ms,
            seed: request.seed,
            function: request.function,
            zone: request.zone,
            idle: &self.idle,
            busy: request.busy,
        };
        let (result, fuel) = self.instance.call(budget, |exports, store, state| {
            exports.warren_policy_router().state().call_choose(store, state, request)
        });
        let route = |route| match route {
            router::Route::To(index) => Route::To(index),
            router::Route::StartNew => Route::StartNew,
        };
        (result.map(route), fuel)
    }

    pub(crate) fn observe(&mut self, function: u64, now_ms: u64) -> (Result<Windows, Failure>, u64) {
        let budget = Budget::decision(self.instance.limits(), 0);
        let (result, fuel) = self.instance.call(budget, |exports, store, state| {
            exports.warren_policy_router().state().call_observe(store, state, function, now_ms)
        });
        let windows = |windows: router::Windows| Windows {
            keep_alive_ms: windows.keep_alive_ms,
            pre_warm_ms: windows.pre_warm_ms,
        };
        (result.map(windows), fuel)
    }
}
