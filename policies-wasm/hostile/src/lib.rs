//! Policies that misbehave in every way the engine must survive; tests only.
//!
//! One component for each interface, chosen by feature. A request's function number says what to do with it; every other request is
//! answered by the built-in rules, so that a test can see the next decision come out well.
#![no_std]

extern crate alloc;

pub mod misdeeds;
#[cfg(feature = "packing")]
mod packing;
#[cfg(feature = "placement")]
mod placement;
#[cfg(feature = "routing")]
mod routing;
