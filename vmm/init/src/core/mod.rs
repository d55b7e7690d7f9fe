//! The phases of a function's sandbox, pure: no clock, no process, no socket. Time comes in, deadlines and actions go out.
//!
//! ```text
//!              launch extensions; all registered: launch the runtime; it and they wait: up
//!  New ──start──▶ Starting ────────────────────────────────────────────▶ Idle ◀─────────────┐
//!                  │  ▲ │ up, an event waits                              │ event           │ runtime answered, it and
//!                  │  │ └───────────────────────────────────────────────▶ Invoking ─────────┘ every extension wait
//!     init limit,  │  │ event                                             │    │
//!     init error,  │  │                        a program ended or failed  │    │ the event's deadline
//!     a program    │  │                                                   │    │
//!     ended        ▼  │                                                   ▼    ▼
//!              Stopping(then Down) ──▶ Down            Stopping(then Down)    Stopping(then Off) ──▶ Off
//! ```
//! - **Init that fails** is said to the host at once; the event that comes nevertheless starts everything again, inside its
//!   own time. So does the first event after a program ended.
//! - **An event's answer** is said once runtime and extensions wait again, as Lambda does; a program that ends after the answer
//!   was given does not take it back.
//! - **An event past its deadline** ends the sandbox.
//! - **Stopping**: without extensions the runtime is killed; with any it is asked to end and has [`RUNTIME_GRACE_US`];
//!   external extensions get SHUTDOWN and have until [`SHUTDOWN_BUDGET_US`] after the beginning. One that asks for the next
//!   event after SHUTDOWN has nothing left to do. What is still there is killed; the phase ends when nothing is.
//! - A shutdown that is asked for goes from every phase to Stopping(then Off).
//! - **In Idle every program is held** ([`Action::Freeze`]), and let go before anything else is done with one.
//!
//! In Idle a sandbox is written down and brought back. What a runtime does after that, if it waits to hear of it:
//! ```text
//!  Idle ──restored, or an event──▶ Restoring ──it waits for events──▶ Idle, or Invoking where an event waits
//!   │ restored, and it waits for events already   │ restore error, it ended, [`RESTORE_LIMIT_US`]
//!   └──▶ Idle                                     └──▶ Stopping(then Off); with an event as in Starting
//! ```
//! - **One that waits to be restored is as good as one that waits for events**: init is done with it. An event in a sandbox that
//!   was not brought back, because nobody wrote it down or everything was started again, tells it the same.

mod api;
mod event;
#[cfg(test)]
mod model;
mod programs;
mod record;
mod restore;
mod stopping;
#[cfg(test)]
mod tests;

pub(crate) use api::Refusal;
pub(crate) use event::{Answer, Event, Fault};
pub(crate) use programs::{Ending, ExtensionId, Subscription, Who};
pub(crate) use record::{Record, Status};
pub(crate) use restore::NotIdle;

use programs::{Extension, RuntimeState};
use stopping::Stopping;
use warren_vmm_protocol::guest::InitFailure;

/// Microseconds of a clock that never goes back.
pub(crate) type Micros = u64;

/// What a shutdown may take with external extensions.
pub(crate) const SHUTDOWN_BUDGET_US: Micros = warren_vmm_protocol::guest::SHUTDOWN_BUDGET_MS as Micros * 1000;
/// What the runtime may take of it, and all there is with internal extensions only.
pub(crate) const RUNTIME_GRACE_US: Micros = 300_000;
/// What a runtime may do after a restore.
pub(crate) const RESTORE_LIMIT_US: Micros = warren_vmm_protocol::guest::RESTORE_LIMIT_MS as Micros * 1000;
/// Most extensions, as on Lambda.
pub(crate) const EXTENSIONS_MAX: usize = 10;

/// What the shell has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a program. That it could not be, or that it ended, comes back.
    Launch(Who),
    /// Ask a program to end.
    Terminate(Who),
    /// End a program and what it started.
    Kill(Who),
    /// Answer the request of one that waits for the next event.
    Deliver(Who, Delivery),
    /// Tell the host.
    Say(Said),
    /// Tell whoever subscribed to platform records.
    Record(Record),
    /// Hold every program, once what was said has left: nothing is to be done.
    Freeze,
    /// Let them go on, at once.
    Thaw,
    /// It is over.
    PowerOff,
}

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The event that came last.
    Event,
    /// The sandbox is another one from here on.
    Restored,
    /// The end is near.
    Shutdown {
        /// Why.
        reason: Reason,
        /// Until when there is time.
        until: Micros,
    },
}

/// What the host is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Everything waits for events.
    Ready {
        /// How long that took.
        took: Micros,
    },
    /// It does not.
    InitFailed {
        /// How long it took.
        took: Micros,
        /// Why not.
        fault: Fault,
    },
    /// The end of an event.
    Done {
        /// How.
        answer: Answer,
        /// How long it took.
        took: Micros,
    },
}

/// Why a sandbox ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The host asked for it.
    Spindown,
    /// An event or init ran past its time.
    Timeout,
    /// A program failed.
    Failure,
}

/// Where the sandbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Starting { began: Micros, inside: bool },
    Idle,
    Restoring { began: Micros },
    Invoking,
    Stopping(Stopping),
    Down,
    Off,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    /// What init may take when no event waits.
    init_limit: Micros,
    /// Whether it is one to be written down: its runtime may wait for that.
    snapshots: bool,
    runtime: RuntimeState,
    /// External ones first, in the order of their names; internal ones follow as they register.
    extensions: Vec<Extension>,
    event: Option<Event>,
    /// Of the first init, until it was reported.
    init_took: Option<Micros>,
    actions: Vec<Action>,
}

impl Machine {
    /// A sandbox with these external extensions.
    pub(crate) fn new(init_limit: Micros, snapshots: bool, external: Vec<String>) -> Self {
        Self {
            phase: Phase::New,
            init_limit,
            snapshots,
            runtime: RuntimeState::Absent,
            extensions: external.into_iter().map(Extension::external).collect(),
            event: None,
            init_took: None,
            actions: Vec::new(),
        }
    }

    /// What is to be done since the last call, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`Machine::tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Micros> {
        let event = self.event.as_ref().map(|event| event.deadline);
        match &self.phase {
            Phase::Starting { began, inside: false } => Some(began.saturating_add(self.init_limit)),
            Phase::Restoring { began } => {
                [Some(began.saturating_add(RESTORE_LIMIT_US)), event].into_iter().flatten().min()
            }
            Phase::Starting { .. } | Phase::Invoking => event,
            Phase::Stopping(stopping) => [stopping.until(), event].into_iter().flatten().min(),
            Phase::New | Phase::Idle | Phase::Down | Phase::Off => None,
        }
    }

    /// Begins init.
    pub(crate) fn start(&mut self, now: Micros) {
        if self.phase == Phase::New {
            self.launch(now, false);
        }
    }

    /// An event of the host's. One at a time: a second one while another runs is the host's fault, and ends the sandbox.
    pub(crate) fn event(&mut self, now: Micros, id: String, timeout: Micros) {
        let event = Event::new(id, now, now.saturating_add(timeout));
        match &self.phase {
            _ if self.event.is_some() => self.stop(now, Reason::Failure, true),
            Phase::Stopping(stopping) if stopping.then_off => {
                self.act(Action::Say(Said::Done { answer: Answer::Stopped, took: 0 }));
            }
            // Init runs on; its own limit no longer counts, the event's does.
            Phase::Starting { began, .. } => {
                self.phase = Phase::Starting { began: *began, inside: true };
                self.event = Some(event);
            }
            Phase::Stopping(_) | Phase::New | Phase::Restoring { .. } => self.event = Some(event),
            Phase::Idle => {
                self.event = Some(event);
                self.act(Action::Thaw);
                self.hand_out(now);
            }
            Phase::Down => {
                self.event = Some(event);
                self.launch(now, true);
            }
            Phase::Invoking | Phase::Off => {}
        }
    }

    /// The host wants it to end.
    pub(crate) fn shutdown(&mut self, now: Micros) {
        self.stop(now, Reason::Spindown, true);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Micros) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let late = self.event.as_ref().is_some_and(|event| now >= event.deadline);
        match &self.phase {
            _ if late => {
                self.say_done(now, Answer::TimedOut);
                self.stop(now, Reason::Timeout, true);
            }
            Phase::Starting { .. } => {
                let limit = self.init_limit / 1000;
                let text = format!("init was not done within {limit} ms");
                self.fail(now, &Fault::init_timed_out(text));
            }
            Phase::Restoring { .. } => {
                let limit = RESTORE_LIMIT_US / 1000;
                let text = format!("what runs after a restore was not done within {limit} ms");
                self.fail(now, &Fault::new(InitFailure::Restore, "Sandbox.Timedout", text));
            }
            Phase::Stopping(_) => self.advance(now, true),
            _ => {}
        }
    }

    /// Starts every program, beginning with the extensions.
    fn launch(&mut self, now: Micros, inside: bool) {
        self.extensions.retain(|extension| !extension.internal);
        self.phase = Phase::Starting { began: now, inside };
        self.act(Action::Record(Record::InitStart { inside }));
        for at in 0..self.extensions.len() {
            self.launch_one(Who::Extension(ExtensionId(at)));
        }
        self.go_on(now);
    }

    /// Takes whatever step has become possible in Starting and Invoking.
    fn go_on(&mut self, now: Micros) {
        let extensions_wait = self.extensions.iter().all(Extension::waits);
        let all_wait = self.runtime == RuntimeState::Waiting && extensions_wait;
        let all_up = extensions_wait && (all_wait || self.runtime == RuntimeState::Restorable);
        match &self.phase {
            Phase::Starting { began, inside } => {
                let (began, inside) = (*began, *inside);
                let registered = self.extensions.iter().all(Extension::is_registered);
                if registered && self.runtime == RuntimeState::Absent {
                    self.launch_one(Who::Runtime);
                } else if all_up {
                    self.up(now, now.saturating_sub(began), inside);
                }
            }
            Phase::Restoring { began } if all_wait => self.come_back(now.saturating_sub(*began)),
            Phase::Invoking if all_wait => {
                if let Some(answer) = self.event.as_mut().and_then(|event| event.answer.take()) {
                    self.say_done(now, answer);
                    self.phase = Phase::Idle;
                    self.act(Action::Freeze);
                }
            }
            _ => {}
        }
    }

    fn up(&mut self, now: Micros, took: Micros, inside: bool) {
        self.act(Action::Record(Record::InitReport { inside, took }));
        self.phase = Phase::Idle;
        if self.event.is_some() {
            self.hand_out(now);
        } else {
            self.init_took = Some(took);
            self.act(Action::Say(Said::Ready { took }));
            self.act(Action::Freeze);
        }
        self.go_on(now);
    }

    /// Hands the event to everybody who wants it.
    fn invoke(&mut self) {
        self.phase = Phase::Invoking;
        self.act(Action::Record(Record::Start));
        for at in 0..self.extensions.len() {
            if self.extensions.get(at).is_some_and(Extension::wants_events) {
                self.deliver(Who::Extension(ExtensionId(at)), Delivery::Event);
            }
        }
        self.deliver(Who::Runtime, Delivery::Event);
    }

    /// A program failed in a way that ends all of them: whoever waits is told, and the next event starts over.
    fn fail(&mut self, now: Micros, fault: &Fault) {
        match &self.phase {
            Phase::Starting { began, inside } => {
                let (took, inside) = (now.saturating_sub(*began), *inside);
                let error_type = Some(fault.error_type.clone());
                self.act(Action::Record(Record::InitRuntimeDone { inside, error_type }));
                if self.event.is_some() {
                    self.say_done(now, Answer::Failed(fault.clone()));
                } else {
                    self.act(Action::Say(Said::InitFailed { took, fault: fault.clone() }));
                }
            }
            Phase::Restoring { began } if self.event.is_none() => {
                let took = now.saturating_sub(*began);
                let fault = Fault { failure: InitFailure::Restore, ..fault.clone() };
                self.act(Action::Say(Said::InitFailed { took, fault }));
                return self.stop(now, Reason::Failure, true);
            }
            Phase::Invoking | Phase::Restoring { .. } => {
                let given = self.event.as_mut().and_then(|event| event.answer.take());
                self.say_done(now, given.unwrap_or_else(|| Answer::Failed(fault.clone())));
            }
            _ => {}
        }
        let reason = if fault.timed_out() { Reason::Timeout } else { Reason::Failure };
        self.stop(now, reason, false);
    }

    /// The end of the event, to host and subscribers.
    fn say_done(&mut self, now: Micros, answer: Answer) {
        let Some(event) = self.event.take() else { return };
        let took = now.saturating_sub(event.began);
        let status = answer.status();
        if !event.runtime_done {
            let produced = answer.len();
            self.act(Action::Record(Record::RuntimeDone { status: status.clone(), took, produced }));
        }
        let init = self.init_took.take();
        self.act(Action::Record(Record::Report { status, took, init }));
        self.act(Action::Say(Said::Done { answer, took }));
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}
