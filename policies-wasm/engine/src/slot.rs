//! Where one decision is made: the built-in default, kept in step, ready to decide.

use crate::decided::{About, By, Decided, Explained, Identity, Kind, State, Status, WhyNative};
use crate::inventory::{Inventory, Subscription};
use crate::metrics::Metrics;
use crate::recent::{Entry, Recent};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use warren_policy_rules::Delta;

/// One of the three interfaces, as the slot sees it.
pub(crate) trait Interface: 'static {
    /// Which decision.
    const KIND: Kind;
    /// The built-in default's state.
    type Native: Send;
    /// What is remembered of an answer.
    type Outcome: Send;

    /// Takes a change of the inventory into the built-in default's state.
    fn apply(native: &mut Self::Native, delta: Delta);

    /// One line for people: what was chosen and why.
    fn text(entry: &Entry<Self::Outcome>, inventory: Option<&Inventory>) -> String;

    /// The candidates, for people.
    fn candidates(
        entry: &Entry<Self::Outcome>,
        inventory: Option<&Inventory>,
    ) -> Vec<crate::decided::Candidate>;
}

/// One decision's deciders, figures and memory.
pub(crate) struct Slot<I: Interface> {
    inventory: Option<Arc<Inventory>>,
    inner: Mutex<Inner<I>>,
}

struct Inner<I: Interface> {
    native: I::Native,
    feed: Option<Subscription>,
    deltas: Vec<Delta>,
    identity: Option<Identity>,
    state: State,
    last_error: String,
    metrics: Metrics,
    recent: Recent<I::Outcome>,
}

impl<I: Interface> Slot<I> {
    /// A slot whose deciders follow the inventory.
    pub(crate) fn following(inventory: &Arc<Inventory>, mut native: I::Native) -> Self {
        let (feed, hosts) = inventory.subscribe();
        for host in hosts {
            I::apply(&mut native, Delta::Upsert(host));
        }
        Self::with(Some(Arc::clone(inventory)), Some(feed), native)
    }

    /// A slot whose deciders need no hosts.
    pub(crate) fn alone(native: I::Native) -> Self {
        Self::with(None, None, native)
    }

    fn with(inventory: Option<Arc<Inventory>>, feed: Option<Subscription>, native: I::Native) -> Self {
        let inner = Inner {
            native,
            feed,
            deltas: Vec::new(),
            identity: None,
            state: State::Native,
            last_error: String::new(),
            metrics: Metrics::default(),
            recent: Recent::default(),
        };
        Self { inventory, inner: Mutex::new(inner) }
    }

    /// Makes one decision and remembers it.
    pub(crate) fn decide<A>(
        &self,
        about: &About<'_>,
        now_ms: u64,
        native: impl FnOnce(&mut I::Native) -> A,
        remember: impl FnOnce(&A) -> I::Outcome,
        note: impl FnOnce(&A, &mut Entry<I::Outcome>),
    ) -> Decided<A> {
        let started = Instant::now();
        let mut inner = self.lock();
        inner.catch_up();
        let why = match inner.state {
            State::Compiling => WhyNative::Compiling,
            _ => WhyNative::NoPolicy,
        };
        let answer = native(&mut inner.native);
        let took_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let decided = Decided { answer, by: By::Native(why), took_ns, fuel: 0 };
        inner.metrics.record(&decided);
        let outcome = remember(&decided.answer);
        if let Some(entry) = inner.recent.push(about, now_ms, &decided, outcome) {
            note(&decided.answer, entry);
        }
        decided
    }

    /// A policy is on its way.
    pub(crate) fn compiling(&self, identity: Identity) {
        let mut inner = self.lock();
        inner.identity = Some(identity);
        inner.state = State::Compiling;
    }

    pub(crate) fn status(&self) -> Status {
        let inner = self.lock();
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
        let inventory = self.inventory.as_deref();
        let inner = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, Inner<I>> {
        // The state is replaced as a whole or counted up; a panic between leaves nothing half done that matters.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Interface> Inner<I> {
    fn catch_up(&mut self) {
        let Some(feed) = &self.feed else { return };
        feed.take(&mut self.deltas);
        for delta in &self.deltas {
            I::apply(&mut self.native, *delta);
        }
    }
}
