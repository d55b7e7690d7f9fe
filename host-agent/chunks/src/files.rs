//! Files that are whole or not there, whenever the machine stops.
//!
//! ```text
//! tmp/<writer>-<n>: write -> fsync -> rename (or link, to lose to whoever was first) -> fsync of the folder
//! ```
//! A crash leaves at most a file in `tmp/`. Blocking: callers put it on a blocking thread.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

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

/// A folder to write into, with a `tmp/` of its own on the same file system.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// Drawn: hosts that share a folder have processes of one number.
    writer: u64,
    next: AtomicU64,
}

impl Folder {
    /// Opens or makes it.
    pub(crate) fn open(root: &Path) -> Result<Self, FileError> {
        let tmp = root.join("tmp");
        fs::create_dir_all(&tmp).map_err(|source| FileError::new("make", &tmp, source))?;
        let writer =
            getrandom::u64().map_err(|error| FileError::new("draw a name in", &tmp, error.into()))?;
        Ok(Self { root: root.to_owned(), writer, next: AtomicU64::new(0) })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Removes what an earlier life left half written; `old_enough` tells it from what another process writes now.
    pub(crate) fn clear_leftovers(
        &self,
        old_enough: impl Fn(&fs::Metadata) -> bool,
    ) -> Result<usize, FileError> {
        let tmp = self.root.join("tmp");
        let mut cleared = 0;
        for entry in fs::read_dir(&tmp).map_err(|source| FileError::new("list", &tmp, source))? {
            let entry = entry.map_err(|source| FileError::new("list", &tmp, source))?;
            if entry.metadata().is_ok_and(|facts| old_enough(&facts)) {
                fs::remove_file(entry.path())
                    .map_err(|source| FileError::new("remove", &entry.path(), source))?;
                cleared += 1;
            }
        }
        Ok(cleared)
    }

    /// Writes a whole file durably. `false` if the name was taken and left as it is.
    pub(crate) fn write(&self, target: &Path, bytes: &[u8], taken: Taken) -> Result<bool, FileError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let fresh = self.root.join("tmp").join(format!("{:016x}-{number}", self.writer));
        let written = write_through(&fresh, target, bytes, taken);
        if !matches!(written, Ok(true)) || taken == Taken::Leave {
            // Best effort: a leftover is cleared by the next start.
            let _cleared = fs::remove_file(&fresh);
        }
        written
    }
}

fn write_through(fresh: &Path, target: &Path, bytes: &[u8], taken: Taken) -> Result<bool, FileError> {
    let folder = target.parent().unwrap_or(target);
    if !folder.exists() {
        fs::create_dir_all(folder).map_err(|source| FileError::new("make", folder, source))?;
        if let Some(above) = folder.parent() {
            sync_folder(above)?;
        }
    }
    // A folder that was away and is another one now.
    if let Some(tmp) = fresh.parent().filter(|tmp| !tmp.exists()) {
        fs::create_dir_all(tmp).map_err(|source| FileError::new("make", tmp, source))?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(fresh)
        .map_err(|source| FileError::new("make", fresh, source))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|source| FileError::new("write", fresh, source))?;
    if taken == Taken::Replace {
        fs::rename(fresh, target).map_err(|source| FileError::new("replace", target, source))?;
    } else {
        match fs::hard_link(fresh, target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(source) => return Err(FileError::new("name", target, source)),
        }
    }
    sync_folder(folder)?;
    Ok(true)
}

/// Makes names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| FileError::new("sync", folder, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_left_or_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let target = dir.path().join("ab/name");
        assert!(folder.write(&target, b"one", Taken::Leave).unwrap());
        assert!(!folder.write(&target, b"two", Taken::Leave).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"one");
        assert!(folder.write(&target, b"three", Taken::Replace).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"three");
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    /// Two hosts, as far as a folder can tell.
    #[test]
    fn writers_of_one_folder_do_not_meet_in_tmp() {
        let dir = tempfile::tempdir().unwrap();
        let both = [Folder::open(dir.path()).unwrap(), Folder::open(dir.path()).unwrap()];
        std::thread::scope(|scope| {
            for (writer, folder) in both.iter().enumerate() {
                scope.spawn(move || {
                    for number in 0..200 {
                        let target = folder.root().join(format!("ab/{writer}-{number}"));
                        let bytes = target.display().to_string().repeat(500);
                        assert!(folder.write(&target, bytes.as_bytes(), Taken::Leave).unwrap());
                        assert_eq!(fs::read(&target).unwrap(), bytes.as_bytes());
                    }
                });
            }
        });
    }

    #[test]
    fn a_folder_that_was_away_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let folder = Folder::open(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert!(folder.write(&root.join("ab/name"), b"one", Taken::Leave).unwrap());
        assert_eq!(fs::read(root.join("ab/name")).unwrap(), b"one");
    }

    #[test]
    fn leftovers_go_and_young_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        fs::write(dir.path().join("tmp/1-1"), b"half").unwrap();
        assert_eq!(folder.clear_leftovers(|_| false).unwrap(), 0);
        assert_eq!(folder.clear_leftovers(|_| true).unwrap(), 1);
    }
}
