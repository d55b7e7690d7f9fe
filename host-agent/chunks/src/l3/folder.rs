//! The third tier as a folder: `chunks/ab/<name>`, and the same below `retired/`, `damaged/` and `entries/`.
//!
//! Any number of processes may use it at once, also over a network file system: a name is taken by a hard link, so exactly one
//! of several writers stores it. Blocking.

use super::origin::{Area, Held};
use crate::{
    files::{FileError, Folder, Taken, sync_folder},
    name::Name,
};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// No write takes this long: a file in `tmp/` that old is of a process that died.
const LEFTOVER: Duration = Duration::from_hours(1);

/// A folder of sealed objects.
#[derive(Debug)]
pub struct Directory(Folder);

impl Directory {
    /// Opens or makes it, and clears what died half written.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        let folder = Folder::open(root)?;
        for area in Area::ALL {
            let path = root.join(area.prefix());
            fs::create_dir_all(&path).map_err(|source| FileError::new("make", &path, source))?;
        }
        sync_folder(root)?;
        let now = SystemTime::now();
        let old = |facts: &fs::Metadata| {
            facts.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > LEFTOVER))
        };
        folder.clear_leftovers(old)?;
        Ok(Self(folder))
    }

    fn path(&self, area: Area, name: Name) -> PathBuf {
        self.0.root().join(area.prefix()).join(name.shard()).join(name.to_string())
    }

    /// Keeps bytes durably unless the name is taken; whether it did.
    pub(super) fn put(&self, area: Area, name: Name, sealed: &[u8], taken: Taken) -> Result<bool, FileError> {
        self.0.write(&self.path(area, name), sealed, taken)
    }

    /// Begins its age anew. Whether it was there.
    pub(super) fn refresh(&self, name: Name) -> Result<bool, FileError> {
        let path = self.path(Area::Live, name);
        let opened = File::options().write(true).open(&path);
        match opened.and_then(|file| file.set_modified(SystemTime::now())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(FileError::new("refresh", &path, source)),
        }
    }

    /// Reads at most `most` bytes and one; `None` if there is nothing.
    pub(super) fn get(&self, area: Area, name: Name, most: usize) -> Result<Option<Bytes>, FileError> {
        let path = self.path(area, name);
        let mut sealed = Vec::new();
        let read = File::open(&path).and_then(|file| {
            let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
            file.take(most).read_to_end(&mut sealed)
        });
        match read {
            Ok(_) => Ok(Some(sealed.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new("read", &path, source)),
        }
    }

    /// What is known of an object.
    pub(super) fn held(&self, area: Area, name: Name) -> Result<Option<Held>, FileError> {
        let path = self.path(area, name);
        match fs::metadata(&path).and_then(|facts| Ok((facts.len(), facts.modified()?))) {
            Ok((bytes, since)) => Ok(Some(Held { name, bytes, since })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new("look at", &path, source)),
        }
    }

    /// Moves an object from one area to another, whose age begins anew. Whether it was there.
    pub(super) fn shift(&self, name: Name, from: Area, to: Area) -> Result<bool, FileError> {
        let (source, target) = (self.path(from, name), self.path(to, name));
        let folder = target.parent().unwrap_or(&target);
        fs::create_dir_all(folder).map_err(|error| FileError::new("make", folder, error))?;
        let moved = File::options()
            .write(true)
            .open(&source)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .and_then(|()| fs::rename(&source, &target));
        match moved {
            Ok(()) => sync_folder(folder).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(FileError::new("move", &source, error)),
        }
    }

    /// Removes an object; that it is not there is as good.
    pub(super) fn remove(&self, area: Area, name: Name) -> Result<(), FileError> {
        let path = self.path(area, name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::new("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Everything in an area. What is removed meanwhile may be among it.
    pub(super) fn list(&self, area: Area) -> Result<Vec<Held>, FileError> {
        let root = self.0.root().join(area.prefix());
        let failed = |source| FileError::new("list", &root, source);
        let mut all = Vec::new();
        for shard in fs::read_dir(&root).map_err(failed)? {
            for file in fs::read_dir(shard.map_err(failed)?.path()).map_err(failed)? {
                let file = file.map_err(failed)?;
                let Some(name) = file.file_name().to_str().and_then(Name::from_hex) else { continue };
                let Ok(facts) = file.metadata() else { continue };
                all.push(Held { name, bytes: facts.len(), since: facts.modified().map_err(failed)? });
            }
        }
        Ok(all)
    }
}
