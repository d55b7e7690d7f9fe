//! Artefacts in a directory, one envelope a file, named by key.
//!
//! ```text
//! put: write tmp/<unique> -> fsync -> rename to ab/<key>.artefact -> fsync of ab/
//! get: read (bounded) -> envelope, signature, digest, key all fit -> Hit
//!                     -> anything does not                        -> Damaged: compile again, put again
//! ```
//! A crash leaves a whole entry or none, and at most a file in `tmp/`, which the next [`Store::open`] removes once it is
//! old. Writers of the same key may race, in one process or several: the last rename wins and each wrote a whole
//! artefact. Nothing is ever removed by a reader, so a reader cannot undo a writer's repair.

use crate::envelope::{Artefact, EnvelopeError, MAX_ENVELOPE_BYTES};
use crate::metadata::ArtefactKey;
use crate::signing::VerifyingKey;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// No write takes this long; a temporary file this old belongs to a process that died.
const STALE_AFTER: Duration = Duration::from_hours(1);

/// A directory of artefacts.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What a store has under a key.
#[derive(Debug)]
pub enum Lookup {
    /// A verified artefact.
    Hit(Artefact),
    /// Nothing.
    Miss,
    /// Something that must not be used; [`Store::put`] replaces it.
    Damaged(Damage),
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Larger than any artefact.
    #[error("entry is larger than any artefact")]
    TooLarge,
    /// Not a believable artefact.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A good artefact of something else.
    #[error("entry holds the artefact {found}")]
    OtherKey {
        /// The key it belongs under.
        found: ArtefactKey,
    },
}

/// Why the store could not do its work: always the host (disk full, permissions), never the artefact.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}", path = path.display())]
pub struct StoreError {
    /// What was tried.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl StoreError {
    /// Whether the disk is full (or a quota reached): room helps, a retry alone does not.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl Store {
    /// Opens or makes the store in `root`.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let temporary = root.join("tmp");
        fs::create_dir_all(&temporary).map_err(|source| failed("make", &temporary, source))?;
        remove_stale(&temporary).map_err(|source| failed("tidy", &temporary, source))?;
        Ok(Self { root })
    }

    /// Looks an artefact up and verifies it against `trusted`.
    pub fn get(&self, key: ArtefactKey, trusted: &[VerifyingKey]) -> Result<Lookup, StoreError> {
        let path = self.path(key);
        let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lookup::Miss),
            Err(source) => return Err(failed("open", &path, source)),
        };
        let mut envelope = Vec::new();
        // One byte more than allowed, to tell "as long as allowed" from "longer".
        file.take(MAX_ENVELOPE_BYTES + 1)
            .read_to_end(&mut envelope)
            .map_err(|source| failed("read", &path, source))?;
        Ok(examine(key, envelope, trusted).map_or_else(Lookup::Damaged, Lookup::Hit))
    }

    /// Keeps an artefact under its own key, replacing what is there; on disk when this returns.
    pub fn put(&self, artefact: &Artefact) -> Result<(), StoreError> {
        let target = self.path(artefact.metadata().key());
        let temporary = self.root.join("tmp").join(format!("{}-{}", std::process::id(), unique()));
        let written = write_through(&temporary, &target, artefact.envelope());
        if written.is_err() {
            // Best effort: a leftover is removed by a later `open`.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Its directory; entries lie in directories of two hex digits below it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of a key, for messages and tests.
    #[must_use]
    pub fn path(&self, key: ArtefactKey) -> PathBuf {
        let name = key.to_string();
        let shard = name.get(..2).unwrap_or_default();
        self.root.join(shard).join(format!("{name}.artefact"))
    }
}

fn examine(key: ArtefactKey, envelope: Vec<u8>, trusted: &[VerifyingKey]) -> Result<Artefact, Damage> {
    if envelope.len() as u64 > MAX_ENVELOPE_BYTES {
        return Err(Damage::TooLarge);
    }
    let artefact = Artefact::open(envelope, trusted)?;
    let found = artefact.metadata().key();
    if found == key { Ok(artefact) } else { Err(Damage::OtherKey { found }) }
}

fn write_through(temporary: &Path, target: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let directory = target.parent().unwrap_or(target);
    fs::create_dir_all(directory).map_err(|source| failed("make", directory, source))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(|source| failed("make", temporary, source))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|source| failed("write", temporary, source))?;
    fs::rename(temporary, target).map_err(|source| failed("replace", target, source))?;
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| failed("sync", directory, source))
}

fn remove_stale(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let age = entry.metadata().and_then(|facts| facts.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > STALE_AFTER) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A number no other call in this process gets.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError { action, path: path.to_owned(), source }
}
