//! The built-in placement policy as a component: the very rules that are the engine's native default.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use warren_policy_rules as rules;
use warren_policy_sdk::placement::{
    Choice, Delta, Demand, Health, HostInfo, Place, PlaceRequest, PlacementPolicy, Reason,
};

struct Placement(rules::PlacementRules);

impl PlacementPolicy for Placement {
    fn new(_config: &str) -> Self {
        Self(rules::PlacementRules::new())
    }

    fn snapshot(&mut self, hosts: Vec<HostInfo>) {
        self.0.snapshot(hosts.into_iter().map(host));
    }

    fn choose(&mut self, deltas: Vec<Delta>, request: &PlaceRequest) -> Place {
        for change in deltas {
            self.0.apply(delta(change));
        }
        match self.0.choose(&place_request(request)) {
            rules::Place::NeedHost => Place::NeedHost,
            rules::Place::On(rules::Choice { host, score, reason }) => {
                Place::On(Choice { host, score, reason: reason_of(reason) })
            }
        }
    }
}

warren_policy_sdk::export_placement!(Placement);

fn host(info: HostInfo) -> rules::HostInfo {
    rules::HostInfo {
        index: info.index,
        zone: info.zone,
        health: match info.health {
            Health::NotReady => rules::Health::NotReady,
            Health::Ready => rules::Health::Ready,
            Health::Draining => rules::Health::Draining,
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

fn delta(delta: Delta) -> rules::Delta {
    match delta {
        Delta::Upsert(info) => rules::Delta::Upsert(host(info)),
        Delta::Removed(index) => rules::Delta::Removed(index),
    }
}

fn demand(demand: &Demand) -> rules::Demand {
    rules::Demand {
        function: demand.function,
        memory_mib: demand.memory_mib,
        cpu_millis: demand.cpu_millis,
        memory_used_p50_mib: demand.memory_used_p50_mib,
        memory_used_p99_mib: demand.memory_used_p99_mib,
        concurrency_p50: demand.concurrency_p50,
        concurrency_p99: demand.concurrency_p99,
    }
}

fn place_request(request: &PlaceRequest) -> rules::PlaceRequest {
    let scored = |one: &warren_policy_sdk::placement::Scored| rules::Scored {
        host: one.host,
        score: one.score,
        overcommit_mib: one.overcommit_mib,
        siblings: one.siblings,
        locality: one.locality,
    };
    let zone = |one: &warren_policy_sdk::placement::ZoneSiblings| rules::ZoneSiblings {
        zone: one.zone,
        siblings: one.siblings,
    };
    rules::PlaceRequest {
        now_ms: request.now_ms,
        seed: request.seed,
        demand: demand(&request.demand),
        fits: request.fits.iter().map(scored).collect(),
        zones: request.zones.iter().map(zone).collect(),
    }
}

fn reason_of(reason: rules::Reason) -> Reason {
    match reason {
        rules::Reason::BestFit => Reason::BestFit,
        rules::Reason::ZoneSpread => Reason::ZoneSpread,
        rules::Reason::HostSpread => Reason::HostSpread,
        rules::Reason::Locality => Reason::Locality,
        rules::Reason::LessLoaded => Reason::LessLoaded,
    }
}
