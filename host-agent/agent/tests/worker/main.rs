//! The agent with the real jailer, VMM, guest and compiler; the test stands in control's place.
//!
//! Each case starts a host of its own. What is missing (a program not built, /dev/kvm) is a failure, not a skip.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::manual_assert,
    reason = "helpers of tests fail a test by panicking"
)]

mod adoption;
mod bad_input;
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a module that suites of control and agent include"
)]
#[path = "../../../../control/server/tests/world/callers.rs"]
mod callers;
mod churn;
mod collected;
mod death;
mod fence;
mod fleet;
mod jailed;
mod life;
mod logs;
mod neighbours;
mod paged;
mod principals;
mod private;
mod rig;
mod shared;
mod snapshots;
mod soak;
mod worst;
mod young;
