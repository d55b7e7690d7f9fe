//! The disk of the first tier: `ab/<name>.<number>`, sealed bytes as they came.
//!
//! One process owns it (a lock says so). It is a cache: what a crash takes is fetched again, what a crash leaves half is
//! cleared at the next open, and every read is held against its name, so that nothing that happened to the disk can be
//! taken for a chunk. Blocking: callers put it on a blocking thread.

use super::index::{Index, Pin, Reserved, Slot};
use crate::{
    files::{FileError, Folder, Taken},
    name::Name,
    root::{Access, Root},
};
use bytes::Bytes;
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Why something was not kept, or the disk cannot be used. Reads go on from other tiers whichever it is.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system is full: room helps, a retry alone does not.
    #[error("no space left on the device that holds the chunks")]
    Full,
    /// All it may hold is in use, or the object is larger than that.
    #[error("the chunk cache is full of chunks in use")]
    InUse,
    /// Another process owns it.
    #[error("the chunk cache {path} belongs to another process", path = .0.display())]
    Busy(PathBuf),
    /// It can hold nothing.
    #[error("a chunk cache of no bytes")]
    NoCapacity,
    /// The system refused.
    #[error(transparent)]
    File(FileError),
}

impl From<FileError> for DiskError {
    fn from(error: FileError) -> Self {
        if error.is_full() { Self::Full } else { Self::File(error) }
    }
}

/// What came of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is on the disk now.
    Stored,
    /// It was, or somebody is writing it.
    Present,
}

/// What the disk has under a name.
#[derive(Debug)]
pub enum Found {
    /// The bytes of that name.
    Hit(Bytes),
    /// Nothing.
    Miss,
    /// Something else, which is gone now.
    Damaged,
}

/// A file that stays as it is while this exists: neither evicted nor shortened. Its bytes are verified once, when it is pinned.
#[derive(Debug)]
pub struct Pinned {
    /// The sealed bytes, to be read or mapped.
    pub file: File,
    pin: Pin,
}

impl Pinned {
    /// How many there are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pin.slot().bytes()
    }
}

/// A bounded folder of sealed objects.
#[derive(Debug)]
pub struct Disk {
    folder: Folder,
    index: Mutex<Index>,
    /// Held for as long as the process lives.
    _lock: File,
}

impl Disk {
    /// Opens or makes one of at most so many bytes; what does not fit any more is removed.
    pub fn open(root: &Path, capacity: u64) -> Result<Self, DiskError> {
        Self::within(Root::at(root), Access::OWNER, capacity)
    }

    /// The same in a folder that is reached in whatever way, whose files are for whoever may use them.
    pub fn within(root: Root, access: Access, capacity: u64) -> Result<Self, DiskError> {
        let mut index = Index::new(capacity).ok_or(DiskError::NoCapacity)?;
        let folder = Folder::open(root, access)?;
        let lock_file = Path::new("lock");
        let lock = folder
            .root()
            .open(lock_file, OFlags::WRONLY | OFlags::CREATE, access.file())
            .map_err(|source| folder.failed("make", lock_file, source))?;
        // Whoever made it says so; for all others it is said already.
        let _made_by_another = fchmod(&lock, access.file());
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DiskError::Busy(folder.root().shown(Path::new(""))))?;
        folder.clear_leftovers(|_| true)?;
        for (name, number, bytes) in listed(&folder)? {
            for slot in index.found(name, number, bytes) {
                folder.remove(&path(&slot))?;
            }
        }
        Ok(Self { folder, index: Mutex::new(index), _lock: lock })
    }

    /// Keeps bytes that were verified against their name; durable when this returns.
    pub fn put(&self, name: Name, sealed: &[u8]) -> Result<Put, DiskError> {
        let reserved = self.index().reserve(name, sealed.len() as u64);
        let (pin, victims) = match reserved {
            Reserved::Room { pin, victims } => (Some(pin), victims),
            Reserved::NoRoom { victims } => (None, victims),
            Reserved::Present => return Ok(Put::Present),
        };
        // Room is made before it is used, so the bound holds on the disk and not only in the books.
        let removed = victims.iter().try_for_each(|slot| self.folder.remove(&path(slot)));
        let Some(pin) = pin else {
            removed?;
            return Err(DiskError::InUse);
        };
        let written = removed.and_then(|()| self.folder.write(&path(pin.slot()), sealed, Taken::Replace));
        let mut index = self.index();
        match written {
            Ok(_) => {
                index.commit(&pin);
                Ok(Put::Stored)
            }
            Err(error) => {
                index.abandon(&pin);
                Err(error.into())
            }
        }
    }

    /// Reads and verifies. What is not of its name is removed and said.
    pub fn get(&self, name: Name) -> Result<Found, DiskError> {
        self.read(name).map(|found| match found {
            Ok((_, sealed)) => Found::Hit(sealed),
            Err(missing) => missing,
        })
    }

    /// Holds a file, verified, for as long as the answer exists.
    pub fn pin(&self, name: Name) -> Result<Option<Pinned>, DiskError> {
        Ok(self.read(name)?.ok().map(|(pinned, _)| pinned))
    }

    fn read(&self, name: Name) -> Result<Result<(Pinned, Bytes), Found>, DiskError> {
        let Some(pin) = self.index().find(name) else { return Ok(Err(Found::Miss)) };
        let path = path(pin.slot());
        match read_whole(self.folder.root(), &path, pin.slot().bytes()) {
            Ok((file, sealed)) if name.is_of(&sealed) => Ok(Ok((Pinned { file, pin }, sealed))),
            // Somebody shortened, lengthened, altered or removed it: whatever it is, it is no chunk any more.
            Ok(_) => self.drop_damaged(&pin, &path).map(Err),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                self.drop_damaged(&pin, &path).map(Err)
            }
            Err(source) => Err(self.folder.failed("read", &path, source).into()),
        }
    }

    fn drop_damaged(&self, pin: &Pin, path: &Path) -> Result<Found, DiskError> {
        self.index().forget(pin.slot());
        self.folder.remove(path)?;
        Ok(Found::Damaged)
    }

    /// Every name that lies there, for a scrub.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        self.index().names()
    }

    /// What all files take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.index().bytes()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Every change is whole before the lock is let go, also by a panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(slot: &Slot) -> PathBuf {
    let name = slot.name();
    Path::new(&name.shard()).join(format!("{name}.{:x}", slot.number()))
}

/// Exactly as many bytes as the index says; one more is looked for, to see a file that grew.
fn read_whole(root: &Root, path: &Path, bytes: u64) -> io::Result<(File, Bytes)> {
    let mut file = root.open(path, OFlags::RDONLY, Mode::empty())?;
    let mut sealed = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0).saturating_add(1));
    (&mut file).take(bytes.saturating_add(1)).read_to_end(&mut sealed)?;
    file.rewind()?;
    Ok((file, sealed.into()))
}

/// What lies there, the oldest first, so that the youngest stay when there is less room than there was. Names that are
/// nobody's are removed.
fn listed(folder: &Folder) -> Result<Vec<(Name, u64, u64)>, DiskError> {
    let list =
        |place: &Path| folder.root().list(place).map_err(|source| folder.failed("list", place, source));
    let mut found: Vec<(SystemTime, Name, u64, u64)> = Vec::new();
    for shard in list(Path::new(""))? {
        if shard.name.len() != 2 || !shard.is_folder() {
            continue;
        }
        for file in list(Path::new(&shard.name))? {
            let parsed =
                file.name.to_str().and_then(|text| text.split_once('.')).and_then(|(name, number)| {
                    Some((Name::from_hex(name)?, u64::from_str_radix(number, 16).ok()?))
                });
            match parsed {
                Some((name, number)) if file.is_file() => {
                    found.push((file.modified(), name, number, file.bytes()));
                }
                _ if file.is_file() => folder.remove(&Path::new(&shard.name).join(&file.name))?,
                _ => {}
            }
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, name, number, bytes)| (name, number, bytes)).collect())
}

#[cfg(test)]
mod tests;
