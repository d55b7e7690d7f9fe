//! The sandboxes this frontend holds, and the invocations that wait for one.
//!
//! ```text
//! take: idle? --routing policy--> that one ----------------------------> Lease
//!         | none (or "start new")                                          |
//!         v                                                                | dropped
//!       wait in line, and have one more started than are being started ..  |   alive: to the first in line, else idle
//!         ^                                                                |   dead:  forgotten, told to assignment
//!         +---- whichever gets free or ready first <-----------------------+
//! ```
//! A lease gives its sandbox back when dropped, so no path can leak one.

use crate::catalog::Version;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::oneshot;
use warren_assignment::{AssignError, Assignment, Leased, Lessee, Sandbox, StartTiming};
use warren_policy_engine::{
    About, Routing,
    rules::{IdleSandbox, MAX_CANDIDATES, Route, RouteRequest},
};

/// This frontend, to assignment.
const LESSEE: Lessee = Lessee(1);

/// What is held of one version.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    waiting: VecDeque<oneshot::Sender<Result<Lease, AssignError>>>,
    busy: u32,
    starting: u32,
    /// Raised by a drain: what was taken before is retired when it comes back.
    generation: u64,
}

#[derive(Debug)]
struct Idle {
    sandbox: Arc<Sandbox>,
    since: Instant,
    served: u32,
    start: Option<StartTiming>,
}

/// How an invocation left its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Alive,
    Dead,
    /// The worker says that it runs something else; its reports will tell when it is free.
    Stolen,
}

/// The right to run one invocation in one sandbox.
#[derive(Debug)]
pub(crate) struct Lease {
    sandbox: Arc<Sandbox>,
    start: Option<StartTiming>,
    served: u32,
    generation: u64,
    left: Left,
    hub: Arc<Hub>,
    version: Arc<Version>,
}

/// A sandbox on its way to the first in line. Sent only after the pool's lock is let go: a lease that finds nobody
/// there gives itself back, which takes that lock.
type Handover = Option<(oneshot::Sender<Result<Lease, AssignError>>, Lease)>;

fn hand_over(handover: Handover) {
    if let Some((first, lease)) = handover {
        let _gone = first.send(Ok(lease));
    }
}

impl Lease {
    /// The sandbox.
    #[must_use]
    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// What its creation took, if nothing ran in it yet.
    #[must_use]
    pub(crate) fn start(&self) -> Option<StartTiming> {
        self.start
    }

    /// An invocation ended in it and left it whole.
    pub(crate) fn served(&mut self) {
        self.start = None;
        self.served = self.served.saturating_add(1);
    }

    /// It is dead.
    pub(crate) fn dead(mut self) {
        self.left = Left::Dead;
    }

    /// The worker refused: it is not idle.
    pub(crate) fn stolen(mut self) {
        self.left = Left::Stolen;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (hub, version) = (Arc::clone(&self.hub), Arc::clone(&self.version));
        let mut state = version.pool.lock();
        state.busy = state.busy.saturating_sub(1);
        match self.left {
            Left::Dead => {
                drop(state);
                hub.assignment.dead(&self.sandbox);
            }
            Left::Stolen => {
                drop(state);
                hub.assignment.occupied(&self.sandbox, LESSEE);
            }
            Left::Alive if state.generation != self.generation => {
                drop(state);
                hub.assignment.retire(&self.sandbox, "drained");
            }
            Left::Alive => {
                let idle = Idle {
                    sandbox: Arc::clone(&self.sandbox),
                    since: Instant::now(),
                    served: self.served,
                    start: self.start,
                };
                let handover = state.settle(idle, &hub, &version);
                drop(state);
                hand_over(handover);
            }
        }
    }
}

/// What all pools share.
pub struct Hub {
    assignment: Arc<Assignment>,
    routing: Arc<Routing>,
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
        Arc::new(Self { assignment, routing })
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
            if let Some(idle) = self.route(version, &mut state, request_id) {
                return Ok(state.lease(idle, self, version));
            }
            let (sender, waiter) = oneshot::channel();
            state.waiting.push_back(sender);
            let start = (state.starting as usize) < state.waiting.len();
            if start {
                state.starting += 1;
            }
            (waiter, start.then_some(state.generation))
        };
        if let Some(generation) = start {
            self.start(Arc::clone(version), generation, request_id.to_owned());
        }
        waiter.await.unwrap_or(Err(AssignError::Withdrawn))
    }

    /// The idle sandbox the routing policy takes, out of the pool.
    fn route(&self, version: &Version, state: &mut State, request_id: &str) -> Option<Idle> {
        if state.idle.is_empty() {
            return None;
        }
        let now = Instant::now();
        // The newest come last; with more than the policy may see, it sees the newest.
        let first = state.idle.len().saturating_sub(MAX_CANDIDATES);
        let idle = state.idle.iter().enumerate().skip(first).map(|(at, idle)| IdleSandbox {
            index: u32::try_from(at).unwrap_or(u32::MAX),
            idle_ms: millis(now.saturating_duration_since(idle.since)),
            invocations: idle.served,
            zone: 0,
            host_load: 0,
        });
        let request = RouteRequest {
            now_ms: warren_placement::unix_ms(),
            seed: 0,
            function: version.hash,
            zone: 0,
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

    fn start(self: &Arc<Self>, version: Arc<Version>, generation: u64, request_id: String) {
        let hub = Arc::clone(self);
        // A task of its own: the sandbox is wanted by whoever is first in line, also when its first asker has gone.
        tokio::spawn(async move {
            let acquired = hub.assignment.acquire(&version.spec, LESSEE, &request_id).await;
            let mut state = version.pool.lock();
            state.starting = state.starting.saturating_sub(1);
            match acquired {
                Ok(Leased { sandbox, .. }) if state.generation != generation && state.waiting.is_empty() => {
                    drop(state);
                    hub.assignment.retire(&sandbox, "drained");
                }
                Ok(Leased { sandbox, start }) => {
                    let idle = Idle { sandbox, since: Instant::now(), served: 0, start };
                    let handover = state.settle(idle, &hub, &version);
                    drop(state);
                    hand_over(handover);
                }
                Err(error) => {
                    // One start failed, so one of those who wait hears of it.
                    if let Some(first) = state.waiting.pop_front() {
                        drop(state);
                        let _gone = first.send(Err(error));
                    }
                }
            }
        });
    }

    /// Retires what is idle of a version now, and what is busy when it is done.
    pub fn drain(&self, version: &Version) {
        let idle = {
            let mut state = version.pool.lock();
            state.generation += 1;
            std::mem::take(&mut state.idle)
        };
        for idle in idle {
            self.assignment.retire(&idle.sandbox, "drained");
        }
        self.assignment.drain(|key| *key.function == *version.name && key.version == version.spec.version);
    }

    /// Workers say that these are gone.
    pub fn forget(&self, version: &Version, gone: &[Arc<str>]) {
        version.pool.lock().idle.retain(|idle| !gone.contains(&idle.sandbox.id));
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters and lists are whole between any two statements that could panic (none does).
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lease(&mut self, idle: Idle, hub: &Arc<Hub>, version: &Arc<Version>) -> Lease {
        self.busy += 1;
        Lease {
            sandbox: idle.sandbox,
            start: idle.start,
            served: idle.served,
            generation: self.generation,
            left: Left::Alive,
            hub: Arc::clone(hub),
            version: Arc::clone(version),
        }
    }

    /// A sandbox is free: to the first who still waits, else idle.
    fn settle(&mut self, idle: Idle, hub: &Arc<Hub>, version: &Arc<Version>) -> Handover {
        while let Some(first) = self.waiting.pop_front() {
            if !first.is_closed() {
                return Some((first, self.lease(idle, hub, version)));
            }
        }
        self.idle.push(idle);
        None
    }
}

fn millis(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
