//! What the vCPU thread is doing, as the main thread may ask, and the one deadline.
//!
//! The deadline timer is lazy: an event arms it only when it is not armed for an earlier time, and finishing an event
//! leaves it armed. When it fires the main thread looks at what runs *then* ([`Watch::fired`]), so a stream of warm
//! events costs one timer call in a while, not two an event.

use crate::sys::{Clock, Kicker};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use warren_vmm_protocol::{Status, VmState};

/// Why the vCPU must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The deadline passed.
    Deadline,
    /// Shutdown was asked for.
    Shutdown,
}

/// The pure part: what runs until when, and when the timer goes off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    deadline_ns: Option<u64>,
    armed_ns: Option<u64>,
}

/// What to do when the timer has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// What runs is past its deadline.
    Stop,
    /// What runs has until then.
    Rearm(u64),
    /// Nothing runs.
    Nothing,
}

impl Watch {
    /// Something starts that must end by `deadline_ns`; when the timer must be armed, and if it must.
    #[must_use]
    pub fn begin(&mut self, deadline_ns: u64) -> Option<u64> {
        self.deadline_ns = Some(deadline_ns);
        if self.armed_ns.is_some_and(|armed| armed <= deadline_ns) {
            return None;
        }
        self.armed_ns = Some(deadline_ns);
        self.armed_ns
    }

    /// It ended.
    pub fn end(&mut self) {
        self.deadline_ns = None;
    }

    /// The timer has fired and is disarmed now.
    #[must_use]
    pub fn fired(&mut self, now_ns: u64) -> Fired {
        self.armed_ns = None;
        match self.deadline_ns {
            None => Fired::Nothing,
            Some(deadline) if deadline <= now_ns => Fired::Stop,
            Some(deadline) => {
                self.armed_ns = Some(deadline);
                Fired::Rearm(deadline)
            }
        }
    }
}

/// Shared by the two threads.
#[derive(Debug)]
pub struct Progress {
    inner: Mutex<Inner>,
    timer: OwnedFd,
}

#[derive(Debug)]
struct Inner {
    state: VmState,
    label: String,
    invocations: u64,
    running: Option<String>,
    exits: u64,
    watch: Watch,
    stop: Option<StopCause>,
    kicker: Option<Kicker>,
}

impl Progress {
    /// Nothing runs.
    pub fn new() -> rustix::io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let inner = Inner {
            state: VmState::Empty,
            label: String::new(),
            invocations: 0,
            running: None,
            exits: 0,
            watch: Watch::default(),
            stop: None,
            kicker: None,
        };
        Ok(Self { inner: Mutex::new(inner), timer })
    }

    /// The timer, for the main thread's event loop.
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// vCPU thread: how to stop it; `None` before its vCPU goes away.
    pub fn set_kicker(&self, kicker: Option<Kicker>) {
        self.lock().kicker = kicker;
    }

    /// Main thread: a function is about to be loaded.
    pub fn set_label(&self, label: &str) {
        label.clone_into(&mut self.lock().label);
    }

    /// vCPU thread: init or an event starts.
    pub fn begin(&self, state: VmState, running: Option<&str>, deadline_ns: u64) {
        let mut inner = self.lock();
        inner.state = state;
        inner.running = running.map(str::to_owned);
        if let Some(at) = inner.watch.begin(deadline_ns) {
            self.arm(at);
        }
    }

    /// vCPU thread: it ended. Says whether the word to stop had come by then; afterwards no deadline stops it.
    pub fn end(&self, state: VmState, exits: u64) -> Option<StopCause> {
        let mut inner = self.lock();
        if inner.state == VmState::Busy {
            inner.invocations += 1;
        }
        inner.state = state;
        inner.running = None;
        inner.exits = exits;
        inner.watch.end();
        inner.stop
    }

    /// vCPU thread: whether it was told to stop.
    pub fn stop_cause(&self) -> Option<StopCause> {
        self.lock().stop
    }

    /// Main thread: stop whatever runs, and whatever would run next.
    pub fn stop(&self, cause: StopCause) {
        let mut inner = self.lock();
        inner.stop = inner.stop.or(Some(cause));
        if let Some(kicker) = &inner.kicker {
            kicker.kick();
        }
    }

    /// Main thread: the timer is readable.
    pub fn timer_fired(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        let mut inner = self.lock();
        match inner.watch.fired(monotonic_ns()) {
            Fired::Nothing => {}
            Fired::Rearm(at) => self.arm(at),
            Fired::Stop => {
                inner.stop = inner.stop.or(Some(StopCause::Deadline));
                if let Some(kicker) = &inner.kicker {
                    kicker.kick();
                }
            }
        }
    }

    /// Main thread: for `Status`.
    pub fn status(&self) -> Status {
        let inner = self.lock();
        Status {
            state: inner.state,
            label: inner.label.clone(),
            invocations: inner.invocations,
            running: inner.running.clone(),
            exits: inner.exits,
        }
    }

    fn arm(&self, at_ns: u64) {
        // 0 would disarm.
        let value = timespec(at_ns.max(1));
        let setting = Itimerspec { it_interval: timespec(0), it_value: value };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every update keeps the fields consistent at each step, so a panicked holder leaves nothing to repair.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds of the monotonic clock.
#[must_use]
pub fn monotonic_ns() -> u64 {
    crate::sys::clock_ns(Clock::Monotonic)
}

/// Nanoseconds as milliseconds to wait, rounded up: who waits them does not come too early.
#[must_use]
pub fn milliseconds(ns: u64) -> i32 {
    i32::try_from(ns.div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Nanoseconds since the Unix epoch.
#[must_use]
pub fn wall_ns() -> u64 {
    crate::sys::clock_ns(Clock::Wall)
}

fn timespec(ns: u64) -> Timespec {
    let (seconds, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
    Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: i64::try_from(rest).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stream_of_events_arms_once() {
        let mut watch = Watch::default();
        assert_eq!(watch.begin(100), Some(100));
        watch.end();
        assert_eq!(watch.begin(150), None);
        assert_eq!(watch.fired(100), Fired::Rearm(150));
        assert_eq!(watch.fired(150), Fired::Stop);
    }

    #[test]
    fn an_earlier_deadline_arms_again() {
        let mut watch = Watch::default();
        assert_eq!(watch.begin(100), Some(100));
        watch.end();
        assert_eq!(watch.begin(50), Some(50));
        watch.end();
        assert_eq!(watch.fired(50), Fired::Nothing);
        assert_eq!(watch.begin(100), Some(100));
    }

    proptest! {
        /// Against a model with a timer: whatever runs past its deadline is stopped at once, nothing else ever is.
        #[test]
        fn stops_exactly_what_is_late(steps in prop::collection::vec((0_u64..40, 0_u64..30, any::<bool>()), 1..60)) {
            let (mut watch, mut timer, mut now, mut running) = (Watch::default(), None::<u64>, 0_u64, None::<u64>);
            for (pass, timeout, end) in steps {
                for _ in 0..pass {
                    now += 1;
                    if timer.is_some_and(|at| at <= now) {
                        timer = None;
                        match watch.fired(now) {
                            Fired::Rearm(at) => timer = Some(at),
                            Fired::Nothing => prop_assert_eq!(running, None),
                            Fired::Stop => {
                                prop_assert_eq!(running, Some(now));
                                watch.end();
                                running = None;
                            }
                        }
                    }
                    prop_assert!(running.is_none_or(|deadline| deadline > now));
                }
                if end && running.take().is_some() {
                    watch.end();
                } else if running.is_none() {
                    running = Some(now + 1 + timeout);
                    timer = watch.begin(now + 1 + timeout).or(timer);
                }
            }
        }
    }
}
