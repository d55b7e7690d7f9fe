//! How the vCPUs of a guest come to rest, say their registers, and go on.
//!
//! ```text
//!            kicked, out of the guest          asked what they are, or given others
//!   Runs ------------------------------> Held --------------------------------------> Answered
//!    | ^------------- go on --------------'----------------------------------------------'
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
    Asking,
}

/// One vCPU.
#[derive(Debug, Default)]
struct Seat {
    /// As long as its thread has the vCPU.
    kicker: Option<Kicker>,
    at: At,
    /// What its registers are to be, if it is given others.
    next: Option<VcpuState>,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Runs,
    Held,
    /// What its registers are, if it was not given others.
    Answered(Result<Option<VcpuState>, String>),
    Gone(Option<String>),
}

/// The registers of a vCPU that holds, as its thread reaches them.
pub trait Registers {
    /// What they are.
    fn read(&self) -> Result<VcpuState, String>;
    /// What they are to be.
    fn set(&self, state: &VcpuState) -> Result<(), String>;
}

impl Seat {
    /// What it answered; it is held from here on.
    fn answer(&mut self) -> Result<Option<VcpuState>, String> {
        match std::mem::replace(&mut self.at, At::Held) {
            At::Answered(answer) => answer,
            _ => Err("it did not answer".into()),
        }
    }
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
    /// One of them cannot say its registers, or be given others.
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
        let said = self.question(Vec::new(), patience)?;
        Ok(said.into_iter().flatten().collect())
    }

    /// Main thread: gives all, which are held, other registers. After an error some have them and some have not.
    pub fn set(&self, states: Vec<VcpuState>, patience: Duration) -> Result<(), NotAtRest> {
        self.question(states, patience).map(drop)
    }

    /// Has all answer, those with a state after they have taken it.
    fn question(
        &self,
        states: Vec<VcpuState>,
        patience: Duration,
    ) -> Result<Vec<Option<VcpuState>>, NotAtRest> {
        let mut inner = self.lock();
        for (seat, state) in inner.seats.iter_mut().zip(states) {
            seat.next = Some(state);
        }
        inner.phase = Phase::Asking;
        drop(inner);
        self.changed.notify_all();
        let mut inner = self.wait_while(patience, |at| !matches!(at, At::Answered(_)))?;
        inner.phase = Phase::Holding;
        // All of them are held then, whoever could not answer among them.
        let answers: Vec<_> = inner.seats.iter_mut().map(Seat::answer).collect();
        answers.into_iter().collect::<Result<_, _>>().map_err(NotAtRest::Registers)
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

    /// A vCPU's thread: holds as long as it is asked to, and says its registers, or takes others, when that is wanted.
    pub fn hold(&self, seat: usize, registers: &impl Registers) {
        let mut inner = self.lock();
        loop {
            let phase = inner.phase;
            let Some(Seat { at, next, .. }) = inner.seats.get_mut(seat) else { return };
            match (phase, &*at) {
                (Phase::Running, _) => {
                    *at = At::Runs;
                    return;
                }
                (Phase::Holding, At::Runs) => {
                    *at = At::Held;
                    self.changed.notify_all();
                }
                (Phase::Asking, At::Runs | At::Held) => {
                    let next = next.take();
                    drop(inner);
                    let answer = match next {
                        Some(state) => registers.set(&state).map(|()| None),
                        None => registers.read().map(Some),
                    };
                    inner = self.lock();
                    if let Some(seat) = inner.seats.get_mut(seat) {
                        seat.at = At::Answered(answer);
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
            *seat = Seat { at: At::Gone(why), ..Seat::default() };
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
    use std::sync::atomic::{AtomicU32, AtomicUsize};
    use std::thread;

    const SOON: Duration = Duration::from_secs(20);

    fn state(tsc_khz: u32) -> VcpuState {
        VcpuState { tsc_khz, ..VcpuState::default() }
    }

    /// One whose registers are its frequency.
    struct Cpu(AtomicU32);

    impl Registers for Cpu {
        fn read(&self) -> Result<VcpuState, String> {
            Ok(state(self.0.load(Ordering::SeqCst)))
        }

        fn set(&self, state: &VcpuState) -> Result<(), String> {
            self.0.store(state.tsc_khz, Ordering::SeqCst);
            Ok(())
        }
    }

    /// One without.
    struct Broken;

    impl Registers for Broken {
        fn read(&self) -> Result<VcpuState, String> {
            Err("no such register".into())
        }

        fn set(&self, _: &VcpuState) -> Result<(), String> {
            Err("no such register".into())
        }
    }

    /// Threads that count as vCPUs run, held, read and set again and again: nobody counts while all are held.
    #[test]
    fn all_hold_say_take_and_go_on() {
        let (rest, over, count) = (Rest::new(3), AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for seat in 0..3_u32 {
                let (rest, over, count) = (&rest, &over, &count);
                scope.spawn(move || {
                    let cpu = Cpu(AtomicU32::new(seat));
                    while !over.load(Ordering::SeqCst) {
                        count.fetch_add(1, Ordering::SeqCst);
                        if rest.is_asked() {
                            rest.hold(seat as usize, &cpu);
                        }
                    }
                });
            }
            let mut first = 0;
            for round in 0..50 {
                rest.ask();
                rest.wait(SOON).unwrap();
                let before = count.load(Ordering::SeqCst);
                for _ in 0..2 {
                    assert_eq!(rest.read(SOON), Ok((first..first + 3).map(state).collect()));
                }
                if round % 2 == 0 {
                    first += 10;
                    rest.set((first..first + 3).map(state).collect(), SOON).unwrap();
                    assert_eq!(rest.read(SOON), Ok((first..first + 3).map(state).collect()));
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
            for seat in 0..2 {
                let rest = &rest;
                scope.spawn(move || rest.hold(seat, &Broken));
            }
            rest.wait(SOON).unwrap();
            let wrong = Err(NotAtRest::Registers("no such register".into()));
            assert_eq!(rest.read(SOON).map(drop), wrong);
            assert_eq!(rest.set(vec![state(1), state(2)], SOON), wrong);
            rest.go_on();
        });
        rest.ask();
        rest.leave(1, Some("a triple fault".into()));
        let gone = rest.wait(SOON).unwrap_err();
        assert_eq!(gone.to_string(), "the guest came to its end: a triple fault");
    }
}
