//! A packing policy's instance.

use super::bindings::packing::Packing;
use super::bindings::packing::exports::warren::policy::packer;
use super::convert::packing as convert;
use super::instance::{Budget, Failure, Instance};
use super::policy::{Linked, LoadError, Policy};
use crate::decided::Kind;
use warren_policy_rules::{Delta, Fit, FitRequest, Fits, HostInfo, Row as _, extend};

/// One instance; buffers are kept so that a decision allocates nothing on this side but its answer.
pub(crate) struct PackingGuest {
    instance: Instance<Packing>,
    deltas: Vec<u32>,
}

impl PackingGuest {
    pub(crate) fn start(policy: &Policy, config: &str) -> Result<Self, LoadError> {
        let Linked::Packing(linked) = &policy.linked else {
            return Err(LoadError::WrongKind { found: policy.kind(), wanted: Kind::Packing });
        };
        let instance = Instance::start(
            &policy.runtime,
            |store| linked.instantiate(store),
            |exports, store| exports.warren_policy_packer().state().call_constructor(store, config),
        )?;
        Ok(Self { instance, deltas: Vec::new() })
    }

    pub(crate) fn snapshot(&mut self, hosts: &[HostInfo]) -> Result<(), Failure> {
        let hosts: Vec<_> = hosts.iter().map(convert::host).collect();
        let budget = Budget::snapshot(self.instance.limits(), hosts.len());
        let (result, _) = self.instance.call(budget, |exports, store, state| {
            exports.warren_policy_packer().state().call_snapshot(store, state, &hosts)
        });
        result
    }

    pub(crate) fn choose(&mut self, deltas: &[Delta], request: &FitRequest) -> (Result<Fits, Failure>, u64) {
        self.deltas.clear();
        extend(&mut self.deltas, deltas.iter().copied());
        let budget = Budget::decision(self.instance.limits(), deltas.len());
        let request = packer::FitRequest {
            now_ms: request.now_ms,
            seed: request.seed,
            demand: convert::demand(&request.demand),
            shortlist: request.shortlist,
        };
        let (result, fuel) = self.instance.call(budget, |exports, store, state| {
            exports.warren_policy_packer().state().call_choose(store, state, &self.deltas, request)
        });
        (result.and_then(|words| fits(&words)), fuel)
    }
}

fn fits(words: &[u32]) -> Result<Fits, Failure> {
    let (rows, rest) = words.as_chunks();
    if !rest.is_empty() {
        return Err(Failure::Invalid(format!("fits of {} words; each has three", words.len())));
    }
    Ok(Fits { best: rows.iter().filter_map(Fit::read).collect() })
}
