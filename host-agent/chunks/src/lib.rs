//! The store of what is large and shared: memory images, disks and artefacts, cut into chunks that have their content for
//! a name.
//!
//! It deliberately does *not* map memory, serve page faults, know a virtual machine, or decide who a tenant is: callers
//! bring keys, salts and descriptors. The agent publishes snapshots into it and compares memories with it, the pager reads from it.
//!
//! Principles:
//! - Bytes are believed for what they are, not for where they came from: every read is held against its name, then its seal.
//! - What opens a chunk lies only in manifests sealed under a tenant's key; whoever holds only the store reads nothing.
//! - A cache may lose anything at any time; the origin alone acknowledges.
//! - Decisions are plain functions over plain data ([`l1::index`], [`l3::retry`]); files and sockets are shells.
//!
//! Modules: [`cut`] images into chunks, [`diff`] one against its base, [`flatten`] layers as one image, [`image`] where each
//! page is, [`linear`] a snapshot's memory as one, [`learn`] loading sets of what resumes touched, [`manifest`] what an image is made of, [`pages`] grain and sets, [`seal`]
//! convergent encryption, [`salt`] who shares with whom, [`name`] names and keys; [`l1`] memory and disk, [`l2`] other
//! workers, [`l3`] the origin, [`root`] folders by path or by descriptor,
//! [`files`] crash-safe files.
#![forbid(unsafe_code)]

pub mod cut;
pub mod diff;
pub mod files;
pub mod flatten;
pub mod gc;
pub mod image;
pub mod l1;
pub mod l2;
pub mod l3;
pub mod learn;
pub mod linear;
pub mod manifest;
pub mod metrics;
pub mod name;
pub mod pages;
pub mod root;
pub mod salt;
pub mod seal;
pub mod store;

pub use image::Image;
pub use manifest::Manifest;
pub use name::{ChunkKey, Name, TenantKey};
pub use pages::ChunkSize;
pub use salt::{LayerKind, Salts};
pub use store::Store;
