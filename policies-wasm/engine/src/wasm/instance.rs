//! One instance of a policy and the budget of each call into it.

use super::runtime::{Limits, Runtime};
use std::sync::Arc;
use wasmtime::component::ResourceAny;
use wasmtime::{Store, StoreLimits, StoreLimitsBuilder, Trap};

/// What a store carries.
pub(super) struct Data {
    limits: StoreLimits,
}

/// How a call into a policy failed; the instance is of no use afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// It trapped.
    #[error("trap: {0}")]
    Trap(String),
    /// It passed its deadline.
    #[error("past its deadline of {0} ms")]
    Timeout(u64),
    /// It used up its fuel.
    #[error("used up {0} units of fuel")]
    Fuel(u64),
    /// Its answer does not decode, or breaks a hard limit.
    #[error("invalid answer: {0}")]
    Invalid(String),
}

/// The budget of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    fuel: u64,
    ms: u64,
}

impl Budget {
    pub(super) fn decision(limits: &Limits, deltas: usize) -> Self {
        let deltas = u64::try_from(deltas).unwrap_or(u64::MAX);
        Self {
            fuel: limits.decision_fuel.saturating_add(limits.delta_fuel.saturating_mul(deltas)),
            ms: limits.decision_ms,
        }
    }

    pub(super) fn snapshot(limits: &Limits, hosts: usize) -> Self {
        let hosts = u64::try_from(hosts).unwrap_or(u64::MAX);
        Self {
            fuel: limits.decision_fuel.saturating_add(limits.host_fuel.saturating_mul(hosts)),
            ms: limits.snapshot_ms,
        }
    }
}

/// A store, the typed exports in it, and the policy's one `state`.
pub(super) struct Instance<B> {
    runtime: Arc<Runtime>,
    store: Store<Data>,
    exports: B,
    state: ResourceAny,
}

impl<B> Instance<B> {
    /// Instantiates and constructs the state, both within a snapshot's budget.
    pub(super) fn start(
        runtime: &Arc<Runtime>,
        instantiate: impl FnOnce(&mut Store<Data>) -> wasmtime::Result<B>,
        construct: impl FnOnce(&B, &mut Store<Data>) -> wasmtime::Result<ResourceAny>,
    ) -> Result<Self, Failure> {
        let limits = runtime.limits();
        let data = Data {
            limits: StoreLimitsBuilder::new()
                .memory_size(limits.memory_bytes)
                .memories(1)
                .instances(4)
                .tables(2)
                .build(),
        };
        let mut store = Store::new(&runtime.engine, data);
        store.limiter(|data| &mut data.limits);
        store.epoch_deadline_trap();
        store.set_hostcall_fuel(limits.answer_bytes);
        let budget = Budget::snapshot(limits, 0);
        let (started, _) = metered(runtime, &mut store, budget, |store| {
            let exports = instantiate(store)?;
            let state = construct(&exports, store)?;
            Ok((exports, state))
        });
        let (exports, state) = started?;
        Ok(Self { runtime: Arc::clone(runtime), store, exports, state })
    }

    pub(super) fn limits(&self) -> &Limits {
        self.runtime.limits()
    }

    /// One call within a budget: its result, and the fuel it burnt.
    pub(super) fn call<T>(
        &mut self,
        budget: Budget,
        call: impl FnOnce(&B, &mut Store<Data>, ResourceAny) -> wasmtime::Result<T>,
    ) -> (Result<T, Failure>, u64) {
        let Self { runtime, store, exports, state } = self;
        metered(runtime, store, budget, |store| call(exports, store, *state))
    }
}

fn metered<T>(
    runtime: &Runtime,
    store: &mut Store<Data>,
    budget: Budget,
    call: impl FnOnce(&mut Store<Data>) -> wasmtime::Result<T>,
) -> (Result<T, Failure>, u64) {
    // Setting fuel fails only where fuel is off, and it is on in every engine of this crate; were it not, the call
    // below would trap for want of it, which is the safe side.
    let _ = store.set_fuel(budget.fuel);
    store.set_epoch_deadline(budget.ms.min(Limits::LONGEST_MS));
    runtime.ticker.touch();
    let result = call(store).map_err(|error| failure(&error, budget));
    let burnt = budget.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
    (result, burnt)
}

fn failure(error: &wasmtime::Error, budget: Budget) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Failure::Fuel(budget.fuel),
        Some(Trap::Interrupt) => Failure::Timeout(budget.ms),
        Some(trap) => Failure::Trap(trap.to_string()),
        // Not a trap: the canonical ABI could not make sense of what came back.
        None => Failure::Invalid(error.root_cause().to_string()),
    }
}
