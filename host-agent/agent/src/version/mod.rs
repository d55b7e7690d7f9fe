//! One version of a function on this host: checked words, checked files, compiled and signed code.
//!
//! ```text
//! wire FunctionVersion ─▶ spec (checked) ─┬─▶ task archive: checked once, kept by digest
//!                                         └─▶ code: artefact kept? ─yes─▶ verified, sealed, shared by its VMs
//!                                                      └no─▶ fetched, compiled in a jail, signed, kept
//! ```
//! A Linux function's version has a runtime instead of code: its root file system and a kernel for it, from this host's shelf
//! ([`crate::linux`]), each compared with its digest once.

mod compile;
mod error;
mod prepare;
mod sealed;
mod spec;
mod task;

pub use compile::{CompileLimits, Compiler};
pub use error::PrepareError;
pub(crate) use error::{from_jailer, is_full};
pub(crate) use prepare::{INIT_TIMEOUT_MS, guest_world};
pub use prepare::{Prepared, Versions, load_spec};
pub use sealed::{LinuxVersion, SealedCode, SealedVersion, Startable};
pub(crate) use sealed::{SealedCache, Weigh};
pub(crate) use spec::is_name;
pub use spec::{BadVersion, VersionSpec, What};
pub use task::{TaskError, check_archive};
