//! One version of a function on this host: checked words, checked files, compiled and signed code.
//!
//! ```text
//! wire FunctionVersion ─▶ spec (checked) ─┬─▶ task archive: checked once, kept by digest
//!                                         └─▶ code: artefact kept? ─yes─▶ verified, sealed, shared by its VMs
//!                                                      └no─▶ fetched, compiled in a jail, signed, kept
//! ```

mod compile;
mod error;
mod prepare;
mod sealed;
mod spec;
mod task;

pub use compile::{CompileLimits, Compiler};
pub use error::PrepareError;
pub(crate) use error::{from_jailer, is_full};
pub use prepare::{Prepared, Versions};
pub use sealed::{SealedCode, SealedVersion};
pub use spec::{BadVersion, VersionSpec};
pub use task::{TaskError, check_archive};
