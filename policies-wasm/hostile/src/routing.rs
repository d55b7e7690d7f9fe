//! The routing side.

use crate::misdeeds::{self, UNKNOWN, WEEKS};
use warren_policy_sdk::routing::{Route, RouteRequest, RoutingPolicy, Windows};
use warren_policy_sdk::rules::RoutingRules;

struct Hostile(RoutingRules);

impl RoutingPolicy for Hostile {
    fn new(_config: &str) -> Self {
        Self(RoutingRules::new())
    }

    fn choose(&mut self, request: RouteRequest) -> Route {
        misdeeds::commit(request.function);
        match request.function {
            UNKNOWN => Route::To(u32::MAX),
            _ => self.0.choose_among(request.zone, request.idle.iter()).into(),
        }
    }

    fn observe(&mut self, function: u64, now_ms: u64) -> Windows {
        misdeeds::commit(function);
        match function {
            WEEKS => Windows { keep_alive_ms: u32::MAX, pre_warm_ms: 0 },
            _ => self.0.observe(function, now_ms).into(),
        }
    }
}

warren_policy_sdk::export_routing!(Hostile);
