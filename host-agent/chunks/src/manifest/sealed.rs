//! A manifest as it is stored.
//!
//! ```text
//! "WRNCHMAN" | format u16 | key id 8 | nonce 12 | has base u8 | base 32 | names u32 | name 32 ... | sealed body + tag
//! `-------------------------- in the clear, bound by the seal ---------------------------------´
//! ```
//! The body (keys, salts, pages, loading set, access log) is under the tenant's key. The names are not: they say nothing
//! of what is in a chunk, a store sees them anyway when they are fetched, and so garbage collection needs nobody's key.
//! They are the first thing the seal binds, so neither they nor the body can be exchanged.
//!
//! Equal manifests of one tenant are equal bytes (the nonce is derived), so storing one twice stores it once. The object's
//! name is that of a chunk: blake3 of all of it.

use super::{AccessLog, Base, ChunkRef, Entry, Malformed, Manifest, Pack, Parts};
use crate::{
    name::{ChunkKey, Name, TenantKey},
    pages::{ChunkSize, PageRun, PageSet},
    salt::SaltId,
    seal,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

const MAGIC: &[u8; 8] = b"WRNCHMAN";
/// The format that is written, and the newest that is read.
pub const FORMAT: u16 = 1;
/// Most bytes of a sealed manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 << 20;
/// Most salts one manifest's chunks are sealed with: as many as a byte tells apart.
const MAX_SALTS: usize = 256;
const NAMES_AT: usize = 8 + 2 + 8 + 12 + 1 + 32;

/// Why sealed bytes are not a manifest to its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than any.
    #[error("it is larger than any manifest")]
    TooLarge,
    /// Something else, or cut short before its body.
    #[error("it is no manifest")]
    NotOne,
    /// Of a newer Warren.
    #[error("it is of format {found}, newer than {FORMAT}")]
    Newer {
        /// Its format.
        found: u16,
    },
    /// Sealed under another tenant's key.
    #[error("it is sealed under another key")]
    OtherKey,
    /// A byte of it is not what was sealed.
    #[error("it was altered or cut short")]
    Altered,
    /// Sealed with the right key, and not a manifest all the same.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// What of a sealed manifest anybody can read: what it needs to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct References {
    /// The sealed manifest of its base.
    pub base: Option<Name>,
    /// Its chunks, in ascending order.
    pub chunks: Vec<Name>,
}

#[derive(Serialize, Deserialize)]
struct WireChunk {
    name: u32,
    key: [u8; 32],
    salt: u8,
}

#[derive(Serialize, Deserialize)]
struct WireEntry {
    window: u32,
    chunk: Option<WireChunk>,
    present: PageSet,
    zeroed: PageSet,
}

#[derive(Serialize, Deserialize)]
struct Body {
    base_depth: u8,
    bytes: u64,
    chunk_pages: u32,
    salts: Vec<SaltId>,
    entries: Vec<WireEntry>,
    loading: Vec<(WireChunk, Vec<PageRun>)>,
    log: Option<AccessLog>,
}

/// Seals a manifest. Equal ones give equal bytes.
pub fn seal_manifest(manifest: &Manifest, key: &TenantKey) -> Result<Bytes, ManifestError> {
    let names = manifest.names();
    let body = to_body(manifest.parts(), &names);
    if body.salts.len() > MAX_SALTS {
        return Err(ManifestError::TooLarge);
    }
    let mut body = postcard::to_allocvec(&body).map_err(|_| Malformed::Encoding)?;
    let count = u32::try_from(names.len()).map_err(|_| ManifestError::TooLarge)?;
    let mut clear = Vec::with_capacity(NAMES_AT + 4 + names.len() * 32 + body.len() + seal::TAG_BYTES);
    clear.extend_from_slice(MAGIC);
    clear.extend_from_slice(&FORMAT.to_le_bytes());
    clear.extend_from_slice(&key.id());
    clear.extend_from_slice(&nonce(key, &body, &names));
    let base = manifest.parts().base.map(|base| base.name);
    clear.push(u8::from(base.is_some()));
    clear.extend_from_slice(&base.map_or([0; 32], |name| name.0));
    clear.extend_from_slice(&count.to_le_bytes());
    for name in &names {
        clear.extend_from_slice(&name.0);
    }
    let nonce = nonce(key, &body, &names);
    let sealed = seal::encrypt(&sealing_key(key), &nonce, &clear, &mut body);
    sealed.map_err(|_| ManifestError::TooLarge)?;
    clear.append(&mut body);
    if clear.len() > MAX_MANIFEST_BYTES { Err(ManifestError::TooLarge) } else { Ok(clear.into()) }
}

/// Opens and judges a manifest. Whoever holds its name has checked the bytes against it.
pub fn open_manifest(sealed: &[u8], key: &TenantKey) -> Result<Manifest, ManifestError> {
    let (clear, references) = split(sealed)?;
    let (head, body) = sealed.split_at_checked(clear).ok_or(ManifestError::NotOne)?;
    if head.get(10..18) != Some(&key.id()[..]) {
        return Err(ManifestError::OtherKey);
    }
    let nonce = head.get(18..30).and_then(|nonce| nonce.first_chunk()).ok_or(ManifestError::NotOne)?;
    let mut plain = body.to_vec();
    seal::decrypt(&sealing_key(key), nonce, head, &mut plain).map_err(|_| ManifestError::Altered)?;
    let body = postcard::take_from_bytes::<Body>(&plain);
    let parts = match body {
        Ok((body, [])) => from_body(body, &references),
        _ => Err(Malformed::Encoding),
    };
    plain.zeroize();
    let manifest = Manifest::judge(parts?)?;
    if manifest.names() == references.chunks { Ok(manifest) } else { Err(Malformed::Names.into()) }
}

/// What a sealed manifest needs, without a key. Only as true as its name: check that first.
pub fn references(sealed: &[u8]) -> Result<References, ManifestError> {
    split(sealed).map(|(_, references)| references)
}

/// Where the clear part ends, and what it says.
fn split(sealed: &[u8]) -> Result<(usize, References), ManifestError> {
    if sealed.len() > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let head = sealed.first_chunk::<{ NAMES_AT + 4 }>().ok_or(ManifestError::NotOne)?;
    let (magic, rest) = head.split_first_chunk::<8>().ok_or(ManifestError::NotOne)?;
    let (format, _) = rest.split_first_chunk::<2>().ok_or(ManifestError::NotOne)?;
    if magic != MAGIC {
        return Err(ManifestError::NotOne);
    }
    match u16::from_le_bytes(*format) {
        0 => return Err(ManifestError::NotOne),
        FORMAT => {}
        found => return Err(ManifestError::Newer { found }),
    }
    let base: &[u8; 33] = head.get(30..).and_then(|part| part.first_chunk()).ok_or(ManifestError::NotOne)?;
    let count: &[u8; 4] = head.last_chunk().ok_or(ManifestError::NotOne)?;
    let count = usize::try_from(u32::from_le_bytes(*count)).map_err(|_| ManifestError::NotOne)?;
    let end =
        count.checked_mul(32).and_then(|bytes| bytes.checked_add(head.len())).ok_or(ManifestError::NotOne)?;
    let names = sealed.get(head.len()..end).ok_or(ManifestError::NotOne)?;
    let chunks: Vec<Name> = names.as_chunks::<32>().0.iter().map(|name| Name(*name)).collect();
    if !chunks.is_sorted_by(|one, two| one < two) {
        return Err(Malformed::Names.into());
    }
    let base = match base.split_first() {
        Some((0, rest)) if rest.iter().all(|&byte| byte == 0) => None,
        Some((1, rest)) => Some(Name(*rest.first_chunk().ok_or(ManifestError::NotOne)?)),
        _ => return Err(ManifestError::NotOne),
    };
    Ok((end, References { base, chunks }))
}

fn sealing_key(key: &TenantKey) -> [u8; 32] {
    key.derive("warren chunks 2026 manifest sealing key")
}

/// Another for each content under each key, and the same for the same.
fn nonce(key: &TenantKey, body: &[u8], names: &[Name]) -> [u8; 12] {
    let mut hasher = blake3::Hasher::new_keyed(&key.derive("warren chunks 2026 manifest nonce"));
    for name in names {
        hasher.update(&name.0);
    }
    hasher.update(body);
    let mut nonce = [0; 12];
    hasher.finalize_xof().fill(&mut nonce);
    nonce
}

fn to_body(parts: &Parts, names: &[Name]) -> Body {
    let mut salts: Vec<SaltId> = Vec::new();
    let mut wire = |chunk: &ChunkRef| {
        let salt = salts.iter().position(|salt| *salt == chunk.salt).unwrap_or_else(|| {
            salts.push(chunk.salt);
            salts.len() - 1
        });
        // Past MAX_SALTS the caller refuses what comes of this.
        let name = names.binary_search(&chunk.name).ok().and_then(|at| u32::try_from(at).ok());
        WireChunk {
            name: name.unwrap_or(u32::MAX),
            key: chunk.key.0,
            salt: u8::try_from(salt).unwrap_or(u8::MAX),
        }
    };
    let entries = parts.entries.iter().map(|entry| WireEntry {
        window: entry.window,
        chunk: entry.chunk.as_ref().map(&mut wire),
        present: entry.present.clone(),
        zeroed: entry.zeroed.clone(),
    });
    let entries = entries.collect();
    let loading = parts.loading.iter().map(|pack| (wire(&pack.chunk), pack.pages.clone())).collect();
    Body {
        base_depth: parts.base.map_or(0, |base| base.depth),
        bytes: parts.bytes,
        chunk_pages: parts.size.pages(),
        salts,
        entries,
        loading,
        log: parts.log.clone(),
    }
}

fn from_body(body: Body, references: &References) -> Result<Parts, Malformed> {
    let Body { base_depth, bytes, chunk_pages, salts, entries, loading, log } = body;
    if references.base.is_none() && base_depth != 0 {
        return Err(Malformed::TooDeep);
    }
    let chunk = |wire: WireChunk| {
        let name = usize::try_from(wire.name).ok().and_then(|at| references.chunks.get(at));
        let salt = salts.get(usize::from(wire.salt));
        match (name, salt) {
            (Some(&name), Some(&salt)) => Ok(ChunkRef { name, key: ChunkKey(wire.key), salt }),
            _ => Err(Malformed::Names),
        }
    };
    let entry = |wire: WireEntry| {
        let held = wire.chunk.map(chunk).transpose()?;
        Ok(Entry { window: wire.window, chunk: held, present: wire.present, zeroed: wire.zeroed })
    };
    Ok(Parts {
        base: references.base.map(|name| Base { name, depth: base_depth }),
        bytes,
        size: ChunkSize::of_pages(chunk_pages).ok_or(Malformed::ChunkSize)?,
        entries: entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        loading: loading
            .into_iter()
            .map(|(wire, pages)| Ok(Pack { chunk: chunk(wire)?, pages }))
            .collect::<Result<_, _>>()?,
        log,
    })
}
