//! What policy authors depend on: one trait for each decision and a macro that makes a component of its implementation.
//!
//! ```
//! # fn main() {}
//! # mod policy {
//! use warren_policy_sdk::routing::{Route, RouteRequest, RoutingPolicy, Windows};
//!
//! struct Newest;
//!
//! impl RoutingPolicy for Newest {
//!     fn new(_config: &str) -> Self {
//!         Self
//!     }
//!     fn choose(&mut self, request: RouteRequest) -> Route {
//!         let newest = request.idle.iter().min_by_key(|sandbox| sandbox.idle_ms);
//!         newest.map_or(Route::StartNew, |sandbox| Route::To(sandbox.index))
//!     }
//!     fn observe(&mut self, _function: u64, _now_ms: u64) -> Windows {
//!         Windows { keep_alive_ms: 600_000, pre_warm_ms: 0 }
//!     }
//! }
//!
//! warren_policy_sdk::export_routing!(Newest);
//! # }
//! ```
//! (and `#![no_std]` above it).
//!
//! Principles: a policy has no clock, randomness, files or network, so it is a plain struct with plain methods, tested
//! like any other; a panic is a trap, after which the engine makes a new instance and the built-in default decides;
//! allocate little, keep indexes up to date in `deltas`, and a decision stays under a microsecond.
//!
//! What it deliberately does not do: offer the host anything the contract (`policies-wasm/wit`) does not have.
#![no_std]

extern crate alloc;

mod bindings;
pub mod packing;
pub mod placement;
pub mod routing;
pub mod rules;
#[cfg(target_arch = "wasm32")]
mod runtime;

#[doc(hidden)]
pub use alloc::{string::String, vec::Vec};

#[doc(hidden)]
pub mod glue {
    //! What the export macros expand to; not for direct use.
    pub use crate::bindings::{packing, placement, routing};
}
