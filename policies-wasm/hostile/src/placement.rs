//! The placement side.

use crate::misdeeds::{self, BY_SEED, NAN, UNKNOWN};
use alloc::vec::Vec;
use warren_policy_sdk::placement::{Choice, Deltas, HostInfo, Place, PlaceRequest, PlacementPolicy, Reason};
use warren_policy_sdk::rules::PlacementRules;

struct Hostile(PlacementRules);

impl PlacementPolicy for Hostile {
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
        misdeeds::commit(request.demand.function);
        let on = |host, score| Place::On(Choice { host, score, reason: Reason::BestFit });
        match request.demand.function {
            UNKNOWN => on(u32::MAX, 0),
            BY_SEED => on(u32::try_from(request.seed).unwrap_or(u32::MAX), 0),
            NAN => {
                let bits = misdeeds::nan_bits(request.seed);
                let at = bits as usize % request.fits.len().max(1);
                let host = request.fits.get(at).map_or(0, |candidate| candidate.fit.host);
                on(host, i32::from_ne_bytes(bits.to_ne_bytes()))
            }
            _ => {
                let demand = (&request.demand).into();
                self.0.choose_among(&demand, request.siblings, request.fits.iter()).into()
            }
        }
    }
}

warren_policy_sdk::export_placement!(Hostile);
