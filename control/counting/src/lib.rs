//! Strict concurrency limits, without a round trip per invocation.
//!
//! A leader grants *slices* of each limit to frontends; frontends admit out of what they hold. Two pure cores talk
//! in plain messages ([`Leader`], [`Slices`]); two shells add the journal and the clock ([`Counting`], [`Admission`]).
//! - Never above the limit: a slot is counted from before it may be used until nobody can be using it any more.
//! - A function with reserved concurrency has a pool of its own, all others share what the account has left.
//! - Expiry stops admissions only. Slots come back when the holder gave them back, or when every worker that may run
//!   executions of the grant has closed it and reported their end, or was declared dead.
//!
//! It deliberately knows nothing of functions' code, sandboxes or gRPC.
#![forbid(unsafe_code)]

mod admission;
mod journal;
mod leader;
mod service;
mod slices;

pub use admission::{Admission, Refused, Ticket};
pub use leader::{Grant, GrantId, HostName, Leader, Limits, PoolKey};
pub use service::Counting;
pub use slices::Slices;
