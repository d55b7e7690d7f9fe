//! Slots of invocations whose end nobody reported yet.
//!
//! A connection to a worker broke mid-call: the client is told, but the function may still run there, so its slot
//! must not be given to anybody else. It comes back when the worker reports the sandbox dead or idle, and at the
//! latest when the function's timeout must have ended it (the VMM enforces that by itself, also without its agent).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use warren_assignment::Sandbox;
use warren_counting::Ticket;

/// The slots, by the sandbox that may still run.
#[derive(Debug, Default)]
pub struct Lingering {
    held: Mutex<HashMap<Arc<str>, Held>>,
}

#[derive(Debug)]
struct Held {
    _slot: Ticket,
    /// Where the sandbox is: no other host's word ends it.
    host: Arc<str>,
    until: Instant,
}

impl Lingering {
    /// Keeps a slot until the sandbox's end is known, or until then.
    pub(crate) fn keep(&self, sandbox: &Sandbox, slot: Ticket, until: Instant) {
        let held = Held { _slot: slot, host: Arc::clone(sandbox.worker.id()), until };
        drop(self.lock().insert(Arc::clone(&sandbox.id), held));
    }

    /// This host says that this sandbox of its own runs nothing (any more).
    pub fn ended(&self, host: &str, sandbox: &str) {
        let mut held = self.lock();
        if held.get(sandbox).is_some_and(|held| *held.host == *host) {
            held.remove(sandbox);
        }
    }

    /// Timeouts that have passed by now.
    pub fn sweep(&self, now: Instant) {
        self.lock().retain(|_, held| now < held.until);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Held>> {
        // Slots by name, whole between any two statements.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
