//! Files that are whole or not there, whenever the machine stops.
//!
//! ```text
//! tmp/<writer>-<n>: write -> fsync -> rename (or link, to lose to whoever was first) -> fsync of the folder
//! ```
//! A crash leaves at most a file in `tmp/`. Blocking: callers put it on a blocking thread.

use crate::root::{Access, Root};
use rustix::fs::{OFlags, fchmod};
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

/// Where files are until they are whole.
const TMP: &str = "tmp";

/// A file operation failed; which one, on what.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}", path = path.display())]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }

    /// Whether the disk is full (or a quota reached).
    #[must_use]
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What to do when the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Take it over.
    Replace,
    /// Leave it.
    Leave,
}

/// A folder to write into, with a `tmp/` of its own on the same file system. Names are relative to it.
#[derive(Debug)]
pub(crate) struct Folder {
    root: Root,
    access: Access,
    /// Drawn: hosts that share a folder have processes of one number.
    writer: u64,
    next: AtomicU64,
}

impl Folder {
    /// Opens or makes it; who else may use the files made in it is the caller's affair.
    pub(crate) fn open(root: Root, access: Access) -> Result<Self, FileError> {
        let tmp = Path::new(TMP);
        root.make()
            .and_then(|()| root.make_all(tmp, access))
            .map_err(|source| FileError::new("make", &root.shown(tmp), source))?;
        let writer = getrandom::u64()
            .map_err(|error| FileError::new("draw a name in", &root.shown(tmp), error.into()))?;
        Ok(Self { root, access, writer, next: AtomicU64::new(0) })
    }

    pub(crate) const fn root(&self) -> &Root {
        &self.root
    }

    /// An operation on something in it failed.
    pub(crate) fn failed(&self, action: &'static str, place: &Path, source: io::Error) -> FileError {
        FileError::new(action, &self.root.shown(place), source)
    }

    /// Removes what an earlier life left half written; `old_enough` tells it from what another process writes now.
    pub(crate) fn clear_leftovers(
        &self,
        old_enough: impl Fn(SystemTime) -> bool,
    ) -> Result<usize, FileError> {
        let tmp = Path::new(TMP);
        let mut cleared = 0;
        for found in self.root.list(tmp).map_err(|source| self.failed("list", tmp, source))? {
            if old_enough(found.modified()) {
                self.remove(&tmp.join(&found.name))?;
                cleared += 1;
            }
        }
        Ok(cleared)
    }

    /// Removes a file; that it is not there is as good.
    pub(crate) fn remove(&self, place: &Path) -> Result<(), FileError> {
        match self.root.remove(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove", place, error)),
            _ => Ok(()),
        }
    }

    /// Makes a folder in it.
    pub(crate) fn make(&self, folder: &Path) -> Result<(), FileError> {
        self.root.make_all(folder, self.access).map_err(|source| self.failed("make", folder, source))
    }

    /// Makes names in a folder durable.
    pub(crate) fn sync(&self, folder: &Path) -> Result<(), FileError> {
        self.root.sync(folder).map_err(|source| self.failed("sync", folder, source))
    }

    /// Writes a whole file durably. `false` if the name was taken and left as it is.
    pub(crate) fn write(&self, target: &Path, bytes: &[u8], taken: Taken) -> Result<bool, FileError> {
        self.write_for(target, bytes, taken, self.access)
    }

    /// The same with a choice of who else may use it.
    pub(crate) fn write_for(
        &self,
        target: &Path,
        bytes: &[u8],
        taken: Taken,
        access: Access,
    ) -> Result<bool, FileError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let fresh = Path::new(TMP).join(format!("{:016x}-{number}", self.writer));
        let written = self.write_through(&fresh, target, bytes, (taken, access));
        if !matches!(written, Ok(true)) || taken == Taken::Leave {
            // Best effort: a leftover is cleared by the next start.
            let _cleared = self.root.remove(&fresh);
        }
        written
    }

    fn write_through(
        &self,
        fresh: &Path,
        target: &Path,
        bytes: &[u8],
        (taken, access): (Taken, Access),
    ) -> Result<bool, FileError> {
        let folder = target.parent().unwrap_or(target);
        if !self.root.is_there(folder) {
            self.root.make().map_err(|source| self.failed("make", folder, source))?;
            self.root.make_all(folder, access).map_err(|source| self.failed("make", folder, source))?;
            if let Some(above) = folder.parent() {
                self.sync(above)?;
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let make = || self.root.open(fresh, flags, Access::OWNER.file());
        let mut file = match make() {
            // A folder that was away and is another one now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make(Path::new(TMP))?;
                make()
            }
            other => other,
        }
        .map_err(|source| self.failed("make", fresh, source))?;
        if access != Access::OWNER {
            // Whatever the process masks.
            fchmod(&file, access.file()).map_err(|source| self.failed("open up", fresh, source.into()))?;
        }
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|source| self.failed("write", fresh, source))?;
        if taken == Taken::Replace {
            self.root.rename(fresh, target).map_err(|source| self.failed("replace", target, source))?;
        } else {
            match self.root.link(fresh, target) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                Err(source) => return Err(self.failed("name", target, source)),
            }
        }
        self.sync(folder)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn folder(at: &Path) -> Folder {
        Folder::open(Root::at(at), Access::OWNER).unwrap()
    }

    #[test]
    fn a_name_that_is_taken_is_left_or_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        let (name, target) = (Path::new("ab/name"), dir.path().join("ab/name"));
        assert!(folder.write(name, b"one", Taken::Leave).unwrap());
        assert!(!folder.write(name, b"two", Taken::Leave).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"one");
        assert!(folder.write(name, b"three", Taken::Replace).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"three");
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    /// Two hosts, as far as a folder can tell.
    #[test]
    fn writers_of_one_folder_do_not_meet_in_tmp() {
        let dir = tempfile::tempdir().unwrap();
        let both = [folder(dir.path()), folder(dir.path())];
        std::thread::scope(|scope| {
            for (writer, folder) in both.iter().enumerate() {
                let dir = dir.path();
                scope.spawn(move || {
                    for number in 0..200 {
                        let name = format!("ab/{writer}-{number}");
                        let bytes = name.repeat(500);
                        assert!(folder.write(Path::new(&name), bytes.as_bytes(), Taken::Leave).unwrap());
                        assert_eq!(fs::read(dir.join(&name)).unwrap(), bytes.as_bytes());
                    }
                });
            }
        });
    }

    #[test]
    fn a_folder_that_was_away_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let folder = folder(&root);
        fs::remove_dir_all(&root).unwrap();
        assert!(folder.write(Path::new("ab/name"), b"one", Taken::Leave).unwrap());
        assert_eq!(fs::read(root.join("ab/name")).unwrap(), b"one");
    }

    #[test]
    fn leftovers_go_and_young_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        fs::write(dir.path().join("tmp/1-1"), b"half").unwrap();
        assert_eq!(folder.clear_leftovers(|_| false).unwrap(), 0);
        assert_eq!(folder.clear_leftovers(|_| true).unwrap(), 1);
    }

    /// A jailed reader has a descriptor of the folder and no owner's rights: what it may is said by the files.
    #[test]
    fn who_may_use_a_file_is_said_whatever_is_masked() {
        for (access, file, folder) in
            [(Access::OWNER, 0o600, 0o700), (Access::READERS, 0o644, 0o755), (Access::HOLDERS, 0o666, 0o777)]
        {
            let dir = tempfile::tempdir().unwrap();
            let whole = Folder::open(Root::at(dir.path()), access).unwrap();
            whole.write(Path::new("ab/name"), b"one", Taken::Leave).unwrap();
            whole.write_for(Path::new("ab/own"), b"one", Taken::Replace, Access::OWNER).unwrap();
            let mode =
                |place: &str| fs::metadata(dir.path().join(place)).unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode("ab/name"), mode("ab"), mode("ab/own")), (file, folder, 0o600), "{access:?}");
        }
    }
}
