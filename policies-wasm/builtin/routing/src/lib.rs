//! The built-in routing policy as a component: the very rules that are the engine's native default.
#![no_std]

use warren_policy_sdk::routing::{Route, RouteRequest, RoutingPolicy, Windows};
use warren_policy_sdk::rules::RoutingRules;

struct Routing(RoutingRules);

impl RoutingPolicy for Routing {
    fn new(_config: &str) -> Self {
        Self(RoutingRules::new())
    }

    fn choose(&mut self, request: RouteRequest) -> Route {
        self.0.choose_among(request.zone, request.idle.iter()).into()
    }

    fn observe(&mut self, function: u64, now_ms: u64) -> Windows {
        self.0.observe(function, now_ms).into()
    }
}

warren_policy_sdk::export_routing!(Routing);
