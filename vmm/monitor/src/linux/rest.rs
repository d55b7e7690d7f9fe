//! How the vCPUs of a guest come to rest, say their registers, and go on.
//!
//! ```text
//!            kicked, out of the guest          asked to
//!   Runs ------------------------------> Held ----------> Said
//!    | ^------------- go on --------------'-----------------'
//!    '---- the guest's end, or it could not begin: Gone
//! ```
//! A vCPU holds still only where KVM_RUN came back because of a signal: there nothing of an instruction is left half done. Who
//! is in the middle of an exit finishes it first, and KVM finishes its instruction, because the flag that was set with the
//! kick makes the next KVM_RUN come back at once.
//!
//! Order of the main thread: `asked`, then each vCPU's flag, then its signal. Order of a vCPU: it clears its flag, then looks at
//! `asked`. So whoever sees that nothing was asked cannot have cleared a flag that was set for it.
//!
//! A guest that is brought back begins held.

use crate::sys::Kicker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use warren_state::linux::vcpu::VcpuState;

/// Where all vCPUs of a guest meet.
#[derive(Debug)]
pub struct Rest {
    asked: AtomicBool,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    seats: Vec<Seat>,
}

/// What the main thread wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Holding,
    Reading,
}

/// One vCPU.
#[derive(Debug, Default)]
struct Seat {
    /// As long as its thread has the vCPU.
    kicker: Option<Kicker>,
    at: At,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Runs,
    Held,
    Said(Result<VcpuState, String>),
    Gone(Option<String>),
}

/// Why the vCPUs are not at rest. They go on, those that are there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAtRest {
    /// One of them came to its end.
    #[error("the guest came to its end{}", why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Gone {
        /// Why, if it could not begin.
        why: Option<String>,
    },
    /// One of them takes too long.
    #[error("a vCPU does not come to rest")]
    TooLong,
    /// One of them cannot say its registers.
    #[error("the registers of a vCPU cannot be had: {0}")]
    Registers(String),
}

impl Rest {
    /// For so many vCPUs, which run once they are started.
    #[must_use]
    pub fn new(vcpus: usize) -> Arc<Self> {
        let seats = (0..vcpus).map(|_| Seat::default()).collect();
        let inner = Mutex::new(Inner { phase: Phase::Running, seats });
        Arc::new(Self { asked: AtomicBool::new(false), inner, changed: Condvar::new() })
    }

    /// Main thread: asks every vCPU to hold, also those that have yet to begin. [`Self::wait`] says when they do.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        let mut inner = self.lock();
        inner.phase = Phase::Holding;
        for kicker in inner.seats.iter().filter_map(|seat| seat.kicker.as_ref()) {
            kicker.kick();
        }
    }

    /// Main thread: waits until all are held.
    pub fn wait(&self, patience: Duration) -> Result<(), NotAtRest> {
        self.wait_while(patience, |at| matches!(at, At::Runs)).map(drop)
    }

    /// Main thread: the registers of all, which are held.
    pub fn read(&self, patience: Duration) -> Result<Vec<VcpuState>, NotAtRest> {
        self.lock().phase = Phase::Reading;
        self.changed.notify_all();
        let mut inner = self.wait_while(patience, |at| !matches!(at, At::Said(_)))?;
        inner.phase = Phase::Holding;
        let said = inner.seats.iter_mut().map(|seat| match std::mem::replace(&mut seat.at, At::Held) {
            At::Said(said) => said.map_err(NotAtRest::Registers),
            _ => Err(NotAtRest::TooLong),
        });
        said.collect()
    }

    /// Main thread: all go on.
    pub fn go_on(&self) {
        self.asked.store(false, Ordering::SeqCst);
        self.lock().phase = Phase::Running;
        self.changed.notify_all();
    }

    /// A vCPU's thread: it has its vCPU from here on. If it was asked to, it [holds](Self::hold) before it first runs.
    pub fn begin(&self, seat: usize, kicker: Kicker) {
        if let Some(seat) = self.lock().seats.get_mut(seat) {
            seat.kicker = Some(kicker);
        }
    }

    /// A vCPU's thread: whether it is to hold.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// A vCPU's thread: holds as long as it is asked to, and says its registers by `read` when they are wanted.
    pub fn hold(&self, seat: usize, read: impl Fn() -> Result<VcpuState, String>) {
        let mut inner = self.lock();
        loop {
            let phase = inner.phase;
            let Some(at) = inner.seats.get_mut(seat).map(|seat| &mut seat.at) else { return };
            match (phase, &*at) {
                (Phase::Running, _) => {
                    *at = At::Runs;
                    return;
                }
                (Phase::Holding, At::Runs) => {
                    *at = At::Held;
                    self.changed.notify_all();
                }
                (Phase::Reading, At::Runs | At::Held) => {
                    drop(inner);
                    let said = read();
                    inner = self.lock();
                    if let Some(seat) = inner.seats.get_mut(seat) {
                        seat.at = At::Said(said);
                    }
                    self.changed.notify_all();
                    continue;
                }
                _ => {}
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A vCPU's thread: before it gives its vCPU up.
    pub fn leave(&self, seat: usize, why: Option<String>) {
        if let Some(seat) = self.lock().seats.get_mut(seat) {
            *seat = Seat { kicker: None, at: At::Gone(why) };
        }
        self.changed.notify_all();
    }

    /// Waits as long as a vCPU is somewhere, and no longer than patience lasts.
    fn wait_while(
        &self,
        patience: Duration,
        busy: impl Fn(&At) -> bool,
    ) -> Result<MutexGuard<'_, Inner>, NotAtRest> {
        let until = Instant::now() + patience;
        let mut inner = self.lock();
        loop {
            let gone = inner.seats.iter().find_map(|seat| match &seat.at {
                At::Gone(why) => Some(why.clone()),
                _ => None,
            });
            if let Some(why) = gone {
                return Err(NotAtRest::Gone { why });
            }
            if !inner.seats.iter().any(|seat| busy(&seat.at)) {
                return Ok(inner);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NotAtRest::TooLong);
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic ends the process (main's hook), so nobody sees what a panicked holder left.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    const SOON: Duration = Duration::from_secs(20);

    fn state(tsc_khz: u32) -> VcpuState {
        VcpuState { tsc_khz, ..VcpuState::default() }
    }

    /// Threads that count as vCPUs run, held and read again and again: nobody counts while all are held.
    #[test]
    fn all_hold_say_and_go_on() {
        let (rest, over, count) = (Rest::new(3), AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for seat in 0..3_u32 {
                let (rest, over, count) = (&rest, &over, &count);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        count.fetch_add(1, Ordering::SeqCst);
                        if rest.is_asked() {
                            rest.hold(seat as usize, || Ok(state(seat)));
                        }
                    }
                });
            }
            for _ in 0..50 {
                rest.ask();
                rest.wait(SOON).unwrap();
                let before = count.load(Ordering::SeqCst);
                for _ in 0..2 {
                    assert_eq!(rest.read(SOON), Ok((0..3).map(state).collect()));
                }
                assert_eq!(count.load(Ordering::SeqCst), before);
                rest.go_on();
            }
            over.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn who_is_gone_or_late_or_cannot_say_is_named() {
        let rest = Rest::new(2);
        rest.ask();
        assert_eq!(rest.wait(Duration::ZERO), Err(NotAtRest::TooLong));
        thread::scope(|scope| {
            let said = |seat| rest.hold(seat, || Err("no such register".into()));
            scope.spawn(move || said(0));
            scope.spawn(move || said(1));
            rest.wait(SOON).unwrap();
            assert_eq!(rest.read(SOON), Err(NotAtRest::Registers("no such register".into())));
            rest.go_on();
        });
        rest.ask();
        rest.leave(1, Some("a triple fault".into()));
        let gone = rest.wait(SOON).unwrap_err();
        assert_eq!(gone.to_string(), "the guest came to its end: a triple fault");
    }
}
