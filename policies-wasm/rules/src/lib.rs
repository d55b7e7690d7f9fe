//! The decisions of the built-in policies, pure, for Wasm and native alike.
//!
//! The engine runs these natively as the default that decides whenever a policy component cannot; the `builtin`
//! crates compile the very same code into components. So the two must agree on every log, and a test says so.
//!
//! Principles:
//! 1. Plain data in, plain data out: no clock, no randomness, no allocation of unbounded size, no panic.
//! 2. State is kept in step by deltas; a decision is flat in the number of hosts (see [`RoomIndex`]).
//! 3. An answer depends on the present state alone, not on the order in which deltas built it: a rebuilt instance
//!    decides as the one it replaces.
//! 4. Integers only. Scores are 0 (bad) to 1000 (best).
//!
//! What it deliberately does not do: validate policies' answers (the engine does), or know names of hosts and
//! functions (the engine maps them to indices and hashes).
#![no_std]

extern crate alloc;

mod host;
mod host_set;
mod keep_alive;
mod packing;
mod placement;
mod room_index;
mod routing;
mod rows;

pub use host::{Delta, Demand, Health, HostIndex, HostInfo, HostTable, MAX_HOSTS};
pub use host_set::HostSet;
pub use keep_alive::{History, Windows};
pub use packing::{Fit, FitRequest, Fits, PackingConfig, PackingRules};
pub use placement::{Candidate, Choice, Place, PlaceRequest, PlacementRules, Reason, Scored, ZoneSiblings};
pub use room_index::RoomIndex;
pub use routing::{IdleSandbox, Route, RouteRequest, RoutingRules};
pub use rows::{Row, Rows, extend};

/// The longest list of candidates that any request or answer carries.
pub const MAX_CANDIDATES: usize = 64;
