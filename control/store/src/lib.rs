//! What the control layer remembers: a registry, a journal, blobs.
//!
//! - [`Registry`]: configuration, changed by compare-and-set on a revision that never repeats.
//! - [`Journal`]: appended records per subject, guarded by the expected last sequence; epochs and grants live here.
//! - [`Blobs`]: code and task archives by blake3 digest, whole or not there at all.
//!
//! An answered write is durable. Traits first: on one machine the [`Embedded`] backend keeps all of it in one
//! directory (redb, one writer thread, group commit); JetStream is to be the second backend of the same traits.
//! It deliberately knows nothing of what the values mean.
#![forbid(unsafe_code)]

mod blobs;
mod contract;
mod embedded;
mod error;
mod room;
mod tables;

pub use blobs::{BlobError, Blobs, Digest};
pub use contract::{Entry, Expect, Journal, Record, Registry, Revision, Sequence};
pub use embedded::Embedded;
pub use error::StoreError;
