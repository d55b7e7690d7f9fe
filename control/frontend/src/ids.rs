//! Request ids: unique over restarts, without a system call each.

use std::sync::atomic::{AtomicU64, Ordering};

/// Gives ids.
#[derive(Debug)]
pub struct RequestIds {
    /// Random, drawn once.
    life: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// With this life's random number.
    #[must_use]
    pub fn new(life: u64) -> Self {
        Self { life, next: AtomicU64::new(1) }
    }

    /// A new id.
    pub fn next(&self) -> String {
        format!("{:016x}-{:x}", self.life, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
