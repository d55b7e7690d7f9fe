//! Snapshots in a directory: one file each, named by key, code and function; bounded.
//!
//! ```text
//! put: write tmp/<name> -> rename           (a kill leaves a whole file or none; at most one in tmp, gone at the next start)
//! get: head signed and of the right thing -> memory into a sealed memfd, disk into a nameless file, digests those signed -> served
//!      no room for them                   -> not served now, and said
//!      anything else                      -> removed, and said
//! look, verify: the same reading, for people: nothing is served, nothing removed, and no file counts as used
//! ```
//! Nothing waits for the disk: a file that a crash of the machine tore is told by its digest.

mod room;

use super::{KeptDisk, disk::Nameless};
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
    io::{self, BufWriter, Seek as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use warren_artefact::{SigningKey, SnapshotError, SnapshotHead, SnapshotKey, SnapshotOf, VerifyingKey};
use warren_chunks::{cut::FileSource, flatten::Within};
use warren_image::sparse::Unpacking;

/// No disk is longer: the largest that a function may have, and what its file system takes.
const MOST_DISK_BYTES: u64 = 64 << 30;
/// The last part of every name.
const SUFFIX: &str = "snapshot";

/// A snapshot that may be served: its memory and disk are in files that cannot change, and their digests are those that were signed.
#[derive(Debug)]
pub struct SealedSnapshot {
    /// Its state, and what it was made of.
    pub head: SnapshotHead,
    /// Its memory.
    pub memory: SealedFile,
    /// Its disk, if it has one.
    pub disk: Option<Arc<KeptDisk>>,
}

impl Weigh for SealedSnapshot {
    fn bytes(&self) -> u64 {
        self.memory.len().saturating_add(self.head.disk_len())
    }
}

/// A file of the directory, as its name and its head tell. Its memory was not looked at.
#[derive(Debug)]
pub(super) struct Shelved {
    pub(super) key: SnapshotKey,
    pub(super) function: String,
    pub(super) file_bytes: u64,
    /// When it was used last; as long as it was not, when it was made, to a second.
    pub(super) used: SystemTime,
    pub(super) head: Result<SnapshotHead, SnapshotError>,
}

/// The directory.
#[derive(Debug)]
pub struct Shelf {
    root: PathBuf,
    most_bytes: u64,
    /// Disks that were unpacked and are in use: they make no room, and what is kept beside them is so much less.
    nameless: Nameless,
}

impl Shelf {
    /// Opens or makes it. It holds this many bytes at most, disks in use among them; what was used longest ago makes room.
    pub fn open(root: PathBuf, most_bytes: u64) -> io::Result<Self> {
        let temporary = root.join("tmp");
        // Half-made ones of an agent that was killed: nobody else writes here.
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&temporary)?,
        }
        Ok(Self { root, most_bytes, nameless: Nameless::default() })
    }

    /// Where files lie that have no name yet, or never get one.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Gives one for what is asked. A file that is not what it should be is told of and removed.
    pub fn get(&self, of: &SnapshotOf, trusted: &[VerifyingKey]) -> Option<SealedSnapshot> {
        let path = self.path(of);
        match self.read(&path, of, trusted) {
            Ok(found) => found,
            Err(Unserved::Host(error)) => {
                let (path, function) = (path.display(), &of.function);
                tracing::warn!(%path, function, %error, "a kept snapshot is not served now: this host has no room for it");
                None
            }
            Err(Unserved::Wrong(error)) => {
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
        snapshot.disk.iter().try_for_each(|disk| disk.count(&self.nameless))?;
        self.make_room(snapshot.bytes(), None)?;
        let temporary = self.temporary().join(target.file_name().unwrap_or_default());
        let written = write(&temporary, snapshot, key).and_then(|()| fs::rename(&temporary, &target));
        if written.is_err() {
            // Best effort: the next start removes it as well.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// What there is, of one function or of all.
    pub(super) fn look(&self, function: &str, trusted: &[VerifyingKey]) -> io::Result<Vec<Shelved>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let Some((key, of)) = parse(&entry.file_name()) else { continue };
            let Ok(facts) = entry.metadata() else { continue };
            if !function.is_empty() && function != of {
                continue;
            }
            let head = open(&entry.path()).map_err(SnapshotError::from);
            found.push(Shelved {
                key,
                function: of,
                file_bytes: facts.len(),
                used: facts.modified().unwrap_or(UNIX_EPOCH),
                head: head.and_then(|mut file| judged_head(&mut file, key, trusted)),
            });
        }
        Ok(found)
    }

    /// Reads one again and judges it as [`Self::get`] does: how many bytes of memory it has. `None`: there is none.
    pub(super) fn verify(
        &self,
        key: SnapshotKey,
        trusted: &[VerifyingKey],
    ) -> Result<Option<u64>, SnapshotError> {
        let Some((head, mut file)) = self.open_judged(key, trusted)? else { return Ok(None) };
        head.copy_memory(&mut file, &mut io::sink())?;
        head.copy_disk(&mut file, &mut io::sink())?;
        Ok(Some(head.memory_len()))
    }

    /// One whose memory is as it was signed, and that memory where it lies in its file. `None`: there is none.
    pub(super) fn open_memory(
        &self,
        key: SnapshotKey,
        trusted: &[VerifyingKey],
    ) -> Result<Option<(SnapshotHead, Within<FileSource>)>, SnapshotError> {
        let Some((head, mut file)) = self.open_judged(key, trusted)? else { return Ok(None) };
        let at = file.stream_position()?;
        head.copy_memory(&mut file, &mut io::sink())?;
        let memory = Within::new(FileSource::new(file)?, at, head.memory_len());
        // It was read to its end just now, and nobody writes to a file that has its name.
        let memory = memory.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok(Some((head, memory)))
    }

    /// A file whose head is good, read up to its memory.
    fn open_judged(
        &self,
        key: SnapshotKey,
        trusted: &[VerifyingKey],
    ) -> Result<Option<(SnapshotHead, File)>, SnapshotError> {
        let Some(path) = self.find(key)? else { return Ok(None) };
        let mut file = match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        Ok(Some((judged_head(&mut file, key, trusted)?, file)))
    }

    /// Removes one, whatever it is. False: there is none.
    pub(super) fn remove_key(&self, key: SnapshotKey) -> io::Result<bool> {
        let Some(path) = self.find(key)? else { return Ok(false) };
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// It was used: others make room before it. Best effort.
    pub(super) fn touch(&self, of: &SnapshotOf) {
        let _ = set_used(&self.path(of), SystemTime::now());
    }

    fn find(&self, key: SnapshotKey) -> io::Result<Option<PathBuf>> {
        let mut entries = fs::read_dir(&self.root)?.flatten();
        let found = entries.find(|entry| parse(&entry.file_name()).is_some_and(|(named, _)| named == key));
        Ok(found.map(|entry| entry.path()))
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

    /// Removes those whose code or function is not named, once they are old enough; a runtime's own, once none is kept that begins with it.
    pub fn retain(
        &self,
        sources: &HashSet<String>,
        functions: &HashSet<String>,
        min_age: Duration,
        trusted: &[VerifyingKey],
    ) -> io::Result<Removed> {
        let is_named = |name: &OsStr| {
            let mut parts = name.to_str().unwrap_or_default().split('.').skip(1);
            let (source, function) = (parts.next(), parts.next());
            source.is_some_and(|source| sources.contains(source))
                && function.is_some_and(|function| functions.contains(function))
        };
        let removed = sweep(&self.root, |name| is_named(name) || is_runtime(name), min_age)?;
        let left = self.look("", trusted)?;
        let begun_with: HashSet<_> =
            left.iter().filter_map(|one| Some(one.head.as_ref().ok()?.of().runtime()?.key())).collect();
        let is_wanted =
            |name: &OsStr| !is_runtime(name) || parse(name).is_some_and(|(key, _)| begun_with.contains(&key));
        Ok(removed.and(sweep(&self.root, is_wanted, min_age)?))
    }

    fn read(
        &self,
        path: &Path,
        of: &SnapshotOf,
        trusted: &[VerifyingKey],
    ) -> Result<Option<SealedSnapshot>, Unserved> {
        let mut file = match open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(SnapshotError::from)?,
        };
        let head = SnapshotHead::read(&mut file, of, trusted)?;
        // What is hashed is what was written into the memfd, which is sealed before anybody sees it.
        let memory = SealedFile::filled("snapshot", |memory| {
            Room::made(memory, |memory| head.copy_memory(&mut file, memory))
        })?;
        let mut disk = None;
        if head.disk_len() > 0 {
            let kept = KeptDisk::filled(&self.temporary(), |disk| {
                let mut unpacking = Unpacking::new(disk, MOST_DISK_BYTES);
                Room::made(&mut unpacking, |disk| head.copy_disk(&mut file, disk))?;
                Ok::<_, Unserved>(unpacking.finish().map_err(SnapshotError::from)?)
            });
            let kept = kept?;
            kept.count(&self.nameless)?;
            disk = Some(Arc::new(kept));
            // Best effort: what is in use is served, whatever it takes.
            if let Err(error) = self.make_room(0, Some(path)) {
                tracing::warn!(%error, "no room was made beside a disk that is in use");
            }
        } else {
            head.copy_disk(&mut file, &mut io::sink())?;
        }
        // It was used: others make room before it. Best effort.
        let _ = set_used(path, SystemTime::now());
        Ok(Some(SealedSnapshot { head, memory, disk }.in_large_pages()))
    }

    /// A name says all that collecting needs: neither digests nor functions' names have a dot.
    fn path(&self, of: &SnapshotOf) -> PathBuf {
        let source = of.source().map_or_else(|| "none".to_owned(), |source| source.to_string());
        self.root.join(format!("{}.{source}.{}.{SUFFIX}", of.key(), of.function))
    }
}

/// Why one is not served.
#[derive(Debug)]
enum Unserved {
    /// It is not what it should be.
    Wrong(SnapshotError),
    /// There is no room for what is in it, in memory or on the disk.
    Host(io::Error),
}

impl From<SnapshotError> for Unserved {
    fn from(error: SnapshotError) -> Self {
        Self::Wrong(error)
    }
}

/// Of the files that it is read into.
impl From<io::Error> for Unserved {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// Where something is copied to, whose failures are told from those of what is copied.
struct Room<W> {
    to: W,
    is_short: bool,
}

impl<W: Write> Room<W> {
    fn made(to: W, copy: impl FnOnce(&mut Self) -> Result<(), SnapshotError>) -> Result<(), Unserved> {
        let mut room = Self { to, is_short: false };
        match copy(&mut room) {
            Err(SnapshotError::Io(error)) if room.is_short => Err(Unserved::Host(error)),
            copied => Ok(copied?),
        }
    }
}

impl<W: Write> Write for Room<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes);
        // What is unpacked on its way may have no form.
        self.is_short |= matches!(&written, Err(error) if error.kind() != io::ErrorKind::InvalidData);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn set_used(path: &Path, at: SystemTime) -> io::Result<()> {
    File::options().append(true).open(path)?.set_modified(at)
}

/// Whether a file's name says that no function is in it.
fn is_runtime(name: &OsStr) -> bool {
    parse(name).is_some_and(|(_, function)| function.is_empty())
}

/// The key and the function that a file's name says.
fn parse(name: &OsStr) -> Option<(SnapshotKey, String)> {
    let mut parts = name.to_str()?.split('.');
    let (key, _source, function) = (parts.next()?, parts.next()?, parts.next()?);
    let is_one = parts.next() == Some(SUFFIX) && parts.next().is_none();
    is_one.then_some(())?;
    Some((SnapshotKey::from_hex(key)?, function.to_owned()))
}

/// A head that is good, and of what the file's name says.
fn judged_head(
    file: &mut File,
    key: SnapshotKey,
    trusted: &[VerifyingKey],
) -> Result<SnapshotHead, SnapshotError> {
    let head = SnapshotHead::read_any(file, trusted)?;
    if head.of().key() == key { Ok(head) } else { Err(SnapshotError::Other) }
}

fn write(path: &Path, snapshot: &SealedSnapshot, key: &SigningKey) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut out = BufWriter::with_capacity(256 << 10, file);
    snapshot.head.write(key, &mut out)?;
    io::copy(&mut snapshot.memory.reader(), &mut out)?;
    if let Some(disk) = &snapshot.disk {
        disk.write(&mut out)?;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    // As long as it is not used, it is as old as what it holds.
    file.set_modified(UNIX_EPOCH + Duration::from_secs(snapshot.head.created_unix_s()))
}

#[cfg(test)]
mod tests;
