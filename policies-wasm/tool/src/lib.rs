//! Turns a policy's core module into a component that imports nothing.
//!
//! An author builds for `wasm32-unknown-unknown`; the linker leaves the contract's description in a custom section,
//! and [`componentize`] wraps the module by it. A module or component with any import is refused here, long before
//! an engine would refuse it.
#![forbid(unsafe_code)]

mod componentize;

pub use componentize::{ComponentizeError, Componentized, Interface, componentize};
