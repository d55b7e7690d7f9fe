//! A folder as something that is reached: by a path, or by a descriptor that somebody else opened.
//!
//! Every file operation of this crate goes through here, relative to such a folder (`openat` and its kin). Who has a path resolves
//! it anew each time: a file system that is mounted again later is found. Who has a descriptor needs no path at all: that works in
//! an empty root, and reaches what lies below a folder that is closed to everybody else.
//!
//! Names are this crate's own, hexadecimal or fixed, never somebody else's. Blocking.

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmodat, fsync, linkat, mkdirat, openat, renameat,
        statat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Who may use what is made in a folder, beside its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    file: u32,
    folder: u32,
}

impl Access {
    /// Nobody.
    pub const OWNER: Self = Self { file: 0o600, folder: 0o700 };
    /// Whoever reaches the folder may read.
    pub const READERS: Self = Self { file: 0o644, folder: 0o755 };
    /// Whoever reaches the folder may do anything: the folder above decides who does.
    pub const HOLDERS: Self = Self { file: 0o666, folder: 0o777 };

    pub(crate) const fn file(self) -> Mode {
        Mode::from_raw_mode(self.file)
    }

    const fn folder(self) -> Mode {
        Mode::from_raw_mode(self.folder)
    }
}

/// A folder.
#[derive(Debug)]
pub struct Root {
    /// `None`: the path is resolved at each use.
    held: Option<OwnedFd>,
    /// Where it is, or what a held one is called in errors.
    path: PathBuf,
}

/// What lies in a folder.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: OsString,
    stat: Stat,
}

impl Found {
    pub(crate) fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::RegularFile
    }

    pub(crate) fn is_folder(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    pub(crate) fn modified(&self) -> SystemTime {
        modified(&self.stat)
    }
}

/// When a file was last written.
pub(crate) fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

impl Root {
    /// The one at a path, which need not be there yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { held: None, path: path.into() }
    }

    /// The one behind a descriptor, under a name for errors.
    #[must_use]
    pub fn held(folder: OwnedFd, name: impl Into<PathBuf>) -> Self {
        Self { held: Some(folder), path: name.into() }
    }

    /// Where something in it is, for people.
    pub(crate) fn shown(&self, place: &Path) -> PathBuf {
        self.path.join(place)
    }

    /// The folder itself, where its path leads; a held one is there.
    pub(crate) fn make(&self) -> io::Result<()> {
        if self.held.is_some() { Ok(()) } else { std::fs::create_dir_all(&self.path) }
    }

    /// Makes a folder in it and those above. What is there stays as it is.
    pub(crate) fn make_all(&self, place: &Path, access: Access) -> io::Result<()> {
        let mut at = PathBuf::new();
        for part in place.components() {
            at.push(part);
            match self.ask(&at, |dir, path| mkdirat(dir, path, access.folder())) {
                // Whatever the process masks.
                Ok(()) if access != Access::OWNER => {
                    self.ask(&at, |dir, path| chmodat(dir, path, access.folder(), AtFlags::empty()))?;
                }
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets who may use a folder in it that is there.
    pub(crate) fn open_up(&self, place: &Path, access: Access) -> io::Result<()> {
        self.ask(place, |dir, path| chmodat(dir, path, access.folder(), AtFlags::empty()))
    }

    pub(crate) fn open(&self, place: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
        self.ask(place, |dir, path| openat(dir, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode))
            .map(File::from)
    }

    pub(crate) fn stat(&self, place: &Path) -> io::Result<Stat> {
        self.ask(place, |dir, path| statat(dir, path, AtFlags::SYMLINK_NOFOLLOW))
    }

    pub(crate) fn is_there(&self, place: &Path) -> bool {
        self.stat(place).is_ok()
    }

    /// Takes a name over.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = self.place(to);
        self.ask(from, |dir, from| renameat(dir, from, dir, &to))
    }

    /// Gives a file a second name, if that is free.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = self.place(to);
        self.ask(from, |dir, from| linkat(dir, from, dir, &to, AtFlags::empty()))
    }

    pub(crate) fn remove(&self, place: &Path) -> io::Result<()> {
        self.ask(place, |dir, path| unlinkat(dir, path, AtFlags::empty()))
    }

    /// Makes names in a folder durable.
    pub(crate) fn sync(&self, place: &Path) -> io::Result<()> {
        Ok(fsync(self.folder(place)?)?)
    }

    /// What lies in a folder of it. What is removed meanwhile may be left out.
    pub(crate) fn list(&self, place: &Path) -> io::Result<Vec<Found>> {
        let mut folder = Dir::new(self.folder(place)?)?;
        let mut names = Vec::new();
        while let Some(entry) = folder.read() {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        let mut all = Vec::new();
        for name in names {
            match statat(folder.fd()?, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => all.push(Found { name, stat }),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all)
    }

    fn folder(&self, place: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.ask(place, |dir, path| openat(dir, path, flags, Mode::empty()))
    }

    fn ask<T>(
        &self,
        place: &Path,
        call: impl Fn(BorrowedFd<'_>, &Path) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let dir = self.held.as_ref().map_or(CWD, |held| held.as_fd());
        let place = self.place(place);
        Ok(rustix::io::retry_on_intr(|| call(dir, &place))?)
    }

    /// As the kernel is asked.
    fn place(&self, place: &Path) -> PathBuf {
        let asked = if self.held.is_some() { place.to_owned() } else { self.path.join(place) };
        if asked.as_os_str().is_empty() { PathBuf::from(".") } else { asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

    /// Both kinds, over one folder.
    fn both(folder: &Path) -> [Root; 2] {
        let held = File::open(folder).unwrap();
        [Root::at(folder), Root::held(held.into(), "held")]
    }

    #[test]
    fn a_path_and_a_descriptor_do_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for (number, root) in both(dir.path()).iter().enumerate() {
            let [place, other] = ["file", "other"].map(|name| PathBuf::from(format!("{number}/{name}")));
            let folder = place.parent().unwrap();
            root.make().unwrap();
            root.make_all(folder, Access::HOLDERS).unwrap();
            root.make_all(folder, Access::OWNER).unwrap();
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            root.open(&place, flags, Access::OWNER.file()).unwrap().write_all(b"12345").unwrap();
            root.link(&place, &other).unwrap();
            assert_eq!(root.link(&place, &other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            root.remove(&place).unwrap();
            assert!(!root.is_there(&place) && root.is_there(&other));
            root.rename(&other, &place).unwrap();
            root.sync(folder).unwrap();
            root.sync(Path::new("")).unwrap();
            let listed = root.list(folder).unwrap();
            let [found] = listed.as_slice() else { panic!("{listed:?}") };
            assert_eq!((found.name.to_str(), found.bytes(), found.is_file()), (Some("file"), 5, true));
            let mode = std::fs::metadata(dir.path().join(folder)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o777, "whatever is masked, and what is there stays");
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        for root in both(dir.path()) {
            assert!(root.open(Path::new("link"), OFlags::RDONLY, Mode::empty()).is_err());
            assert!(!root.list(Path::new("")).unwrap()[0].is_file());
        }
    }

    /// What a jailed process has: the folder above is closed to it, or not there at all.
    #[test]
    fn a_held_folder_needs_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let [_, root] = both(dir.path());
        let moved = tempfile::tempdir().unwrap();
        std::fs::rename(dir.path(), moved.path().join("elsewhere")).unwrap();
        root.make_all(Path::new("ab"), Access::OWNER).unwrap();
        assert!(moved.path().join("elsewhere/ab").is_dir());
    }
}
