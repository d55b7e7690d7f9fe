//! Worker hosts: who is there, and which of them gets a new sandbox.
//!
//! - [`Fleet`] keeps the hosts that registered, with a connection to each, and declares the silent ones lost.
//! - A choice is made by two policies (packing lists hosts, placement takes one) and has to pass the hard limits, which
//!   are checked and taken in one step.
//! - What a host reports replaces what was promised on it since.
//!
//! It deliberately knows nothing of single sandboxes (assignment) nor of invocations (frontend).
#![forbid(unsafe_code)]

mod choose;
mod error;
mod fleet;
mod holdings;
mod lane;
mod neighbours;
mod worker;

pub use choose::{Choosers, Observations, Siblings, Wanted, function_hash, unix_ms};
pub use error::{cannot_run, worker_error};
pub use fleet::{Fleet, HEARTBEAT, MISSED_HEARTBEATS, NoPlace};
pub use lane::{Broken, Express, Incoming, Lane, express};
pub use neighbours::Neighbourhoods;
pub use worker::{Cannot, Client, Glance, HostState, HostStatus, Wires, Worker};
