//! The sandboxes this frontend holds of one version, and the invocations that wait for one.
//!
//! ```text
//! take: idle? --routing policy--> that one ----------------------------> Lease
//!         | none (or "start new")                                          |
//!         v                                                                | dropped
//!       wait in line, and have one started if fewer are being started ...  |   alive: to the first in line, else idle
//!         ^                                                                |   dead:  forgotten, told to assignment
//!         +---- whichever gets free or ready first <-----------------------+
//! ```
//! No more are started at once than the hosts' cores can make ([`STARTS_PER_CORE`]); each that is done starts the next, if
//! somebody still waits. Without that bound a moment's congestion feeds itself: its line of callers starts a sandbox each, that
//! work delays more callers, and they start more.
//!
//! A lease gives its sandbox back when dropped, so no path can leak one.

use crate::{catalog::Version, hub::Hub};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::oneshot;
use warren_assignment::{AssignError, Lessee, Sandbox, StartTiming};
use warren_policy_engine::rules::Windows;

/// This frontend, to assignment.
pub(crate) const LESSEE: Lessee = Lessee(1);

/// Sandboxes of one version that are made at once, for each core of the ready hosts: one computes while the other waits for its
/// process, its jail or its pages.
const STARTS_PER_CORE: u64 = 2;

/// How many starts of one version go on at once on hosts with so much CPU.
pub(crate) fn starts_at_once(ready_cpu_millis: u64) -> usize {
    let starts = (ready_cpu_millis / 1000).saturating_mul(STARTS_PER_CORE);
    usize::try_from(starts).unwrap_or(usize::MAX).max(2)
}

/// What is held of one version.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) idle: Vec<Idle>,
    pub(crate) waiting: VecDeque<oneshot::Sender<Result<Lease, AssignError>>>,
    pub(crate) busy: u32,
    pub(crate) starting: u32,
    /// Raised by a drain: what was taken before is retired when it comes back.
    pub(crate) generation: u64,
    /// For how long the routing policy would keep these, and when it was asked.
    pub(crate) windows: Option<(Windows, Instant)>,
}

#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) since: Instant,
    pub(crate) served: u32,
    pub(crate) start: Option<StartTiming>,
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
pub(crate) type Handover = Option<(oneshot::Sender<Result<Lease, AssignError>>, Lease)>;

pub(crate) fn hand_over(handover: Handover) {
    if let Some((first, lease)) = handover {
        let _gone = first.send(Ok(lease));
    }
}

impl Lease {
    /// The sandbox.
    #[must_use]
    pub(crate) fn sandbox(&self) -> &Arc<Sandbox> {
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
        let given_up: Option<fn(&Hub, &Sandbox)> = match self.left {
            Left::Dead => Some(Hub::dead),
            Left::Stolen => Some(Hub::stolen),
            Left::Alive if state.generation != self.generation => Some(Hub::drained),
            Left::Alive if !self.sandbox.worker.glance().in_service => Some(Hub::drained),
            Left::Alive => None,
        };
        if let Some(give_up) = given_up {
            // Somebody may have counted on this one coming back.
            let start = state.start_for_waiting(hub.starts_at_once());
            drop(state);
            give_up(&hub, &self.sandbox);
            if let Some(generation) = start {
                hub.start(version, generation, String::new());
            }
            return;
        }
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

impl Pool {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Counters and lists are whole between any two statements that could panic (none does).
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn lease(&mut self, idle: Idle, hub: &Arc<Hub>, version: &Arc<Version>) -> Lease {
        self.busy += 1;
        version.concurrency.record(self.busy);
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
    pub(crate) fn settle(&mut self, idle: Idle, hub: &Arc<Hub>, version: &Arc<Version>) -> Handover {
        while let Some(first) = self.waiting.pop_front() {
            if !first.is_closed() {
                return Some((first, self.lease(idle, hub, version)));
            }
        }
        self.idle.push(idle);
        None
    }

    /// One more start, if more wait than are being started and fewer than `at_once` are; counted, and in which generation.
    pub(crate) fn start_for_waiting(&mut self, at_once: usize) -> Option<u64> {
        if (self.starting as usize) >= self.waiting.len().min(at_once) {
            return None;
        }
        self.starting += 1;
        Some(self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With so many in line and so many being started on so much CPU: how many more are started.
    fn check(waiting: usize, starting: u32, ready_cpu_millis: u64, expect: u32) {
        let mut state = State { starting, ..State::default() };
        state.waiting.extend((0..waiting).map(|_| oneshot::channel().0));
        let at_once = starts_at_once(ready_cpu_millis);
        while state.start_for_waiting(at_once).is_some() {}
        assert_eq!(state.starting, starting + expect, "{waiting} wait, {starting} start, {ready_cpu_millis}");
    }

    #[test]
    fn starts_follow_the_line_up_to_what_the_cores_can_make() {
        for (waiting, starting, ready_cpu_millis, expect) in [
            (0, 0, 4000, 0),
            (1, 0, 4000, 1),
            (1, 1, 4000, 0),
            (5, 2, 4000, 3),
            (100, 0, 4000, 8),
            (100, 8, 4000, 0),
            (100, 0, 64_000, 100),
            // No host is ready yet, or one with less than a core: the refusal must come from placement.
            (100, 0, 0, 2),
            (100, 0, 500, 2),
            (100, 0, u64::MAX, 100),
        ] {
            check(waiting, starting, ready_cpu_millis, expect);
        }
    }
}
