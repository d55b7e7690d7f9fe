//! A function's files, from what people hand in to the archive that every host knows: a plain ustar with regular files and
//! folders, under relative names, sorted (files beside the folders last), without times or owners, so that the same files give
//! the same digest everywhere, and a changed handler leaves most of the archive as it was.
//!
//! - [`from_folder`] packs a folder of the caller's own.
//! - [`from_zip`] takes a zip of anybody's: nothing is written to a disk, nothing is believed before it is checked, and every
//!   refusal says which entry and has a [reason](BundleError::reason).
//!
//! It deliberately knows no function, no host and no service.
#![forbid(unsafe_code)]

mod error;
mod folder;
mod pack;
mod zipped;

pub use error::BundleError;
pub use folder::from_folder;
pub use zipped::{from_zip, is_zip};

/// Most bytes of a zip, as in AWS Lambda.
pub const MAX_ZIP_BYTES: usize = 50 << 20;
/// Most bytes of the archive, as in AWS Lambda. (A Wasm function's files are mapped into its memory and may have less; that
/// is said where they are taken.)
pub const MAX_ARCHIVE_BYTES: usize = 250 << 20;
/// Most files and folders.
pub const MAX_ENTRIES: usize = 10_000;
/// How many times its size a zip may unpack to, beyond the first MiB: real code stays below 20, text below 60.
pub const MAX_RATIO: u64 = 200;
