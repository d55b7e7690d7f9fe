//! The built-in rules, to build upon: keep their state in yours, ask them first, and change what you know better.
//!
//! The conversions are field by field; most compile to nothing.

pub use warren_policy_rules::*;

use crate::{packing as pack, placement as place, routing as route};

impl From<pack::HostInfo> for HostInfo {
    fn from(info: pack::HostInfo) -> Self {
        Self {
            index: info.index,
            zone: info.zone,
            health: match info.health {
                pack::Health::NotReady => Health::NotReady,
                pack::Health::Ready => Health::Ready,
                pack::Health::Draining => Health::Draining,
            },
            memory_mib: info.memory_mib,
            free_memory_mib: info.free_memory_mib,
            cpu_millis: info.cpu_millis,
            free_cpu_millis: info.free_cpu_millis,
            used_p50_mib: info.used_p50_mib,
            used_spread_mib: info.used_spread_mib,
            sandboxes: info.sandboxes,
            busy: info.busy,
        }
    }
}

impl From<&pack::Demand> for Demand {
    fn from(demand: &pack::Demand) -> Self {
        Self {
            function: demand.function,
            memory_mib: demand.memory_mib,
            cpu_millis: demand.cpu_millis,
            memory_used_p50_mib: demand.memory_used_p50_mib,
            memory_used_p99_mib: demand.memory_used_p99_mib,
            concurrency_p50: demand.concurrency_p50,
            concurrency_p99: demand.concurrency_p99,
        }
    }
}

impl From<&pack::FitRequest> for FitRequest {
    fn from(request: &pack::FitRequest) -> Self {
        Self {
            now_ms: request.now_ms,
            seed: request.seed,
            demand: (&request.demand).into(),
            shortlist: request.shortlist,
        }
    }
}

impl From<Place> for place::Place {
    fn from(place: Place) -> Self {
        let Place::On(Choice { host, score, reason }) = place else { return Self::NeedHost };
        let reason = match reason {
            Reason::BestFit => place::Reason::BestFit,
            Reason::ZoneSpread => place::Reason::ZoneSpread,
            Reason::HostSpread => place::Reason::HostSpread,
            Reason::Locality => place::Reason::Locality,
            Reason::LessLoaded => place::Reason::LessLoaded,
        };
        Self::On(place::Choice { host, score, reason })
    }
}

impl From<Route> for route::Route {
    fn from(route: Route) -> Self {
        match route {
            Route::To(index) => Self::To(index),
            Route::StartNew => Self::StartNew,
        }
    }
}

impl From<Windows> for route::Windows {
    fn from(Windows { keep_alive_ms, pre_warm_ms }: Windows) -> Self {
        Self { keep_alive_ms, pre_warm_ms }
    }
}
