//! Snapshots of microVMs as bytes: the envelope, and what each kind of machine keeps in it.
//!
//! ```text
//! offset 0    magic "WRNSTATE" (Wasm) or "WRNLINUX"
//!        8    format version, u32 little-endian
//!       12    bytes of the body, u32 little-endian
//!       16    the body: postcard of the machine's state
//!  16 + len   blake3 of everything before
//! ```
//! Memory is apart: a file of whole pages in the order of [`wasm::WasmState::runs`] or [`linux::LinuxState::runs`]. Pages that
//! are zero are in neither.
//!
//! Principles:
//! - A digest is looked at before anything is decoded, a version before the digest, and a body's rules before anybody uses it.
//! - It is no signature: who keeps a snapshot signs it together with its memory, and shows neither to a VMM unverified.
//! - What every machine of a kind has alike is not in a snapshot: a snapshot of a Wasm guest holds no system registers, so none
//!   can put a vCPU outside of user mode.
//! - A Linux guest's devices each have a record of their own kind and version, so that one can change and still read its older
//!   ones without the rest being made anew.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod linux;
pub mod wasm;

use alloc::vec::Vec;
use serde::{Serialize, de::DeserializeOwned};

/// Most bytes of an envelope: it travels in one control message.
pub const ENVELOPE_MAX: usize = 192 << 10;

/// What an envelope can hold.
pub trait Body: Serialize + DeserializeOwned {
    /// How its envelopes begin.
    const MAGIC: [u8; 8];
    /// The version of its format. A reader knows this one alone; who finds another makes the snapshot anew.
    const VERSION: u32;
}

const HEAD: usize = 8 + 4 + 4;
const DIGEST: usize = 32;

/// Why bytes are no state. Nothing of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not one of ours.
    #[error("this is no snapshot's state, or another kind of guest's")]
    Magic,
    /// Cut short, or with something behind.
    #[error("a state of {expected} bytes was expected, there are {found}")]
    Length {
        /// What its header says.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// Another release's.
    #[error("the snapshot has format version {found}, this release reads {reads}; make it anew")]
    Version {
        /// Which.
        found: u32,
        /// The one that is read.
        reads: u32,
    },
    /// Changed on its way.
    #[error("the snapshot was altered: its digest is wrong")]
    Digest,
    /// The digest is right and the body is not: a defect where it was made.
    #[error("the snapshot's body does not decode")]
    Malformed,
    /// More than an envelope may hold.
    #[error("a state of {len} bytes is more than {ENVELOPE_MAX}")]
    TooLarge {
        /// How many.
        len: usize,
    },
    /// A device was written down as this release cannot read it.
    #[error(
        "the snapshot has device {kind} in version {version}, which this release does not read; make it anew"
    )]
    Device {
        /// Its kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// The body breaks a rule.
    #[error("the snapshot contradicts itself: {0}")]
    Rule(&'static str),
}

/// Puts a body into an envelope.
pub fn seal<T: Body>(body: &T) -> Result<Vec<u8>, StateError> {
    let mut out = Vec::from(T::MAGIC);
    out.extend(T::VERSION.to_le_bytes());
    out.extend([0; 4]);
    let mut out = postcard::to_extend(body, out).map_err(|_| StateError::Malformed)?;
    let len = out.len() + DIGEST;
    if len > ENVELOPE_MAX {
        return Err(StateError::TooLarge { len });
    }
    let body_len = u32::try_from(out.len() - HEAD).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(HEAD - 4..HEAD) {
        field.copy_from_slice(&body_len.to_le_bytes());
    }
    let digest = blake3::hash(&out);
    out.extend(digest.as_bytes());
    Ok(out)
}

/// Takes a body out of an envelope.
pub fn open<T: Body>(bytes: &[u8]) -> Result<T, StateError> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(StateError::Magic)?;
    let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, v2, v3, l0, l1, l2, l3] = *head;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != T::MAGIC {
        return Err(StateError::Magic);
    }
    let found = u32::from_le_bytes([v0, v1, v2, v3]);
    if found != T::VERSION {
        return Err(StateError::Version { found, reads: T::VERSION });
    }
    let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    let expected = len.saturating_add(HEAD + DIGEST);
    if expected != bytes.len() || expected > ENVELOPE_MAX {
        return Err(StateError::Length { expected, found: bytes.len() });
    }
    let (body, digest) = rest.split_at_checked(len).ok_or(StateError::Malformed)?;
    let covered = bytes.get(..HEAD + len).ok_or(StateError::Malformed)?;
    if blake3::hash(covered).as_bytes() != digest {
        return Err(StateError::Digest);
    }
    match postcard::take_from_bytes(body) {
        Ok((body, [])) => Ok(body),
        _ => Err(StateError::Malformed),
    }
}
