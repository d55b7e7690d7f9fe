//! What the pools share: routing among what is held, starting more, making room, letting go.

use crate::{
    catalog::Version,
    pool::{Idle, LESSEE, Lease, State, hand_over, starts_at_once},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use warren_assignment::{AssignError, Assignment, Leased, Sandbox};
use warren_placement::{HEARTBEAT, NoPlace, Wanted, unix_ms};
use warren_policy_engine::{
    About, Routing,
    rules::{IdleSandbox, MAX_CANDIDATES, Route, RouteRequest},
};

/// How often the routing policy is asked for how long a version's sandboxes are to be kept; it thinks in minutes.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// A sandbox whose function will not be used for minutes is let go after so long.
const LET_GO: Duration = Duration::from_secs(10);
/// So often a start that found no room is tried again after making some.
const ROOM_TRIES: u32 = 3;
/// After so long every host that lives has reported: an interval of reports, and the way here.
const REPORT_AGE: Duration = HEARTBEAT.saturating_add(Duration::from_millis(100));

/// What all pools share.
pub struct Hub {
    assignment: Arc<Assignment>,
    routing: Arc<Routing>,
    /// The zone this frontend is in, as policies know it.
    zone: AtomicU32,
    /// Seeds of routing decisions.
    decisions: AtomicU64,
    /// Every version that ever had a sandbox here, as long as it exists.
    versions: Mutex<Vec<Weak<Version>>>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("assignment", &self.assignment).finish_non_exhaustive()
    }
}

impl Hub {
    /// Over this assignment, routed by this policy.
    #[must_use]
    pub fn new(assignment: Arc<Assignment>, routing: Arc<Routing>) -> Arc<Self> {
        let (zone, decisions) = (AtomicU32::new(0), AtomicU64::new(unix_ms()));
        Arc::new(Self { assignment, routing, zone, decisions, versions: Mutex::default() })
    }

    /// Which zone this frontend is in.
    pub fn set_zone(&self, zone: u32) {
        self.zone.store(zone, Ordering::Relaxed);
    }

    /// The routing policy.
    #[must_use]
    pub fn routing(&self) -> &Arc<Routing> {
        &self.routing
    }

    /// The epoch of the assignment behind it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.assignment.epoch()
    }

    /// A sandbox for one invocation: an idle one, or the first that gets free or ready.
    pub(crate) async fn take(
        self: &Arc<Self>,
        version: &Arc<Version>,
        request_id: &str,
    ) -> Result<Lease, AssignError> {
        let (waiter, start) = {
            let mut state = version.pool.lock();
            self.observe(version, &mut state);
            if let Some(idle) = self.route(version, &mut state, request_id) {
                return Ok(state.lease(idle, self, version));
            }
            let (sender, waiter) = oneshot::channel();
            state.waiting.push_back(sender);
            (waiter, state.start_for_waiting(self.starts_at_once()))
        };
        if let Some(generation) = start {
            self.start(Arc::clone(version), generation, request_id.to_owned());
        }
        waiter.await.unwrap_or(Err(AssignError::Withdrawn))
    }

    fn observe(&self, version: &Version, state: &mut State) {
        let now = Instant::now();
        if state.windows.is_none_or(|(_, asked)| now.saturating_duration_since(asked) >= OBSERVE_EVERY) {
            let about = About { function: &version.name, request: "" };
            let windows = self.routing.observe(&about, version.hash, unix_ms()).answer;
            state.windows = Some((windows, now));
        }
    }

    /// The idle sandbox the routing policy takes, out of the pool.
    fn route(&self, version: &Version, state: &mut State, request_id: &str) -> Option<Idle> {
        if state.idle.is_empty() {
            return None;
        }
        let now = Instant::now();
        // The newest come last; with more than the policy may see, it sees the newest.
        let first = state.idle.len().saturating_sub(MAX_CANDIDATES);
        let idle = state.idle.iter().enumerate().skip(first).map(|(at, idle)| {
            let host = idle.sandbox.worker.glance();
            IdleSandbox {
                index: u32::try_from(at).unwrap_or(u32::MAX),
                idle_ms: millis(now.saturating_duration_since(idle.since)),
                invocations: idle.served,
                zone: host.zone,
                host_load: host.load,
            }
        });
        let request = RouteRequest {
            now_ms: unix_ms(),
            // Another for each decision; unpredictable to nobody who matters, for the policy is the operator's own.
            seed: self.decisions.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            function: version.hash,
            zone: self.zone.load(Ordering::Relaxed),
            idle: idle.collect(),
            busy: state.busy,
        };
        let about = About { function: &version.name, request: request_id };
        match self.routing.choose(&about, &request).answer {
            Route::To(index) if (index as usize) < state.idle.len() => {
                Some(state.idle.remove(index as usize))
            }
            // Not one of ours: the policy's answer is a hint, and the newest idle one is as good.
            Route::To(_) => state.idle.pop(),
            Route::StartNew => None,
        }
    }

    /// Has one more sandbox started, which the caller has counted as starting.
    pub(crate) fn start(self: &Arc<Self>, version: Arc<Version>, generation: u64, request_id: String) {
        let hub = Arc::clone(self);
        // A task of its own: the sandbox is wanted by whoever is first in line, also when its first asker has gone.
        tokio::spawn(async move {
            hub.know(&version);
            let acquired = hub.acquire(&version, &request_id).await;
            let mut state = version.pool.lock();
            state.starting = state.starting.saturating_sub(1);
            match acquired {
                Ok(Leased { sandbox, .. }) if state.generation != generation && state.waiting.is_empty() => {
                    drop(state);
                    hub.drained(&sandbox);
                }
                Ok(Leased { sandbox, start }) => {
                    let idle = Idle { sandbox, since: Instant::now(), served: 0, start };
                    let handover = state.settle(idle, &hub, &version);
                    hub.start_next(&version, state);
                    hand_over(handover);
                }
                // Full, but some of this very function are busy or being made: whoever waits gets one of those.
                Err(AssignError::NoPlace(NoPlace::NoRoom { .. })) if state.busy > 0 || state.starting > 0 => {
                }
                Err(error) => {
                    // One start failed, so one of those who wait hears of it; all of them, if there is nothing else
                    // left that they could wait for.
                    let hopeless = state.busy == 0 && state.starting == 0;
                    let hear = if hopeless { state.waiting.len() } else { 1.min(state.waiting.len()) };
                    let told: Vec<_> = state.waiting.drain(..hear).collect();
                    hub.start_next(&version, state);
                    for waiter in told {
                        let _gone = waiter.send(Err(error.clone()));
                    }
                }
            }
        });
    }

    /// How many sandboxes of one version are made at once.
    pub(crate) fn starts_at_once(&self) -> usize {
        starts_at_once(self.assignment.ready_cpu_millis())
    }

    /// A start is done: the next one, if somebody still waits for it.
    fn start_next(self: &Arc<Self>, version: &Arc<Version>, mut state: MutexGuard<'_, State>) {
        let start = state.start_for_waiting(self.starts_at_once());
        drop(state);
        if let Some(generation) = start {
            self.start(Arc::clone(version), generation, String::new());
        }
    }

    /// Acquires; where there is no room, gives up what has been idle longest. Where there is none of that either, hosts may
    /// have more by now than they last said: only after their next reports is a full fleet believed.
    async fn acquire(&self, version: &Version, request_id: &str) -> Result<Leased, AssignError> {
        let (mut made_room, mut reports_due, mut last) = (0, None, false);
        loop {
            // Listening begins before looking, so that room which comes in between is heard of.
            let more_room = self.assignment.more_room();
            let wanted = Wanted { version: &version.spec, request_id, observed: version.observed() };
            match self.assignment.acquire(&wanted, LESSEE).await {
                Err(AssignError::NoPlace(NoPlace::NoRoom { memory_mib })) if !last => {
                    if made_room < ROOM_TRIES && self.make_room(memory_mib).await {
                        made_room += 1;
                        continue;
                    }
                    let due = *reports_due.get_or_insert_with(|| tokio::time::Instant::now() + REPORT_AGE);
                    last = tokio::time::timeout_at(due, more_room).await.is_err();
                }
                other => return other,
            }
        }
    }

    /// Destroys the longest idle sandboxes of any version until so much memory is free. False: there are none.
    async fn make_room(&self, memory_mib: u32) -> bool {
        let mut freed = 0;
        while freed < memory_mib {
            let Some(sandbox) = self.take_oldest() else { break };
            self.assignment.retire_now(&sandbox, "room for another").await;
            freed = freed.saturating_add(sandbox.memory_mib);
        }
        freed > 0
    }

    fn take_oldest(&self) -> Option<Arc<Sandbox>> {
        let versions = self.versions();
        let oldest = |version: &Arc<Version>| version.pool.lock().idle.iter().map(|idle| idle.since).min();
        let (since, version) = versions
            .iter()
            .filter_map(|version| Some((oldest(version)?, version)))
            .min_by_key(|(since, _)| *since)?;
        let mut state = version.pool.lock();
        let at = state.idle.iter().position(|idle| idle.since == since)?;
        Some(state.idle.remove(at).sandbox)
    }

    /// Lets go of what the routing policy does not want to keep any longer, and starts what it wants ready.
    pub fn tidy(self: &Arc<Self>) {
        let now = Instant::now();
        for version in self.versions() {
            let mut state = version.pool.lock();
            let Some((windows, used)) = state.windows else { continue };
            let keep = Duration::from_millis(u64::from(windows.keep_alive_ms));
            let ahead = Duration::from_millis(u64::from(windows.pre_warm_ms));
            let kept = if ahead.is_zero() { keep } else { LET_GO };
            let unused = now.saturating_duration_since(used);
            let warm_again = !ahead.is_zero() && unused >= ahead && unused < ahead.saturating_add(keep);
            let old = |idle: &Idle| !warm_again && now.saturating_duration_since(idle.since) >= kept;
            let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut state.idle).into_iter().partition(old);
            state.idle = stay;
            let start = warm_again && state.idle.is_empty() && state.starting == 0 && state.busy == 0;
            if start {
                state.starting += 1;
            }
            let generation = state.generation;
            drop(state);
            for idle in gone {
                self.assignment.retire(&idle.sandbox, "unused");
            }
            if start {
                self.start(version, generation, String::new());
            }
        }
    }

    /// Retires what is idle of a version now, and what is busy when it is done.
    pub fn drain(&self, version: &Version) {
        let idle = {
            let mut state = version.pool.lock();
            state.generation += 1;
            std::mem::take(&mut state.idle)
        };
        for idle in idle {
            self.drained(&idle.sandbox);
        }
        self.assignment.drain(|key| *key.function == *version.name && key.version == version.spec.version);
    }

    /// Retires what is idle on a host now; what is busy there is retired when it is done, and nothing new is placed.
    pub fn drain_host(&self, host: &str) {
        for version in self.versions() {
            let there = |idle: &Idle| **idle.sandbox.worker.id() == *host;
            let mut state = version.pool.lock();
            let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut state.idle).into_iter().partition(there);
            state.idle = stay;
            drop(state);
            for idle in gone {
                self.drained(&idle.sandbox);
            }
        }
        self.assignment.drain_host(host);
    }

    /// Workers say that these are gone.
    pub fn forget(&self, version: &Version, gone: &[Arc<str>]) {
        version.pool.lock().idle.retain(|idle| !gone.contains(&idle.sandbox.id));
    }

    pub(crate) fn dead(&self, sandbox: &Sandbox) {
        self.assignment.dead(sandbox);
    }

    pub(crate) fn stolen(&self, sandbox: &Sandbox) {
        self.assignment.occupied(sandbox, LESSEE);
    }

    pub(crate) fn drained(&self, sandbox: &Sandbox) {
        self.assignment.retire(sandbox, "drained");
    }

    fn know(&self, version: &Arc<Version>) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let weak = Arc::downgrade(version);
        if !versions.iter().any(|known| known.ptr_eq(&weak)) {
            versions.retain(|known| known.strong_count() > 0);
            versions.push(weak);
        }
    }

    fn versions(&self) -> Vec<Arc<Version>> {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.iter().filter_map(Weak::upgrade).collect()
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
