//! The built-in placement policy as a component: the very rules that are the engine's native default.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use warren_policy_sdk::placement::{Deltas, HostInfo, Place, PlaceRequest, PlacementPolicy};
use warren_policy_sdk::rules::PlacementRules;

struct Placement(PlacementRules);

impl PlacementPolicy for Placement {
    fn new(_config: &str) -> Self {
        Self(PlacementRules::new())
    }

    fn snapshot(&mut self, hosts: Vec<HostInfo>) {
        self.0.snapshot(hosts.into_iter().map(Into::into));
    }

    fn choose(&mut self, deltas: Deltas, request: PlaceRequest) -> Place {
        for delta in deltas.iter() {
            self.0.apply(delta);
        }
        self.0.choose_among(&(&request.demand).into(), request.siblings, request.fits.iter()).into()
    }
}

warren_policy_sdk::export_placement!(Placement);
