//! A placement policy's instance.

use super::bindings::placement::Placement;
use super::bindings::placement::exports::warren::policy::placer;
use super::convert::placement as convert;
use super::instance::{Budget, Failure, Instance};
use super::policy::{Linked, LoadError, Policy};
use crate::decided::Kind;
use warren_policy_rules::{Candidate, Choice, Delta, HostInfo, Place, PlaceRequest, Reason, extend};

/// One instance; buffers are kept so that a decision allocates nothing on this side.
pub(crate) struct PlacementGuest {
    instance: Instance<Placement>,
    deltas: Vec<u32>,
    fits: Vec<u32>,
}

impl PlacementGuest {
    pub(crate) fn start(policy: &Policy) -> Result<Self, LoadError> {
        let Linked::Placement(linked) = &policy.linked else {
            return Err(LoadError::WrongKind { found: policy.kind(), wanted: Kind::Placement });
        };
        let instance = Instance::start(
            &policy.runtime,
            |store| linked.instantiate(store),
            |exports, store| exports.warren_policy_placer().state().call_constructor(store, ""),
        )?;
        Ok(Self { instance, deltas: Vec::new(), fits: Vec::new() })
    }

    pub(crate) fn snapshot(&mut self, hosts: &[HostInfo]) -> Result<(), Failure> {
        let hosts: Vec<_> = hosts.iter().map(convert::host).collect();
        let budget = Budget::snapshot(self.instance.limits(), hosts.len());
        let (result, _) = self.instance.call(budget, |exports, store, state| {
            exports.warren_policy_placer().state().call_snapshot(store, state, &hosts)
        });
        result
    }

    /// `candidates` are the request's fits, each with the siblings in its zone.
    pub(crate) fn choose(
        &mut self,
        deltas: &[Delta],
        request: &PlaceRequest,
        candidates: impl Iterator<Item = Candidate>,
    ) -> (Result<Place, Failure>, u64) {
        self.deltas.clear();
        extend(&mut self.deltas, deltas.iter().copied());
        self.fits.clear();
        extend(&mut self.fits, candidates);
        let budget = Budget::decision(self.instance.limits(), deltas.len());
        let request = placer::PlaceRequest {
            now_ms: request.now_ms,
            seed: request.seed,
            demand: convert::demand(&request.demand),
            fits: &self.fits,
            siblings: request.siblings(),
        };
        let (result, fuel) = self.instance.call(budget, |exports, store, state| {
            exports.warren_policy_placer().state().call_choose(store, state, &self.deltas, request)
        });
        (result.map(place), fuel)
    }
}

fn place(place: placer::Place) -> Place {
    match place {
        placer::Place::NeedHost => Place::NeedHost,
        placer::Place::On(placer::Choice { host, score, reason }) => {
            let reason = match reason {
                placer::Reason::BestFit => Reason::BestFit,
                placer::Reason::ZoneSpread => Reason::ZoneSpread,
                placer::Reason::HostSpread => Reason::HostSpread,
                placer::Reason::Locality => Reason::Locality,
                placer::Reason::LessLoaded => Reason::LessLoaded,
            };
            Place::On(Choice { host, score, reason })
        }
    }
}
