//! The wall clock behind every deadline: one thread that moves the engine's epoch on every millisecond.
//!
//! ```text
//!              nobody decided for IDLE_TICKS
//!   ticking ----------------------------------> parked
//!      ^                                          |
//!      +------------------------------------------+
//!                  a decision begins
//! ```
//! Parked it costs nothing, so an idle host stays idle. A decider first says `recent`, then looks whether the thread is
//! parked; the thread first says `parked`, then looks whether anything was recent. With both in one total order, one
//! of them sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// The length of a tick.
const TICK: Duration = Duration::from_millis(1);
/// More than any deadline, so that the thread never parks under a running policy.
pub(crate) const IDLE_TICKS: u64 = 1_000;

#[derive(Debug)]
struct Shared {
    recent: AtomicBool,
    parked: AtomicBool,
    stop: AtomicBool,
}

/// Stops its thread on drop.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Ticker {
    pub(crate) fn start(engine: wasmtime::Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            recent: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let handle = std::thread::Builder::new()
            .name("policy-ticker".to_owned())
            .spawn(move || tick(&engine, &theirs))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// A policy is about to run.
    pub(crate) fn touch(&self) {
        self.shared.recent.store(true, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // Not joined: the last owner may be a job of the builder's thread, and this thread ends by itself.
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn tick(engine: &wasmtime::Engine, shared: &Shared) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        idle = if shared.recent.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
        if idle > IDLE_TICKS {
            shared.parked.store(true, Ordering::SeqCst);
            if !shared.recent.load(Ordering::SeqCst) && !shared.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            shared.parked.store(false, Ordering::SeqCst);
            idle = 0;
        }
        std::thread::sleep(TICK);
        engine.increment_epoch();
    }
}
