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

/// Leaves a test on a machine without /dev/kvm, and says so.
macro_rules! needs_kvm {
    () => {
        if !crate::support::has_kvm() {
            return;
        }
    };
}

#[allow(unused_macros, reason = "shared by several test binaries")]
/// Cases for a guest that was built, for one that was written down and restored, and for one that was put back to that: each takes a
/// [`Life`](crate::support::Life).
macro_rules! in_every_life {
    ($($case:ident),+ $(,)?) => {
        mod built {
            $(#[test] fn $case() { needs_kvm!(); super::$case(crate::support::Life::Built); })+
        }
        mod restored {
            $(#[test] fn $case() { needs_kvm!(); super::$case(crate::support::Life::Restored); })+
        }
        mod reset {
            $(#[test] fn $case() { needs_kvm!(); super::$case(crate::support::Life::Reset); })+
        }
    };
}

pub mod code;
pub mod guest;
pub mod life;
pub mod linux;
pub mod real;
pub mod tap;
pub mod vmm;

pub use life::Life;
pub use vmm::{Vmm, sealed, spec};

/// Whether there is a /dev/kvm. If not, one line past the test harness's capture tells that this case was skipped.
pub fn has_kvm() -> bool {
    if std::path::Path::new("/dev/kvm").exists() {
        return true;
    }
    let thread = std::thread::current();
    let line = format!("warren-skipped: monitor::{}: no /dev/kvm\n", thread.name().unwrap_or("?"));
    rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
    false
}
