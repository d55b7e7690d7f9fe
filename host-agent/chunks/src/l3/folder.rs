//! The third tier as a folder: `chunks/ab/<name>`, and the same below `retired/`, `damaged/` and `entries/`.
//!
//! Any number of processes may use it at once, also over a network file system: a name is taken by a hard link, so exactly one
//! of several writers stores it. Blocking.
//!
//! Chunks, in service or retired, are for whoever reaches their folder to read: they are sealed, and a store is believed nothing
//! anyway. So a process of another user, to which the owner gives descriptors of those two folders, reads them and no more
//! ([`Directory::reading`]), also where the folder above is closed to everybody. Entries are their owner's.

use super::origin::{Area, Held};
use crate::{
    files::{FileError, Folder, Taken},
    name::Name,
    root::{Access, Root, modified},
};
use bytes::Bytes;
use rustix::{
    fs::{Mode, OFlags, fchmod},
    io::Errno,
};
use std::{
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// No write takes this long: a file in `tmp/` that old is of a process that died.
const LEFTOVER: Duration = Duration::from_hours(1);

/// A folder of sealed objects.
#[derive(Debug)]
pub struct Directory(Kind);

#[derive(Debug)]
enum Kind {
    /// All of it.
    Whole(Folder),
    /// Two areas of somebody else's.
    Reading { live: Root, retired: Root },
}

/// Descriptors of folders in an origin, by which chunks are read.
#[derive(Debug)]
pub struct Reading {
    /// Of [`Area::Live`].
    pub live: OwnedFd,
    /// Of [`Area::Retired`].
    pub retired: OwnedFd,
}

impl Reading {
    /// Opens them, in an origin that [`Directory::open`] has opened before.
    pub fn open(root: &Path) -> io::Result<Self> {
        let open = |area: Area| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(root.join(area.prefix()), flags, Mode::empty())
        };
        Ok(Self { live: open(Area::Live)?, retired: open(Area::Retired)? })
    }
}

impl Directory {
    /// Opens or makes it, and clears what died half written.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        let folder = Folder::open(Root::at(root), Access::OWNER)?;
        for area in Area::ALL {
            let place = Path::new(area.prefix());
            let failed = |source| folder.failed("make", place, source);
            folder.root().make_all(place, access(area)).map_err(failed)?;
            if access(area) != Access::OWNER {
                // One that was made before others were to read it; somebody else's stays as it is.
                let _not_ours = folder.root().open_up(place, access(area));
            }
        }
        folder.sync(Path::new(""))?;
        let now = SystemTime::now();
        folder.clear_leftovers(|at| now.duration_since(at).is_ok_and(|age| age > LEFTOVER))?;
        Ok(Self(Kind::Whole(folder)))
    }

    /// Of somebody else's, to be read.
    #[must_use]
    pub fn reading(Reading { live, retired }: Reading) -> Self {
        let [live, retired] = [(live, Area::Live), (retired, Area::Retired)]
            .map(|(folder, area)| Root::held(folder, area.prefix()));
        Self(Kind::Reading { live, retired })
    }

    /// Whether nothing can be changed in it.
    pub(super) const fn is_read_only(&self) -> bool {
        matches!(self.0, Kind::Reading { .. })
    }

    /// Where an object is: in which folder, under which name there.
    fn place(&self, area: Area, name: Name) -> Result<(&Root, PathBuf), FileError> {
        let below = Path::new(&name.shard()).join(name.to_string());
        let (root, place) = match (&self.0, area) {
            (Kind::Whole(folder), _) => (folder.root(), Path::new(area.prefix()).join(below)),
            (Kind::Reading { live, .. }, Area::Live) => (live, below),
            (Kind::Reading { retired, .. }, Area::Retired) => (retired, below),
            (Kind::Reading { .. }, Area::Damaged | Area::Entries) => return Err(not_ours("reach", area)),
        };
        Ok((root, place))
    }

    fn whole(&self, action: &'static str, area: Area) -> Result<&Folder, FileError> {
        match &self.0 {
            Kind::Whole(folder) => Ok(folder),
            Kind::Reading { .. } => Err(not_ours(action, area)),
        }
    }

    /// Keeps bytes durably unless the name is taken; whether it did.
    pub(super) fn put(&self, area: Area, name: Name, sealed: &[u8], taken: Taken) -> Result<bool, FileError> {
        let (_, place) = self.place(area, name)?;
        let folder = self.whole("write", area)?;
        folder.write_for(&place, sealed, taken, access(area))
    }

    /// Begins its age anew. Whether it was there.
    pub(super) fn refresh(&self, name: Name) -> Result<bool, FileError> {
        let folder = self.whole("refresh", Area::Live)?;
        let (root, place) = self.place(Area::Live, name)?;
        let opened = root.open(&place, OFlags::WRONLY, Mode::empty());
        let done = opened.and_then(|file| {
            // One that was kept before others were to read it.
            let _not_ours = fchmod(&file, access(Area::Live).file());
            file.set_modified(SystemTime::now())
        });
        match done {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(folder.failed("refresh", &place, source)),
        }
    }

    /// Reads at most `most` bytes and one; `None` if there is nothing.
    pub(super) fn get(&self, area: Area, name: Name, most: usize) -> Result<Option<Bytes>, FileError> {
        let (root, place) = self.place(area, name)?;
        let mut sealed = Vec::new();
        let read = root.open(&place, OFlags::RDONLY, Mode::empty()).and_then(|file| {
            let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
            file.take(most).read_to_end(&mut sealed)
        });
        match read {
            Ok(_) => Ok(Some(sealed.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new("read", &root.shown(&place), source)),
        }
    }

    /// What is known of an object.
    pub(super) fn held(&self, area: Area, name: Name) -> Result<Option<Held>, FileError> {
        let (root, place) = self.place(area, name)?;
        match root.stat(&place) {
            Ok(stat) => {
                let bytes = u64::try_from(stat.st_size).unwrap_or(0);
                Ok(Some(Held { name, bytes, since: modified(&stat) }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new("look at", &root.shown(&place), source)),
        }
    }

    /// Moves an object from one area to another, whose age begins anew. Whether it was there.
    pub(super) fn shift(&self, name: Name, from: Area, to: Area) -> Result<bool, FileError> {
        let folder = self.whole("move", from)?;
        let ((root, source), (_, target)) = (self.place(from, name)?, self.place(to, name)?);
        let shard = target.parent().unwrap_or(&target);
        root.make_all(shard, access(to)).map_err(|error| folder.failed("make", shard, error))?;
        let moved = root
            .open(&source, OFlags::WRONLY, Mode::empty())
            .and_then(|file| file.set_modified(SystemTime::now()))
            .and_then(|()| root.rename(&source, &target));
        match moved {
            Ok(()) => folder.sync(shard).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(folder.failed("move", &source, error)),
        }
    }

    /// Removes an object; that it is not there is as good.
    pub(super) fn remove(&self, area: Area, name: Name) -> Result<(), FileError> {
        let (_, place) = self.place(area, name)?;
        self.whole("remove", area)?.remove(&place)
    }

    /// Everything in an area. What is removed meanwhile may be among it.
    pub(super) fn list(&self, area: Area) -> Result<Vec<Held>, FileError> {
        let folder = self.whole("list", area)?;
        let place = Path::new(area.prefix());
        let list =
            |place: &Path| folder.root().list(place).map_err(|source| folder.failed("list", place, source));
        let mut all = Vec::new();
        for shard in list(place)? {
            for file in list(&place.join(&shard.name))? {
                let Some(name) = file.name.to_str().and_then(Name::from_hex) else { continue };
                all.push(Held { name, bytes: file.bytes(), since: file.modified() });
            }
        }
        Ok(all)
    }
}

/// Who else may use what lies in an area.
const fn access(area: Area) -> Access {
    match area {
        Area::Live | Area::Retired => Access::READERS,
        Area::Damaged | Area::Entries => Access::OWNER,
    }
}

fn not_ours(action: &'static str, area: Area) -> FileError {
    FileError::new(action, Path::new(area.prefix()), Errno::ROFS.into())
}
