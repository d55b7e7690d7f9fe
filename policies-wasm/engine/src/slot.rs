//! Where one decision is made: a policy's live instance, another in waiting, and the built-in default.
//!
//! ```text
//!            announce                  load
//!   Native ----------> Compiling ---------------> Active <-----------------------------+
//!      ^                   | compilation failed     | trap, deadline, fuel, nonsense:  |
//!      |                   v               load     | the default decides this very    |
//!      |                Failed ------------> Active | decision, the instance is dropped|
//!      |                                            v                                  |
//!      |               Fallback                 (failed) --- one in waiting: it is next+
//!      |                   ^  ^ too many strikes    |                                  |
//!      |                   |  +---------------------| none: the default decides until  |
//!      |                   | time over              v the builder has made one         |
//!      |                   +-------------------> (rebuilding) -------------------------+
//!      +--- unload, from any
//! ```
//! `(failed)` lasts no time and `(rebuilding)` shows as `Active`: decisions made meanwhile carry
//! [`WhyNative::Rebuilding`]. In `Fallback` they carry [`WhyNative::Resting`], in `Failed`
//! [`WhyNative::NotLoaded`]; who compiles sees to it that a failed one is tried again.
//!
//! Locks: one mutex a slot, held for one decision (a microsecond; a policy's deadline at worst). Under it the
//! inventory's is taken for some copies, never the other way round. Instances are made and dropped outside it.

use crate::decided::{About, By, Decided, Explained, Identity, State, Status, WhyNative};
use crate::interface::{Ask, Interface};
use crate::inventory::{Inventory, Subscription};
use crate::metrics::Metrics;
use crate::recent::Recent;
use crate::trust::Trust;
use crate::wasm::{Failure, LoadError, Policy};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use warren_policy_rules::Delta;

/// One decision's deciders, figures and memory.
pub(crate) struct Slot<I: Interface> {
    shared: Arc<Shared<I>>,
}

pub(crate) struct Shared<I: Interface> {
    inventory: Option<Arc<Inventory>>,
    config: String,
    started: Instant,
    inner: Mutex<Inner<I>>,
}

struct Inner<I: Interface> {
    native: I::Native,
    feed: Option<Subscription>,
    deltas: Vec<Delta>,
    state: State,
    identity: Option<Identity>,
    policy: Option<Arc<Policy>>,
    /// Counts loads and unloads, so that an instance of an earlier policy is not taken for one of this.
    generation: u64,
    live: Option<Decider<I>>,
    standby: Option<Decider<I>>,
    trust: Trust,
    last_error: String,
    metrics: Metrics,
    recent: Recent<I::Outcome>,
}

/// A policy's instance and its place in the inventory's history.
struct Decider<I: Interface> {
    guest: I::Guest,
    feed: Option<Subscription>,
}

impl<I: Interface> Slot<I> {
    /// A slot whose deciders follow the inventory.
    pub(crate) fn following(inventory: &Arc<Inventory>, config: String, mut native: I::Native) -> Self {
        let (feed, hosts) = inventory.subscribe();
        for host in hosts {
            I::apply(&mut native, Delta::Upsert(host));
        }
        Self::with(Some(Arc::clone(inventory)), config, Some(feed), native)
    }

    /// A slot whose deciders need no hosts.
    pub(crate) fn alone(native: I::Native) -> Self {
        Self::with(None, String::new(), None, native)
    }

    fn with(
        inventory: Option<Arc<Inventory>>,
        config: String,
        feed: Option<Subscription>,
        native: I::Native,
    ) -> Self {
        let inner = Mutex::new(Inner {
            native,
            feed,
            deltas: Vec::new(),
            state: State::Native,
            identity: None,
            policy: None,
            generation: 0,
            live: None,
            standby: None,
            trust: Trust::default(),
            last_error: String::new(),
            metrics: Metrics::default(),
            recent: Recent::default(),
        });
        Self { shared: Arc::new(Shared { inventory, config, started: Instant::now(), inner }) }
    }

    /// Makes one decision and remembers it.
    pub(crate) fn decide<A: Ask<I>>(&self, about: &About<'_>, ask: &A) -> Decided<A::Answer> {
        let started = Instant::now();
        let mut guard = self.shared.lock();
        let inner = &mut *guard;
        inner.catch_up();
        let mut dropped = None;
        let (answer, by, fuel) = match inner.ask_policy(ask) {
            Asked::Answered(answer, fuel) => {
                inner.trust.succeeded();
                ask.follow(&mut inner.native);
                (answer, By::Wasm, fuel)
            }
            Asked::Failed(failure, fuel) => {
                let why = why(&failure);
                dropped = inner.fail(&failure, started.duration_since(self.shared.started));
                (ask.native(&mut inner.native), By::Native(why), fuel)
            }
            Asked::Absent(why) => (ask.native(&mut inner.native), By::Native(why), 0),
        };
        let took_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let decided = Decided { answer, by, took_ns, fuel };
        inner.metrics.record(&decided);
        let outcome = ask.outcome(&decided.answer);
        if let Some(entry) = inner.recent.push(about, ask.now_ms(), &decided, outcome) {
            ask.note(&decided.answer, entry);
        }
        if !matches!(by, By::Wasm) {
            self.mend(guard, started, dropped);
        }
        decided
    }

    /// After a decision that the default made: drops what failed, and sees to it that there will be an instance.
    fn mend(&self, mut inner: MutexGuard<'_, Inner<I>>, started: Instant, dropped: Option<Decider<I>>) {
        let woke = inner.trust.wake(started.duration_since(self.shared.started));
        if woke {
            inner.state = State::Active;
            inner.live = inner.standby.take();
        }
        if woke || (dropped.is_some() && !inner.trust.rests()) {
            self.shared.build(&inner);
        }
        drop(inner);
        drop(dropped);
    }

    /// A policy is on its way. One that is loaded already decides on until the new one is.
    pub(crate) fn announce(&self, identity: Identity) {
        let mut inner = self.shared.lock();
        if inner.policy.is_none() {
            inner.identity = Some(identity);
            inner.state = State::Compiling;
        }
    }

    /// The announced policy does not come for now.
    pub(crate) fn failed(&self, error: String) {
        let mut inner = self.shared.lock();
        if inner.policy.is_none() {
            inner.state = State::Failed;
        }
        inner.last_error = error;
    }

    /// Swaps a policy in. Decisions go on meanwhile; the first after the swap is the new policy's.
    pub(crate) fn load(&self, policy: &Arc<Policy>) -> Result<(), LoadError> {
        let first = self.shared.start(policy)?;
        let mut inner = self.shared.lock();
        inner.generation += 1;
        inner.metrics.instances += 1;
        inner.identity = Some(policy.identity().clone());
        inner.state = State::Active;
        inner.trust = Trust::default();
        inner.last_error.clear();
        let before =
            (inner.policy.replace(Arc::clone(policy)), inner.live.replace(first), inner.standby.take());
        self.shared.build(&inner);
        drop(inner);
        drop(before);
        Ok(())
    }

    /// Back to the built-in default.
    pub(crate) fn unload(&self) {
        let mut inner = self.shared.lock();
        inner.generation += 1;
        inner.identity = None;
        inner.state = State::Native;
        let before = (inner.policy.take(), inner.live.take(), inner.standby.take());
        drop(inner);
        drop(before);
    }

    pub(crate) fn status(&self) -> Status {
        let inner = self.shared.lock();
        let metrics = &inner.metrics;
        Status {
            kind: I::KIND,
            identity: inner.identity.clone(),
            state: inner.state,
            decisions: metrics.decisions,
            fallbacks: metrics.fallbacks(),
            traps: metrics.traps,
            timeouts: metrics.timeouts,
            out_of_fuel: metrics.out_of_fuel,
            invalid: metrics.invalid,
            unavailable: metrics.unavailable,
            instances: metrics.instances,
            p50_ns: metrics.took_ns(0.5),
            p99_ns: metrics.took_ns(0.99),
            fuel_p50: metrics.fuel(0.5),
            last_error: inner.last_error.clone(),
        }
    }

    pub(crate) fn recent(&self, function: Option<&str>, last: usize) -> Vec<Explained> {
        let inventory = self.shared.inventory.as_deref();
        let inner = self.shared.lock();
        let wanted = inner.recent.newest().filter(|entry| function.is_none_or(|name| entry.function == name));
        wanted
            .take(last)
            .map(|entry| Explained {
                unix_ms: entry.unix_ms,
                kind: I::KIND,
                function: entry.function.clone(),
                request: entry.request.clone(),
                by: entry.by,
                text: I::text(entry, inventory),
                candidates: I::candidates(entry, inventory),
                took_ns: entry.took_ns,
                fuel: entry.fuel,
            })
            .collect()
    }
}

impl<I: Interface> Shared<I> {
    fn lock(&self) -> MutexGuard<'_, Inner<I>> {
        // The state is replaced as a whole or counted up; a panic between leaves nothing half done that matters.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, policy: &Policy) -> Result<Decider<I>, LoadError> {
        let (feed, hosts) = match &self.inventory {
            Some(inventory) => {
                let (feed, hosts) = inventory.subscribe();
                (Some(feed), hosts)
            }
            None => (None, Vec::new()),
        };
        Ok(Decider { guest: I::start(policy, &self.config, &hosts)?, feed })
    }

    /// Has the builder make an instance, which becomes the live one if there is none, else the one in waiting.
    fn build(self: &Arc<Self>, inner: &Inner<I>) {
        let Some(policy) = inner.policy.clone() else { return };
        let (shared, generation) = (Arc::downgrade(self), inner.generation);
        let runtime = Arc::clone(&policy.runtime);
        runtime.builder.submit(move || {
            let Some(shared) = shared.upgrade() else { return };
            let made = shared.start(&policy);
            let mut inner = shared.lock();
            if inner.generation != generation {
                return;
            }
            let failed = made.is_err();
            let spare = inner.take_in(made, shared.started.elapsed());
            if failed && !inner.trust.rests() {
                shared.build(&inner);
            }
            drop(inner);
            drop(spare);
        });
    }
}

/// What came of asking the policy.
enum Asked<T> {
    Answered(T, u64),
    Failed(Failure, u64),
    Absent(WhyNative),
}

impl<I: Interface> Inner<I> {
    fn catch_up(&mut self) {
        let Some(feed) = &self.feed else { return };
        feed.take(&mut self.deltas);
        for delta in &self.deltas {
            I::apply(&mut self.native, *delta);
        }
    }

    fn ask_policy<A: Ask<I>>(&mut self, ask: &A) -> Asked<A::Answer> {
        let Some(live) = &mut self.live else {
            return Asked::Absent(match self.state {
                State::Native => WhyNative::NoPolicy,
                State::Compiling => WhyNative::Compiling,
                State::Failed => WhyNative::NotLoaded,
                State::Active => WhyNative::Rebuilding,
                State::Fallback => WhyNative::Resting,
            });
        };
        if let Some(feed) = &live.feed {
            feed.take(&mut self.deltas);
        }
        let (answer, fuel) = ask.guest(&mut live.guest, &self.native, &self.deltas);
        let checked = answer.and_then(|answer| match ask.check(&self.native, &answer) {
            Ok(()) => Ok(answer),
            Err(broken) => Err(Failure::Invalid(broken)),
        });
        match checked {
            Ok(answer) => Asked::Answered(answer, fuel),
            Err(failure) => Asked::Failed(failure, fuel),
        }
    }

    /// The live instance failed: the one in waiting is next, unless the policy has to rest.
    fn fail(&mut self, failure: &Failure, now: std::time::Duration) -> Option<Decider<I>> {
        self.last_error = failure.to_string();
        let dropped = self.live.take();
        if self.trust.failed(now) {
            self.state = State::Fallback;
        } else {
            self.live = self.standby.take();
        }
        dropped
    }

    /// Takes an instance in that the builder made; what there is no use for is returned.
    fn take_in(
        &mut self,
        made: Result<Decider<I>, LoadError>,
        now: std::time::Duration,
    ) -> Option<Decider<I>> {
        match made {
            Ok(decider) => {
                self.metrics.instances += 1;
                if self.trust.rests() || self.standby.is_some() {
                    return Some(decider);
                }
                if self.live.is_none() { self.live = Some(decider) } else { self.standby = Some(decider) }
            }
            Err(error) => {
                self.last_error = error.to_string();
                if self.trust.failed(now) {
                    self.state = State::Fallback;
                }
            }
        }
        None
    }
}

fn why(failure: &Failure) -> WhyNative {
    match failure {
        Failure::Trap(_) => WhyNative::Trap,
        Failure::Timeout(_) => WhyNative::Timeout,
        Failure::Fuel(_) => WhyNative::Fuel,
        Failure::Invalid(_) => WhyNative::Invalid,
    }
}
