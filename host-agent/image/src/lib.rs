//! What Linux functions run on, made from Debian packages on a machine with a network, used on hosts without one:
//! root file systems ([`runtime`]), kernels with their initrd ([`kernel`]), empty scratch disks ([`scratch`]).
//!
//! A [`Shelf`] is the folder they lie in, and all that a host's agent knows of this crate:
//! ```text
//! runtimes/NAME/{root.img, manifest.json}          a root file system, read-only in every guest
//! runtimes/NAME.DIGEST/...                         what NAME was before: versions made then still run on it
//! kernels/NAME/{vmlinuz, vmlinux, initrd, manifest.json}
//! scratch/MIB.sparse                               an empty ext4 file system of that size, its holes left out
//! ```
//! Principles:
//! - The same inputs give the same bytes: package versions are the archive's, every time stamp is `SOURCE_DATE_EPOCH`.
//! - What is on the shelf is whole: everything is made beside its place and renamed into it.
//! - It runs Debian's own tools and says which package a missing one is in; it never parses what a tenant wrote.
//! - A kernel package is unpacked, never installed.
#![forbid(unsafe_code)]

mod addon;
pub mod alone;
pub mod config;
pub mod debian;
mod digest;
mod error;
pub mod ext4;
pub mod initrd;
pub mod kernel;
pub mod manifest;
pub mod modules;
pub mod newc;
pub mod recipe;
pub mod runtime;
pub mod scratch;
pub mod shelf;
pub mod sparse;
pub mod tool;
mod wheels;

pub use digest::{of_file, of_open};
pub use error::BuildError;
pub use manifest::{KernelManifest, RuntimeManifest};
pub use recipe::Recipe;
pub use shelf::Shelf;
