//! Worker hosts: the inventory, hard limits, and the choice of a host for a new sandbox.
#![forbid(unsafe_code)]

mod choose;
mod fleet;
mod worker;

pub use choose::{Choosers, function_hash, unix_ms};
pub use fleet::{Fleet, HEARTBEAT, MISSED_HEARTBEATS, NoPlace};
pub use worker::{Client, HostState, HostStatus, Worker};
