//! The Wasm side: a runtime without a compiler, instances with a budget, and what may go wrong with them.

mod bindings;
mod builder;
mod convert;
mod instance;
mod packing;
mod placement;
mod policy;
mod routing;
mod runtime;
mod ticker;
mod trusted;

pub(crate) use instance::Failure;
pub(crate) use packing::PackingGuest;
pub(crate) use placement::PlacementGuest;
pub use policy::{LoadError, Policy};
pub(crate) use routing::RoutingGuest;
pub use runtime::{Limits, Runtime, RuntimeError};
