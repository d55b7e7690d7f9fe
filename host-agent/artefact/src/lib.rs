//! Precompiled artefacts: what names one, what is known of one, who vouches for one, and where they are kept.
//!
//! `warren-compile` turns a module into code; the agent signs what came out of that jail; the monitor, the guest and
//! the policy engine only ever load code whose signature and digest this crate has checked.
//!
//! It deliberately does *not* know Wasmtime, compile anything, or decide whom to trust: callers pass trusted keys.
//!
//! Principles:
//! - The signature is checked before a byte of metadata is decoded, the code's digest before a byte of code is used.
//! - An artefact's key follows from its metadata, so a good artefact under a wrong name is refused as well.
//! - A damaged entry is an answer ([`Lookup::Damaged`]), never a panic and never code: compile again, put again.
//!
//! Modules: [`digest`] BLAKE3 digests, [`metadata`] key and metadata, [`signing`] keys and signatures, [`keyfile`] the
//! builder's key on disk, [`envelope`] metadata, signature and code in one byte string, [`store`] the directory store,
//! [`snapshot`] functions at rest, signed like code, [`result`] what `warren-compile` answers, [`settings`] the policy engine's Wasmtime settings.
#![forbid(unsafe_code)]

pub mod digest;
pub mod envelope;
pub mod keyfile;
pub mod metadata;
pub mod result;
pub mod settings;
pub mod signing;
pub mod snapshot;
pub mod store;

pub use digest::Digest;
pub use envelope::{Artefact, EnvelopeError};
pub use metadata::{ArtefactKey, MemoryDemand, Metadata, Purpose, World, code_version};
pub use result::{CompileError, CompileResult, Compiled, ResultError};
pub use signing::{SigningKey, VerifyError, VerifyingKey, sign, verify};
pub use snapshot::{GuestOf, Part, Processor, SnapshotError, SnapshotHead, SnapshotKey, SnapshotOf};
pub use store::{Lookup, Store, StoreError};
