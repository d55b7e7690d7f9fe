//! Code and task archives, by digest: `<dir>/<blake3 hex>`.
//!
//! A blob is written beside, fsynced and renamed, so its name never shows half of it; what it holds is checked on
//! every read. Blocking: callers put it on a blocking thread.

use bytes::Bytes;
use std::{
    collections::HashSet,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// Names beginning with this are writes that never ended.
const UNFINISHED: &str = ".new-";

/// The blake3 digest of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(blake3::Hash);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// Reads 64 hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// A blob could not be kept or given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk is full; nothing of the blob is left.
    #[error("no space left on the device that holds the blobs")]
    Full,
    /// There is none of this digest.
    #[error("there is no such blob")]
    Absent,
    /// The file holds something else than its name says.
    #[error("blob {0} is damaged")]
    Damaged(Digest),
    /// The system refused.
    #[error("the blob directory failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::NotFound => Self::Absent,
            _ => Self::Io(error),
        }
    }
}

/// A directory of blobs.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    next: AtomicU64,
    /// Writers share it; a sweep has it to itself while it looks at one blob and removes it.
    sweeping: RwLock<()>,
}

impl Blobs {
    /// Opens or makes the directory, and clears what an earlier life left unfinished.
    pub fn open(dir: &Path) -> Result<Self, BlobError> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { dir: dir.to_owned(), next: AtomicU64::new(0), sweeping: RwLock::new(()) })
    }

    /// Keeps these bytes durably.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        let path = self.path(digest);
        let _unswept = self.sweeping.read().unwrap_or_else(PoisonError::into_inner);
        // Only a whole, checked blob counts as present: a damaged one is replaced. Its age begins anew, so that no sweep
        // takes it before whoever puts it has named it.
        if self.get(digest).is_ok() {
            File::options().write(true).open(&path)?.set_modified(SystemTime::now())?;
            return Ok(digest);
        }
        let fresh = self.dir.join(format!("{UNFINISHED}{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let written = write_through(&fresh, bytes).and_then(|()| {
            fs::rename(&fresh, &path)?;
            File::open(&self.dir)?.sync_all()
        });
        if let Err(error) = written {
            // Best effort: a leftover is cleared by the next open.
            let _cleared = fs::remove_file(&fresh);
            return Err(error.into());
        }
        Ok(digest)
    }

    /// Gives a blob, checked.
    pub fn get(&self, digest: Digest) -> Result<Bytes, BlobError> {
        let bytes = fs::read(self.path(digest))?;
        if Digest::of(&bytes) == digest { Ok(bytes.into()) } else { Err(BlobError::Damaged(digest)) }
    }

    /// Removes every blob that is not to be kept and was not put for so long; returns how many.
    pub fn sweep(&self, keep: &HashSet<Digest>, unused_for: Duration) -> Result<usize, BlobError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let digest = entry.file_name().to_str().and_then(Digest::from_hex);
            let _alone = self.sweeping.write().unwrap_or_else(PoisonError::into_inner);
            // A clock that was set back makes a blob young: it stays.
            let age =
                entry.metadata().and_then(|facts| facts.modified()).ok().and_then(|at| at.elapsed().ok());
            let old = unused_for.is_zero() || age.is_some_and(|age| age >= unused_for);
            if old && digest.is_some_and(|digest| !keep.contains(&digest)) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }
}

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
