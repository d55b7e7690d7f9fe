//! A real `warren-vmm run`, driven as the agent would drive it, and a guest small enough to misbehave on command.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod guest;
pub mod vmm;

pub use vmm::{Invocation, Vmm, memfd, sealed, spec};
