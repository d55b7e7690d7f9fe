//! Which sandboxes exist, and whose they are just now.
//!
//! - [`Table`] is a pure core: rows, leases, adoption. Workers are the truth about what it holds.
//! - [`Assignment`] is its shell: has sandboxes placed and made, has them destroyed, takes workers' reports in.
//! - A sandbox is leased to one frontend at a time; a lease is a hint the worker may refuse.
//!
//! It deliberately never sees a payload, and waits for no durable write.
#![forbid(unsafe_code)]

mod service;
mod table;

pub use service::{AssignError, Assignment, Leased, Sandbox, StartTiming};
pub use table::{Acquired, Gone, HostName, Lessee, Phase, Reported, Row, SandboxId, Table, VersionKey};
