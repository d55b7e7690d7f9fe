//! What programs ask of the machine through the APIs, and when it refuses.

use super::programs::{Extension, ExtensionState, RuntimeState};
use super::{
    Action, Answer, Delivery, EXTENSIONS_MAX, ExtensionId, Fault, Machine, Micros, Phase, Record,
    Subscription, Who,
};

/// Why a request is refused. The API says so with Lambda's status and type for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The runtime may not do that now.
    RuntimeState {
        /// Where it is.
        from: &'static str,
        /// Where it wanted to go.
        to: &'static str,
    },
    /// The extension may not do that now.
    ExtensionState,
    /// No event has this id.
    RequestId,
    /// Nobody registers any more.
    RegistrationClosed,
    /// An extension of this name is there.
    NameTaken,
    /// There are enough.
    TooManyExtensions,
    /// An internal extension cannot have this event.
    EventType,
    /// No such extension.
    UnknownExtension,
}

impl Machine {
    /// The runtime asks for the next event; it comes by [`Action::Deliver`].
    pub(crate) fn runtime_next(&mut self, now: Micros) -> Result<(), Refusal> {
        match self.runtime {
            RuntimeState::Launched => {
                if let Phase::Starting { inside, .. } = self.phase {
                    self.act(Action::Record(Record::InitRuntimeDone { inside, error_type: None }));
                }
            }
            RuntimeState::Answered => self.record_runtime_done(now),
            RuntimeState::Waiting | RuntimeState::Restored => {}
            // It asks again for what it has not answered: its connection may have broken. What is about to be ended waits.
            RuntimeState::Busy => {
                if self.phase == Phase::Invoking {
                    self.act(Action::Deliver(Who::Runtime, Delivery::Event));
                }
                return Ok(());
            }
            RuntimeState::Absent | RuntimeState::Restorable | RuntimeState::Faulted => {
                return Err(self.refuse("Ready"));
            }
        }
        self.runtime = RuntimeState::Waiting;
        self.go_on(now);
        Ok(())
    }

    /// Whether an answer to this event would be taken now; asked before its bytes are read.
    pub(crate) fn may_answer(&self, id: &str, to: &'static str) -> Result<(), Refusal> {
        match (&self.event, self.runtime) {
            (Some(event), RuntimeState::Busy) if event.id == id => Ok(()),
            (_, RuntimeState::Busy) => Err(Refusal::RequestId),
            _ => Err(self.refuse(to)),
        }
    }

    /// The runtime's answer to an event.
    pub(crate) fn answer(&mut self, id: &str, answer: Answer, to: &'static str) -> Result<(), Refusal> {
        self.may_answer(id, to)?;
        if let Some(event) = &mut self.event {
            event.answer = Some(answer);
        }
        self.runtime = RuntimeState::Answered;
        Ok(())
    }

    /// The runtime says that it cannot start.
    pub(crate) fn runtime_init_error(&mut self, now: Micros, fault: &Fault) -> Result<(), Refusal> {
        if self.runtime != RuntimeState::Launched {
            return Err(self.refuse("InitError"));
        }
        self.runtime = RuntimeState::Faulted;
        self.fail(now, fault);
        Ok(())
    }

    /// An extension registers: an external one under its file's name, any other name is an internal one's.
    pub(crate) fn register(
        &mut self,
        name: &str,
        subscription: Subscription,
    ) -> Result<(ExtensionId, bool), Refusal> {
        if !matches!(self.phase, Phase::Starting { .. }) {
            return Err(Refusal::RegistrationClosed);
        }
        let at = match self.extensions.iter().position(|extension| extension.name == name) {
            Some(at) => at,
            None if subscription.shutdown => return Err(Refusal::EventType),
            None if self.extensions.len() >= EXTENSIONS_MAX => return Err(Refusal::TooManyExtensions),
            // Inside the runtime, so only once it runs and before it is ready.
            None if self.runtime != RuntimeState::Launched => return Err(Refusal::RegistrationClosed),
            None => {
                let state = ExtensionState::Launched;
                self.extensions.push(Extension {
                    internal: true,
                    state,
                    ..Extension::external(name.to_owned())
                });
                self.extensions.len() - 1
            }
        };
        let extension = self.extensions.get_mut(at).ok_or(Refusal::UnknownExtension)?;
        if extension.state != ExtensionState::Launched {
            return Err(if extension.internal { Refusal::NameTaken } else { Refusal::ExtensionState });
        }
        extension.state = ExtensionState::Registered;
        extension.subscription = subscription;
        let internal = extension.internal;
        self.act(Action::Record(Record::Extension { name: name.to_owned(), subscription }));
        Ok((ExtensionId(at), internal))
    }

    /// To be called when the answer to a registration is on its way: may launch the runtime.
    pub(crate) fn registered(&mut self, now: Micros) {
        self.go_on(now);
    }

    /// An extension asks for the next event; it comes by [`Action::Deliver`].
    pub(crate) fn extension_next(&mut self, now: Micros, id: ExtensionId) -> Result<(), Refusal> {
        let stopping = matches!(self.phase, Phase::Stopping(_));
        let extension = self.extensions.get_mut(id.0).ok_or(Refusal::UnknownExtension)?;
        match extension.state {
            ExtensionState::Absent | ExtensionState::Launched | ExtensionState::Finished => {
                return Err(Refusal::ExtensionState);
            }
            _ if stopping => self.next_while_stopping(now, id),
            _ => {
                extension.state = ExtensionState::Waiting;
                self.go_on(now);
            }
        }
        Ok(())
    }

    /// An extension says that it cannot start, or cannot go on.
    pub(crate) fn extension_error(
        &mut self,
        now: Micros,
        id: ExtensionId,
        fault: &Fault,
    ) -> Result<(), Refusal> {
        let extension = self.extensions.get_mut(id.0).ok_or(Refusal::UnknownExtension)?;
        if matches!(
            extension.state,
            ExtensionState::Absent | ExtensionState::Launched | ExtensionState::Finished
        ) {
            return Err(Refusal::ExtensionState);
        }
        extension.state = ExtensionState::Finished;
        match self.phase {
            Phase::Stopping(_) => self.advance(now, false),
            _ => self.fail(now, fault),
        }
        Ok(())
    }

    /// The event that runs or waits.
    pub(crate) fn current(&self) -> Option<&str> {
        self.event.as_ref().map(|event| event.id.as_str())
    }

    /// Whether subscriptions to telemetry are taken: until init is done.
    pub(crate) fn takes_subscriptions(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    /// The name of an extension.
    pub(crate) fn extension_name(&self, id: ExtensionId) -> Option<&str> {
        self.extensions.get(id.0).map(|extension| extension.name.as_str())
    }

    fn record_runtime_done(&mut self, now: Micros) {
        let Some(event) = &mut self.event else { return };
        let Some(answer) = &event.answer else { return };
        event.runtime_done = true;
        let (status, produced) = (answer.status(), answer.len());
        let took = now.saturating_sub(event.began);
        self.act(Action::Record(Record::RuntimeDone { status, took, produced }));
    }

    pub(super) fn refuse(&self, to: &'static str) -> Refusal {
        let from = match self.runtime {
            RuntimeState::Absent | RuntimeState::Launched => "Started",
            RuntimeState::Restorable => "RestoreReady",
            RuntimeState::Restored => "Restoring",
            RuntimeState::Waiting => "Ready",
            RuntimeState::Busy => "Running",
            RuntimeState::Answered => "ResponseSent",
            RuntimeState::Faulted => "InitError",
        };
        Refusal::RuntimeState { from, to }
    }
}
