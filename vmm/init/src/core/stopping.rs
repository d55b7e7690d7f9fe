//! Ending every program in order: the runtime, then the extensions, then whatever is left.

use super::programs::{Extension, ExtensionId, ExtensionState, RuntimeState, Who};
use super::{Action, Answer, Delivery, Machine, Micros, Phase, RUNTIME_GRACE_US, Reason, SHUTDOWN_BUDGET_US};

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    reason: Reason,
    began: Micros,
    stage: Stage,
    /// Whether the sandbox ends with it; otherwise the next event starts over.
    pub(super) then_off: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The runtime was asked to end.
    Runtime,
    /// Extensions were told.
    Extensions,
    /// Everything was killed and is waited for.
    Killed,
}

impl Stopping {
    /// When this stage is over at the latest. Nothing outlives a kill, so that has no limit.
    pub(super) fn until(&self) -> Option<Micros> {
        match self.stage {
            Stage::Runtime => Some(self.began.saturating_add(RUNTIME_GRACE_US)),
            Stage::Extensions => Some(self.began.saturating_add(SHUTDOWN_BUDGET_US)),
            Stage::Killed => None,
        }
    }
}

impl Machine {
    /// Begins the end; while it goes on already, at most its aim changes.
    pub(super) fn stop(&mut self, now: Micros, reason: Reason, then_off: bool) {
        match &mut self.phase {
            Phase::Off => return,
            Phase::Stopping(stopping) => {
                stopping.then_off |= then_off;
                if then_off {
                    self.say_done(now, Answer::Stopped);
                }
                return;
            }
            Phase::Idle => self.act(Action::Thaw),
            _ => {}
        }
        if then_off {
            self.say_done(now, Answer::Stopped);
        }
        let stage = if self.extensions.is_empty() { Stage::Killed } else { Stage::Runtime };
        self.phase = Phase::Stopping(Stopping { reason, began: now, stage, then_off });
        match stage {
            Stage::Killed => self.kill_all(),
            _ if self.runtime != RuntimeState::Absent => self.act(Action::Terminate(Who::Runtime)),
            _ => {}
        }
        self.advance(now, false);
    }

    /// Goes as far as it can; `late` says that the stage's time is over.
    pub(super) fn advance(&mut self, now: Micros, late: bool) {
        let Phase::Stopping(stopping) = &self.phase else { return };
        let Stopping { reason, began, stage, then_off } = stopping.clone();
        let runtime_gone = self.runtime == RuntimeState::Absent;
        let someone_busy = |extension: &Extension| {
            extension.is_alive()
                && extension.subscription.shutdown
                && extension.state != ExtensionState::Finished
        };
        match stage {
            Stage::Runtime if late || runtime_gone => {
                if !runtime_gone {
                    self.act(Action::Kill(Who::Runtime));
                }
                self.set_stage(Stage::Extensions);
                self.tell_extensions(reason, began.saturating_add(SHUTDOWN_BUDGET_US));
                self.advance(now, false);
            }
            Stage::Extensions if late || !self.extensions.iter().any(someone_busy) => {
                self.set_stage(Stage::Killed);
                self.kill_all();
                self.advance(now, false);
            }
            Stage::Killed if runtime_gone && !self.extensions.iter().any(Extension::is_alive) => {
                self.phase = if then_off { Phase::Off } else { Phase::Down };
                if then_off {
                    self.act(Action::PowerOff);
                } else if self.event.is_some() {
                    self.launch(now, true);
                }
            }
            _ => {}
        }
    }

    fn set_stage(&mut self, to: Stage) {
        if let Phase::Stopping(stopping) = &mut self.phase {
            stopping.stage = to;
        }
    }

    fn tell_extensions(&mut self, reason: Reason, until: Micros) {
        for at in 0..self.extensions.len() {
            let who = Who::Extension(ExtensionId(at));
            let Some(extension) = self.extensions.get(at).filter(|extension| extension.is_alive()) else {
                continue;
            };
            if !extension.subscription.shutdown {
                self.act(Action::Kill(who));
            } else if extension.waits() {
                self.deliver(who, Delivery::Shutdown { reason, until });
            }
        }
    }

    /// An extension asks for the next event meanwhile: once it gets SHUTDOWN, then it is finished.
    pub(super) fn next_while_stopping(&mut self, now: Micros, id: ExtensionId) {
        let Phase::Stopping(stopping) = &self.phase else { return };
        let (reason, until) = (stopping.reason, stopping.began.saturating_add(SHUTDOWN_BUDGET_US));
        let told = stopping.stage != Stage::Runtime;
        let Some(extension) = self.extensions.get_mut(id.0) else { return };
        if !told || extension.internal {
            extension.state = ExtensionState::Waiting;
        } else if extension.told {
            extension.state = ExtensionState::Finished;
            self.advance(now, false);
        } else {
            self.deliver(Who::Extension(id), Delivery::Shutdown { reason, until });
        }
    }

    fn kill_all(&mut self) {
        if self.runtime != RuntimeState::Absent {
            self.act(Action::Kill(Who::Runtime));
        }
        for at in 0..self.extensions.len() {
            if self.extensions.get(at).is_some_and(Extension::is_alive) {
                self.act(Action::Kill(Who::Extension(ExtensionId(at))));
            }
        }
    }
}
