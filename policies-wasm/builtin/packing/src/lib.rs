//! The built-in packing policy as a component: the very rules that are the engine's native default.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use warren_policy_sdk::packing::{Deltas, FitRequest, Fits, HostInfo, PackingPolicy};
use warren_policy_sdk::rules::{PackingConfig, PackingRules};

struct Packing(PackingRules);

impl PackingPolicy for Packing {
    fn new(config: &str) -> Self {
        Self(PackingRules::new(PackingConfig::parse(config)))
    }

    fn snapshot(&mut self, hosts: Vec<HostInfo>) {
        self.0.snapshot(hosts.into_iter().map(Into::into));
    }

    fn choose(&mut self, deltas: Deltas, request: FitRequest) -> Fits {
        for delta in deltas.iter() {
            self.0.apply(delta);
        }
        self.0.choose(&(&request).into())
    }
}

warren_policy_sdk::export_packing!(Packing);
