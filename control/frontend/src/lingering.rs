//! Slots of invocations whose end nobody reported yet.
//!
//! A connection to a worker broke mid-call: the client is told, but the function may still run there, so its slot
//! must not be given to anybody else. It comes back when the worker reports the sandbox dead or idle, and at the
//! latest when the function's timeout must have ended it (the VMM enforces that by itself, also without its agent).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use warren_counting::Ticket;

/// The slots, by the sandbox that may still run.
#[derive(Debug, Default)]
pub struct Lingering {
    held: Mutex<HashMap<Arc<str>, (Ticket, Instant)>>,
}

impl Lingering {
    /// Keeps a slot until the sandbox's end is known, or until then.
    pub(crate) fn keep(&self, sandbox: Arc<str>, ticket: Ticket, until: Instant) {
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(sandbox, (ticket, until)));
    }

    /// A worker says that this sandbox runs nothing (any more).
    pub fn ended(&self, sandbox: &str) {
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(sandbox));
    }

    /// Timeouts that have passed by now.
    pub fn sweep(&self, now: Instant) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (_, until)| now < *until);
    }
}
