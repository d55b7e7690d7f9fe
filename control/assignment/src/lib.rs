//! Which sandboxes exist, and whose they are just now.
#![forbid(unsafe_code)]

mod service;
mod table;

pub use service::{AssignError, Assignment, Leased, Sandbox, StartTiming};
pub use table::{Acquired, Gone, HostName, Lessee, Phase, Reported, Row, SandboxId, Table, VersionKey};
