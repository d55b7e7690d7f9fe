//! Every sandbox of this host by id, and what control has yet to hear of.

use super::live::Sandbox;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};
use warren_sandbox_plan::name::SandboxName;

/// Most unreported sandboxes; beyond it control gets the whole table instead.
const MAX_CHANGED: usize = 10_000;

/// The table. Dead sandboxes leave it when they are reclaimed.
#[derive(Debug, Default)]
pub struct SandboxTable {
    all: Mutex<HashMap<SandboxName, Arc<Sandbox>>>,
    changed: Mutex<Changed>,
}

#[derive(Debug, Default)]
struct Changed {
    sandboxes: Vec<Arc<Sandbox>>,
    /// More changed than is remembered: control must be told everything.
    overflow: bool,
}

impl SandboxTable {
    /// Adds one; refused if the id is taken.
    #[must_use]
    pub fn insert(&self, sandbox: &Arc<Sandbox>) -> bool {
        match lock(&self.all).entry(sandbox.about.id.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(Arc::clone(sandbox));
                true
            }
        }
    }

    /// Finds one.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        let name = SandboxName::new(id).ok()?;
        lock(&self.all).get(&name).cloned()
    }

    /// Forgets one that is reclaimed.
    pub fn remove(&self, sandbox: &Arc<Sandbox>) {
        let mut all = lock(&self.all);
        if all.get(&sandbox.about.id).is_some_and(|there| Arc::ptr_eq(there, sandbox)) {
            all.remove(&sandbox.about.id);
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Sandbox>> {
        lock(&self.all).values().cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.all).len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Control shall hear of this one's state with the next heartbeat.
    pub fn changed(&self, sandbox: &Arc<Sandbox>) {
        if sandbox.note_change() {
            let mut changed = lock(&self.changed);
            if changed.sandboxes.len() < MAX_CHANGED {
                changed.sandboxes.push(Arc::clone(sandbox));
            } else {
                changed.overflow = true;
            }
        }
    }

    /// Takes what is to be reported; `None` means: report the whole table.
    pub fn take_changed(&self) -> Option<Vec<Arc<Sandbox>>> {
        let taken = core::mem::take(&mut *lock(&self.changed));
        for sandbox in &taken.sandboxes {
            sandbox.unreported.store(false, Ordering::Release);
        }
        (!taken.overflow).then_some(taken.sandboxes)
    }

    /// The report did not arrive: report them again.
    pub fn put_back(&self, sandboxes: &[Arc<Sandbox>]) {
        for sandbox in sandboxes {
            self.changed(sandbox);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
