//! Snapshots of functions at rest: what one is of, who vouches for it, and its file.
//!
//! ```text
//! 0   b"WRNSNAP" version:u8
//! 8   u32 LE: bytes of signed facts
//! 12  signed facts (see [`crate::signing`])
//!     state, an envelope of the VMM's
//!     zeros up to the next multiple of 4096
//!     memory, of the length that is signed
//!     disk, to the end: of Linux guests, without its holes
//! ```
//! A snapshot is served for exactly what it was made of: [`SnapshotOf`] is signed with it and compared as a whole.

mod measure;

pub use measure::{Measure, copy};

use crate::digest::Digest;
use crate::signing::{MAX_METADATA_BYTES, SIGNATURE_BYTES, SigningKey, VerifyError, VerifyingKey};
use crate::signing::{sign_value, verify_value};
use core::fmt;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use warren_abi::isa::IsaSet;

/// Version of the file and of what is signed in it.
pub const SNAPSHOT_VERSION: u8 = 4;

const MAGIC: [u8; 8] = [b'W', b'R', b'N', b'S', b'N', b'A', b'P', SNAPSHOT_VERSION];
const SIGNED: [u8; 8] = [b'W', b'R', b'N', b'R', b'E', b'S', b'T', SNAPSHOT_VERSION];
const PAGE: usize = 4096;
/// Most bytes of state.
pub const MAX_STATE_BYTES: u32 = 192 << 10;

/// Everything a snapshot was made of. Equal values are the same function at the same point of its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOf {
    /// The function's name: no function ever gets another's memory. Empty: no function is in it, it is a [runtime's
    /// own](Self::runtime).
    pub function: String,
    /// Which version of it.
    pub version: u64,
    /// Digest of its files, if it has some.
    pub task: Option<Digest>,
    /// Digest of what the guest is told: version, arguments, environment, limits.
    pub told: Digest,
    /// What it runs on.
    pub guest: GuestOf,
}

/// A guest without its function. What else of a processor a Wasm guest depends on, the VMM compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestOf {
    /// The guest program.
    Wasm {
        /// Digest of the module.
        source: Digest,
        /// Digest of the code it was compiled to.
        code: Digest,
        /// Digest of the guest program.
        program: Digest,
        /// The contract of guest and monitor.
        abi_version: u32,
        /// The instruction sets of its code.
        isa: IsaSet,
    },
    /// A kernel.
    Linux {
        /// Digest of the runtime's root file system.
        runtime: Digest,
        /// Digest of the kernel.
        kernel: Digest,
        /// Digest of the initrd, and so of its first process.
        initrd: Digest,
        /// Digest of the machine: memory, processors, devices, command line.
        machine: Digest,
        /// What it sees of the processor.
        processor: Processor,
        /// The messages of agent and VMM.
        protocol_version: u32,
    },
}

/// What a Linux guest sees of its processor: another one's snapshot is no use to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// The template's name, for people.
    pub template: String,
    /// Digest of all that it sees under that on its host: on every host of a family the same, under `host` this one's own.
    pub seen: Digest,
}

/// Bytes that are signed by digest and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub len: u64,
}

impl Part {
    /// These.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), len: bytes.len() as u64 }
    }
}

/// The name of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotKey([u8; 32]);

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    of: SnapshotOf,
    state: Digest,
    state_len: u32,
    memory: Part,
    disk: Part,
    created_unix_s: u64,
    begun_with: Option<Digest>,
}

/// A snapshot but for its memory and disk. Holding one proves that a trusted key signed this state for what was asked for, and with
/// it their digests; they themselves are proven by [`SnapshotHead::copy_memory`] and [`SnapshotHead::copy_disk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    facts: Facts,
    state: Vec<u8>,
}

/// Why a file is no snapshot that could be served. Making it anew is the answer to all of them but [`Self::Io`].
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It does not have the form: damaged, cut short, or of another version.
    #[error("not a snapshot of version {SNAPSHOT_VERSION}: {0}")]
    Malformed(&'static str),
    /// No trusted key vouches for it.
    #[error("refused")]
    Refused(#[from] VerifyError),
    /// A good snapshot of something else, or of an earlier guest program.
    #[error("it was made of something else")]
    Other,
    /// The state is another than was signed.
    #[error("its state does not have the digest that was signed")]
    State,
    /// The memory is another than was signed.
    #[error("its memory does not have the {0} that was signed")]
    Memory(&'static str),
    /// The disk is another than was signed.
    #[error("its disk does not have the {0} that was signed")]
    Disk(&'static str),
    /// It cannot be read or copied: the host's fault.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

impl SnapshotOf {
    /// Of the same guest before any function is in it, from which the snapshot of a Linux function is made. It is of nobody's code, files
    /// or settings, so all functions of that guest have the same.
    #[must_use]
    pub fn runtime(&self) -> Option<Self> {
        (matches!(self.guest, GuestOf::Linux { .. }) && !self.is_runtime()).then(|| Self {
            function: String::new(),
            version: 0,
            task: None,
            told: Digest::of(&[]),
            guest: self.guest.clone(),
        })
    }

    /// Whether it is that.
    #[must_use]
    pub const fn is_runtime(&self) -> bool {
        self.function.is_empty()
    }

    /// What of it is deployed and collected: the module, or the files.
    #[must_use]
    pub fn source(&self) -> Option<Digest> {
        match self.guest {
            GuestOf::Wasm { source, .. } => Some(source),
            GuestOf::Linux { .. } => self.task,
        }
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> SnapshotKey {
        // Plain data always encodes; should it not, the name is nobody's, for the facts are compared as well.
        let bytes = postcard::to_allocvec(self).unwrap_or_default();
        let mut hasher = blake3::Hasher::new_derive_key("warren-artefact 2026 key of a snapshot");
        SnapshotKey(*hasher.update(&bytes).finalize().as_bytes())
    }
}

impl SnapshotKey {
    /// The key that is written so: 64 hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }

    /// The key of these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

impl fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

impl SnapshotHead {
    /// Of a fresh snapshot with this memory and this disk, which may be empty.
    #[must_use]
    pub fn new(of: SnapshotOf, state: Vec<u8>, memory: Part, disk: Part, created_unix_s: u64) -> Self {
        let state_len = u32::try_from(state.len()).unwrap_or(u32::MAX);
        let state = (Digest::of(&state), state);
        let facts = Facts { of, state: state.0, state_len, memory, disk, created_unix_s, begun_with: None };
        Self { facts, state: state.1 }
    }

    /// The same of one that was made from its [runtime's own](SnapshotOf::runtime), whose memory has this digest. `None`: it was not.
    #[must_use]
    pub fn begun(mut self, with: Option<Digest>) -> Self {
        self.facts.begun_with = with;
        self
    }

    /// Writes it, signed; the memory comes behind it, and then the disk.
    pub fn write(&self, key: &SigningKey, to: &mut impl Write) -> io::Result<()> {
        let signed = sign_value(SIGNED, &self.facts, key);
        let mut head = MAGIC.to_vec();
        head.extend(u32::try_from(signed.len()).unwrap_or(u32::MAX).to_le_bytes());
        head.extend(&signed);
        head.extend(&self.state);
        head.resize(head.len().next_multiple_of(PAGE), 0);
        to.write_all(&head)
    }

    /// Reads one that was made of this and that one of these keys signed; what follows is the memory.
    pub fn read(
        from: &mut impl Read,
        of: &SnapshotOf,
        trusted: &[VerifyingKey],
    ) -> Result<Self, SnapshotError> {
        let head = Self::read_any(from, trusted)?;
        if head.facts.of == *of { Ok(head) } else { Err(SnapshotError::Other) }
    }

    /// The same of whatever it was made: to be looked at, not to be served.
    pub fn read_any(from: &mut impl Read, trusted: &[VerifyingKey]) -> Result<Self, SnapshotError> {
        let begin: [u8; 12] =
            take(from, 12)?.try_into().map_err(|_| SnapshotError::Malformed("cut short"))?;
        let [magic @ .., l0, l1, l2, l3] = begin;
        if magic != MAGIC {
            return Err(SnapshotError::Malformed("unknown beginning"));
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if !(SIGNATURE_BYTES..=MAX_METADATA_BYTES).contains(&len) {
            return Err(SnapshotError::Malformed("facts of no length"));
        }
        let facts: Facts = verify_value(SIGNED, &take(from, len)?, trusted)?;
        if facts.state_len > MAX_STATE_BYTES {
            return Err(SnapshotError::Malformed("state of no length"));
        }
        let state = take(from, facts.state_len as usize)?;
        if Digest::of(&state) != facts.state {
            return Err(SnapshotError::State);
        }
        let end = begin.len() + len + state.len();
        let padding = take(from, end.next_multiple_of(PAGE) - end)?;
        // The one part that no signature covers: it must say nothing.
        if padding.iter().any(|byte| *byte != 0) {
            return Err(SnapshotError::Malformed("padding is not zero"));
        }
        Ok(Self { facts, state })
    }

    /// Copies the memory, and says whether what was copied is what was signed: used before it is known, it is nobody's.
    pub fn copy_memory(&self, from: &mut impl Read, to: &mut impl Write) -> Result<(), SnapshotError> {
        let copied = copy(&mut from.take(self.facts.memory.len), to)?;
        self.facts.memory.proven(copied).map_err(SnapshotError::Memory)
    }

    /// The same of the disk, which comes behind the memory and ends the file: to be called also where there is none.
    pub fn copy_disk(&self, from: &mut impl Read, to: &mut impl Write) -> Result<(), SnapshotError> {
        // One byte more, to tell "as long" from "longer".
        let copied = copy(&mut from.take(self.facts.disk.len.saturating_add(1)), to)?;
        self.facts.disk.proven(copied).map_err(SnapshotError::Disk)
    }

    /// The state, as the VMM gave it.
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// Bytes of memory.
    #[must_use]
    pub const fn memory_len(&self) -> u64 {
        self.facts.memory.len
    }

    /// Bytes of the disk, as they are kept; 0 where there is none.
    #[must_use]
    pub const fn disk_len(&self) -> u64 {
        self.facts.disk.len
    }

    /// Digest of the memory.
    #[must_use]
    pub const fn memory(&self) -> Digest {
        self.facts.memory.digest
    }

    /// Digest and length of the memory.
    #[must_use]
    pub const fn memory_part(&self) -> Part {
        self.facts.memory
    }

    /// Digest and length of the disk, as it is kept.
    #[must_use]
    pub const fn disk_part(&self) -> Part {
        self.facts.disk
    }

    /// When it was made, seconds since 1970.
    #[must_use]
    pub const fn created_unix_s(&self) -> u64 {
        self.facts.created_unix_s
    }

    /// Digest of the memory of its runtime's own, if it was made from that.
    #[must_use]
    pub const fn begun_with(&self) -> Option<Digest> {
        self.facts.begun_with
    }

    /// What it was made of.
    #[must_use]
    pub const fn of(&self) -> &SnapshotOf {
        &self.facts.of
    }
}

impl Part {
    /// Whether this is what was copied, or what is not.
    fn proven(self, copied: Self) -> Result<(), &'static str> {
        match (copied.len == self.len, copied.digest == self.digest) {
            (true, true) => Ok(()),
            (false, _) => Err("length"),
            (true, false) => Err("digest"),
        }
    }
}

/// So many bytes; fewer are a snapshot cut short.
fn take(from: &mut impl Read, len: usize) -> Result<Vec<u8>, SnapshotError> {
    let mut bytes = vec![0; len];
    match from.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(SnapshotError::Malformed("cut short"))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
