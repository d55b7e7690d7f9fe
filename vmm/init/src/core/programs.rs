//! The programs of a sandbox: the runtime, and extensions. External ones are programs of their own; internal ones live in the
//! runtime's process.

use super::{Action, Delivery, Fault, Machine, Micros, Phase};
use bytes::Bytes;
use warren_vmm_protocol::guest::InitFailure;

/// An extension, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ExtensionId(pub(crate) usize);

/// A program, or an extension inside one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    /// The runtime.
    Runtime,
    /// An extension.
    Extension(ExtensionId),
}

/// What an extension wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// INVOKE events.
    pub(crate) invoke: bool,
    /// The SHUTDOWN event.
    pub(crate) shutdown: bool,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a status.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// Killed because memory ran out.
    OutOfMemory,
    /// It never began.
    NotStarted {
        /// Lambda's name for why.
        error_type: &'static str,
        /// Why.
        why: String,
    },
}

/// Where the runtime is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuntimeState {
    Absent,
    Launched,
    /// It waits to be restored.
    Restorable,
    /// It was, and does what is to be done then.
    Restored,
    Waiting,
    Busy,
    Answered,
    /// It said that it cannot go on.
    Faulted,
}

/// Where an extension is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExtensionState {
    Absent,
    Launched,
    Registered,
    Waiting,
    Busy,
    /// It said that it cannot go on, or that it is done.
    Finished,
}

#[derive(Debug)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) internal: bool,
    pub(super) state: ExtensionState,
    pub(super) subscription: Subscription,
    /// It got SHUTDOWN.
    pub(super) told: bool,
}

impl Extension {
    pub(super) fn external(name: String) -> Self {
        let state = ExtensionState::Absent;
        Self { name, internal: false, state, subscription: Subscription::default(), told: false }
    }

    pub(super) fn is_registered(&self) -> bool {
        !matches!(self.state, ExtensionState::Absent | ExtensionState::Launched)
    }

    pub(super) fn waits(&self) -> bool {
        self.state == ExtensionState::Waiting
    }

    pub(super) fn wants_events(&self) -> bool {
        self.subscription.invoke && self.waits()
    }

    /// A process of its own that runs.
    pub(super) fn is_alive(&self) -> bool {
        !self.internal && self.state != ExtensionState::Absent
    }
}

impl Machine {
    /// A program ended, or never began.
    pub(crate) fn ended(&mut self, now: Micros, who: Who, ending: &Ending) {
        let before = match who {
            Who::Runtime => {
                // What lives in its process ended with it.
                self.extensions.retain(|extension| !extension.internal);
                std::mem::replace(&mut self.runtime, RuntimeState::Absent) != RuntimeState::Absent
            }
            Who::Extension(ExtensionId(at)) => self.extensions.get_mut(at).is_some_and(|extension| {
                std::mem::replace(&mut extension.state, ExtensionState::Absent) != ExtensionState::Absent
            }),
        };
        if !before {
            return;
        }
        if let Phase::Stopping(_) = self.phase {
            self.advance(now, false);
        } else {
            let fault = self.fault_of(who, ending);
            self.fail(now, &fault);
        }
    }

    fn fault_of(&self, who: Who, ending: &Ending) -> Fault {
        let how = match ending {
            Ending::Status(code) => format!("exit status {code}"),
            Ending::Signal(signal) => format!("signal: {signal}"),
            Ending::OutOfMemory => "signal: killed".to_owned(),
            Ending::NotStarted { why, .. } => why.clone(),
        };
        let (failure, error_type, message) = match (who, ending) {
            (Who::Runtime, Ending::NotStarted { error_type, .. }) => (InitFailure::Exited, *error_type, how),
            (Who::Runtime, Ending::OutOfMemory) => {
                (InitFailure::Exited, "Runtime.OutOfMemory", format!("Runtime exited with error: {how}"))
            }
            // Lambda's words: one that ends with 0 had no reason to give.
            (Who::Runtime, Ending::Status(0)) => {
                (InitFailure::Exited, "Runtime.ExitError", "Runtime exited without providing a reason".into())
            }
            (Who::Runtime, _) => {
                (InitFailure::Exited, "Runtime.ExitError", format!("Runtime exited with error: {how}"))
            }
            (Who::Extension(id), ending) => {
                let kind = match ending {
                    Ending::NotStarted { .. } => "Extension.LaunchError",
                    _ => "Extension.Crash",
                };
                let name = self.extensions.get(id.0).map_or("", |extension| &extension.name);
                (InitFailure::Extension, kind, format!("extension {name}: {how}"))
            }
        };
        let exit_code = if let Ending::Status(code) = ending { Some(*code) } else { None };
        let out_of_memory = *ending == Ending::OutOfMemory;
        Fault { exit_code, out_of_memory, body: Bytes::new(), ..Fault::new(failure, error_type, message) }
    }

    pub(super) fn launch_one(&mut self, who: Who) {
        match who {
            Who::Runtime => self.runtime = RuntimeState::Launched,
            Who::Extension(ExtensionId(at)) => {
                if let Some(extension) = self.extensions.get_mut(at) {
                    extension.state = ExtensionState::Launched;
                    extension.told = false;
                }
            }
        }
        self.act(Action::Launch(who));
    }

    pub(super) fn deliver(&mut self, who: Who, delivery: Delivery) {
        match who {
            Who::Runtime if delivery == Delivery::Restored => self.runtime = RuntimeState::Restored,
            Who::Runtime => self.runtime = RuntimeState::Busy,
            Who::Extension(ExtensionId(at)) => {
                if let Some(extension) = self.extensions.get_mut(at) {
                    extension.state = ExtensionState::Busy;
                    extension.told |= matches!(delivery, Delivery::Shutdown { .. });
                }
            }
        }
        self.act(Action::Deliver(who, delivery));
    }
}
