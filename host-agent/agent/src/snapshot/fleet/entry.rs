//! An entry: one object of the origin that says where a snapshot's memory and disk are, signed by the host that made it.
//!
//! ```text
//! statement of a worker (warren-identity): certificate, time, generation, signature over
//!    0   version:u8
//!    1   postcard: what it was made of, state, digests and lengths of memory and disk, when, names of their manifests, what it began with
//! ```
//! [`judge`] is the one door. What it gives was said by a worker of this fleet about this key; the memory and the disk behind it are
//! proven when they are read, by the digests in the head.

use super::{super::make, keys::Keys};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};
use warren_artefact::{Digest, Part, SnapshotHead, SnapshotKey, SnapshotOf, snapshot::MAX_STATE_BYTES};
use warren_chunks::{Name, TenantKey};
use warren_identity::{
    HostId, IdentityError, STATEMENT_OVERHEAD, StatementError, StatementSigner, StatementVerifier,
};

/// The version of what is signed.
const VERSION: u8 = 3;
/// What for: nothing else that a worker signs says so.
const PURPOSE: &str = "snapshot of a function";
/// Most bytes of an entry: a state, and little beside it.
pub(super) const MAX_BYTES: usize = MAX_STATE_BYTES as usize + (16 << 10) + STATEMENT_OVERHEAD;

/// What publishing one cost the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Bytes of sealed chunks that it had not.
    pub new_bytes: u64,
    /// And that it had already, of whatever function.
    pub shared_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Said {
    of: SnapshotOf,
    state: Vec<u8>,
    memory: Part,
    disk: Part,
    created_unix_s: u64,
    memory_manifest: [u8; 32],
    disk_manifest: Option<[u8; 32]>,
    sequence: u32,
    stored: Stored,
    begun_with: Option<Digest>,
}

/// A snapshot that the fleet has. Holding one proves that a worker of this fleet signed the head and the names; what they name is
/// proven when it is read.
#[derive(Clone)]
pub struct FleetSnapshot {
    /// Its state, and what it was made of; digests and lengths of memory and disk.
    pub head: SnapshotHead,
    /// The manifest of its memory, addressed as the guest addresses it.
    pub memory: Name,
    /// The manifest of its scratch disk, if it has one.
    pub disk: Option<Name>,
    /// What both open with.
    pub key: TenantKey,
    /// Which host said so.
    pub by: HostId,
    /// How often its access log was learned from.
    pub sequence: u32,
    /// What publishing it cost.
    pub stored: Stored,
}

impl fmt::Debug for FleetSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head, memory, by, sequence, .. } = self;
        let key = head.of().key();
        f.debug_struct("FleetSnapshot")
            .field("key", &key)
            .field("memory", memory)
            .field("by", by)
            .field("sequence", sequence)
            .finish_non_exhaustive()
    }
}

/// Why an entry is not believed. The answer to all of them is to boot, and to publish another.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Longer than any.
    #[error("it is longer than any entry")]
    TooLong,
    /// Nobody of this fleet said it, or not like that.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Another release's.
    #[error("it is of version {found}, this release reads {VERSION}")]
    Version {
        /// Which.
        found: u8,
    },
    /// A worker signed it, and it is none.
    #[error("it contradicts itself: {0}")]
    Malformed(&'static str),
    /// A good entry of another snapshot.
    #[error("it is the entry of another snapshot")]
    OtherKey,
    /// Of the same name, and made of something else.
    #[error("it was made of something else")]
    Other,
}

/// What is to be signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) head: &'a SnapshotHead,
    pub(super) memory: Name,
    pub(super) disk: Option<Name>,
    pub(super) sequence: u32,
    pub(super) stored: Stored,
}

/// Signs an entry.
pub(super) fn sign(
    signer: &StatementSigner,
    Facts { head, memory, disk, sequence, stored }: Facts<'_>,
    now: SystemTime,
    generation: u32,
) -> Result<Vec<u8>, IdentityError> {
    let said = Said {
        of: head.of().clone(),
        state: head.state().to_vec(),
        memory: head.memory_part(),
        disk: head.disk_part(),
        created_unix_s: head.created_unix_s(),
        memory_manifest: memory.0,
        disk_manifest: disk.map(|name| name.0),
        sequence,
        stored,
        begun_with: head.begun_with(),
    };
    let body = postcard::to_extend(&said, vec![VERSION]).map_err(|_| IdentityError::Sign)?;
    signer.sign(PURPOSE, now, generation, &body)
}

/// Judges the bytes that lie under a key.
pub(super) fn judge(
    verifier: &StatementVerifier,
    key: SnapshotKey,
    bytes: &[u8],
    now: SystemTime,
    least: u32,
    keys: &Keys,
) -> Result<FleetSnapshot, EntryError> {
    if bytes.len() > MAX_BYTES {
        return Err(EntryError::TooLong);
    }
    let statement = verifier.verify(PURPOSE, bytes, now, least)?;
    let (version, body) = statement.body.split_first().ok_or(EntryError::Malformed("nothing"))?;
    if *version != VERSION {
        return Err(EntryError::Version { found: *version });
    }
    let said: Said = match postcard::take_from_bytes(body) {
        Ok((said, [])) => said,
        _ => return Err(EntryError::Malformed("it does not decode")),
    };
    if said.of.key() != key {
        return Err(EntryError::OtherKey);
    }
    let rule = |holds: bool, rule| if holds { Ok(()) } else { Err(EntryError::Malformed(rule)) };
    rule(said.state.len() <= MAX_STATE_BYTES as usize, "a state longer than any")?;
    rule(said.memory.len <= make::MOST_MEMORY_BYTES, "more memory than any")?;
    rule(said.disk.len <= make::MOST_DISK_BYTES, "a larger disk than any")?;
    rule(said.disk_manifest.is_some() == (said.disk.len > 0), "a disk without a manifest, or the reverse")?;
    let made = UNIX_EPOCH.checked_add(std::time::Duration::from_secs(said.created_unix_s));
    rule(made.is_some(), "a time that there is not")?;
    let Said { of, state, memory, disk, created_unix_s, sequence, stored, begun_with, .. } = said;
    Ok(FleetSnapshot {
        head: SnapshotHead::new(of, state, memory, disk, created_unix_s).begun(begun_with),
        memory: Name(said.memory_manifest),
        disk: said.disk_manifest.map(Name),
        key: keys.tenant(),
        by: statement.host,
        sequence,
        stored,
    })
}

#[cfg(test)]
pub(super) mod tests;
