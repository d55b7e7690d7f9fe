//! What follows a restore: a runtime that waits to hear of it does what it has to, and then waits for events.

use super::programs::RuntimeState;
use super::{Action, Delivery, Fault, Machine, Micros, Phase, Record, Refusal, Said, Who};

/// The sandbox is not where it can be written down or brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotIdle;

impl Machine {
    /// Whether it can be written down now.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// It was brought back from what was written down. Whether everybody waits for events is said, as after init.
    pub(crate) fn restored(&mut self, now: Micros) -> Result<(), NotIdle> {
        if !self.is_idle() {
            return Err(NotIdle);
        }
        // Its init was another's, who reported it.
        self.init_took = None;
        if self.runtime == RuntimeState::Restorable {
            self.act(Action::Thaw);
            self.restore_runtime(now);
        } else {
            self.act(Action::Say(Said::Ready { took: 0 }));
        }
        Ok(())
    }

    /// The runtime is initialised and asks to hear when it was restored: [`Action::Deliver`] says so.
    pub(crate) fn restore_next(&mut self, now: Micros) -> Result<(), Refusal> {
        match self.runtime {
            RuntimeState::Launched if self.snapshots => {
                if let Phase::Starting { inside, .. } = self.phase {
                    self.act(Action::Record(Record::InitRuntimeDone { inside, error_type: None }));
                }
                self.runtime = RuntimeState::Restorable;
                self.go_on(now);
            }
            // They ask again: their connection may have broken.
            RuntimeState::Restorable => {}
            RuntimeState::Restored => {
                if let Phase::Restoring { .. } = self.phase {
                    self.act(Action::Deliver(Who::Runtime, Delivery::Restored));
                }
            }
            _ => return Err(self.refuse("RestoreReady")),
        }
        Ok(())
    }

    /// The runtime says that what it does after a restore failed.
    pub(crate) fn restore_error(&mut self, now: Micros, fault: &Fault) -> Result<(), Refusal> {
        if self.runtime != RuntimeState::Restored {
            return Err(self.refuse("RestoreError"));
        }
        self.runtime = RuntimeState::Faulted;
        self.fail(now, fault);
        Ok(())
    }

    /// An event begins, as soon as the runtime can have one.
    pub(super) fn hand_out(&mut self, now: Micros) {
        if self.runtime == RuntimeState::Restorable {
            self.restore_runtime(now);
        } else {
            self.invoke();
        }
    }

    /// Everybody waits for events now.
    pub(super) fn come_back(&mut self, took: Micros) {
        self.phase = Phase::Idle;
        if self.event.is_some() {
            self.invoke();
        } else {
            self.act(Action::Say(Said::Ready { took }));
            self.act(Action::Freeze);
        }
    }

    fn restore_runtime(&mut self, now: Micros) {
        self.phase = Phase::Restoring { began: now };
        self.deliver(Who::Runtime, Delivery::Restored);
    }
}
