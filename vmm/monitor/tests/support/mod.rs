//! A real `warren-vmm run`, driven as the agent would drive it, and a guest small enough to misbehave on command.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test binaries, each of which uses its own part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    missing_docs,
    reason = "a step that fails here fails the test"
)]

pub mod code;
pub mod guest;
pub mod vmm;

pub use vmm::{Vmm, sealed, spec};
