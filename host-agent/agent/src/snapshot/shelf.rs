//! Snapshots in a directory: one file each, named by key, code and function; bounded.
//!
//! ```text
//! put: write tmp/<name> -> rename           (a kill leaves a whole file or none; at most one in tmp, gone at the next start)
//! get: head signed and of the right thing -> memory and disk copied into memfds, sealed, their digests those signed -> served
//!      anything else                      -> removed, and said
//! ```
//! Nothing waits for the disk: a file that a crash of the machine tore is told by its digest.

use crate::{
    garbage::{Removed, sweep},
    memfd::SealedFile,
    version::Weigh,
};
use rustix::fs::OFlags;
use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use warren_artefact::{SigningKey, SnapshotError, SnapshotHead, SnapshotOf, VerifyingKey};

/// The last part of every name.
const SUFFIX: &str = "snapshot";

/// A snapshot that may be served: its memory and disk are in files that cannot change, and their digests are those that were signed.
#[derive(Debug)]
pub struct SealedSnapshot {
    /// Its state, and what it was made of.
    pub head: SnapshotHead,
    /// Its memory.
    pub memory: SealedFile,
    /// Its disk, if it has one, as [`warren_image::sparse::Sparse`] keeps it.
    pub disk: Option<Arc<SealedFile>>,
}

impl Weigh for SealedSnapshot {
    fn bytes(&self) -> u64 {
        self.memory.len().saturating_add(self.disk.as_ref().map_or(0, |disk| disk.len()))
    }
}

/// The directory.
#[derive(Debug)]
pub struct Shelf {
    root: PathBuf,
    most_bytes: u64,
}

impl Shelf {
    /// Opens or makes it. It holds this many bytes at most; what was used longest ago makes room.
    pub fn open(root: PathBuf, most_bytes: u64) -> io::Result<Self> {
        let temporary = root.join("tmp");
        // Half-made ones of an agent that was killed: nobody else writes here.
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&temporary)?,
        }
        Ok(Self { root, most_bytes })
    }

    /// Gives one for what is asked. A file that is not what it should be is told of and removed.
    pub fn get(&self, of: &SnapshotOf, trusted: &[VerifyingKey]) -> Option<SealedSnapshot> {
        let path = self.path(of);
        match read(&path, of, trusted) {
            Ok(found) => found,
            Err(error) => {
                let error = anyhow::Error::from(error);
                let (path, function) = (path.display(), &of.function);
                tracing::warn!(%path, function, "a kept snapshot is not served and is removed: {error:#}");
                self.remove(of);
                None
            }
        }
    }

    /// Keeps one.
    pub fn put(&self, snapshot: &SealedSnapshot, key: &SigningKey) -> io::Result<()> {
        let target = self.path(snapshot.head.of());
        self.make_room(snapshot.bytes())?;
        let temporary = self.root.join("tmp").join(target.file_name().unwrap_or_default());
        let written = write(&temporary, snapshot, key).and_then(|()| fs::rename(&temporary, &target));
        if written.is_err() {
            // Best effort: the next start removes it as well.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes one, if it is there.
    pub fn remove(&self, of: &SnapshotOf) {
        let path = self.path(of);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a snapshot cannot be removed");
        }
    }

    /// Removes those whose code or function is not named, once they are old enough.
    pub fn retain(
        &self,
        sources: &HashSet<String>,
        functions: &HashSet<String>,
        min_age: Duration,
    ) -> io::Result<Removed> {
        let is_named = |name: &OsStr| {
            let mut parts = name.to_str().unwrap_or_default().split('.').skip(1);
            let (source, function) = (parts.next(), parts.next());
            source.is_some_and(|source| sources.contains(source))
                && function.is_some_and(|function| functions.contains(function))
        };
        sweep(&self.root, is_named, min_age)
    }

    /// Removes the oldest until so many bytes fit.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        if bytes > self.most_bytes {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "larger than all that is kept"));
        }
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(&self.root)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let facts = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((facts.modified().ok()?, facts.len(), entry.path()))
            })
            .collect();
        kept.sort();
        let mut total: u64 = kept.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in kept {
            if total.saturating_add(bytes) <= self.most_bytes {
                break;
            }
            fs::remove_file(path)?;
            total = total.saturating_sub(len);
        }
        Ok(())
    }

    /// A name says all that collecting needs: neither digests nor functions' names have a dot.
    fn path(&self, of: &SnapshotOf) -> PathBuf {
        let source = of.source().map_or_else(|| "none".to_owned(), |source| source.to_string());
        self.root.join(format!("{}.{source}.{}.{SUFFIX}", of.key(), of.function))
    }
}

fn read(
    path: &Path,
    of: &SnapshotOf,
    trusted: &[VerifyingKey],
) -> Result<Option<SealedSnapshot>, SnapshotError> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let head = SnapshotHead::read(&mut file, of, trusted)?;
    // What is hashed is what was written into the memfd, which is sealed before anybody sees it.
    let memory = SealedFile::filled("snapshot", |memory| head.copy_memory(&mut file, memory))?;
    let mut disk = None;
    if head.disk_len() > 0 {
        disk = Some(Arc::new(SealedFile::filled("disk", |disk| head.copy_disk(&mut file, disk))?));
    } else {
        head.copy_disk(&mut file, &mut io::sink())?;
    }
    // It was used: others make room before it. Best effort.
    let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    Ok(Some(SealedSnapshot { head, memory, disk }))
}

fn write(path: &Path, snapshot: &SealedSnapshot, key: &SigningKey) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut out = BufWriter::with_capacity(256 << 10, file);
    snapshot.head.write(key, &mut out)?;
    io::copy(&mut snapshot.memory.reader(), &mut out)?;
    if let Some(disk) = &snapshot.disk {
        io::copy(&mut disk.reader(), &mut out)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests;
