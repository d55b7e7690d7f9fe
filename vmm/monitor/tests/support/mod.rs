//! A real `warren-vmm run`, driven as the agent would drive it, and a guest small enough to misbehave on command.
#![allow(dead_code, unreachable_pub, reason = "shared by several test binaries, each of which uses its own part")]

pub mod code;
pub mod guest;
pub mod vmm;

pub use vmm::{Vmm, sealed, spec};
