//! A snapshot's scratch disk, over which those of its copies lie: a file without a name, on this host's disk and not in its memory,
//! read by all of them in place and written by nobody.
//!
//! As it is kept, sent and signed it is [`Sparse`]'s bytes, which follow from what it holds alone.

use rustix::fs::{CWD, Mode, OFlags, open, openat};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use warren_artefact::{Part, snapshot::Measure};
use warren_image::sparse::{Sparse, Unpacking};

/// One whose descriptor writes nothing, whoever has it.
#[derive(Debug)]
pub struct KeptDisk {
    file: File,
    len: u64,
    counted: OnceLock<Counted>,
}

/// Bytes of files without a name, which no directory tells: what those that live take of the disk. A clone is the same count.
#[derive(Clone, Debug, Default)]
pub struct Nameless(Arc<AtomicU64>);

impl Nameless {
    /// All of them now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of them; counted as long as it lives.
#[derive(Debug)]
struct Counted(Nameless, u64);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl KeptDisk {
    /// A new one in the file system of a folder, with what is written into it. Blocks.
    pub fn filled<E: From<io::Error>>(
        folder: &Path,
        content: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<Self, E> {
        let file = nameless(folder)?;
        content(&file)?;
        Ok(Self::of(&file)?)
    }

    /// Of a file that nobody writes any more.
    pub fn of(file: &File) -> io::Result<Self> {
        // The same file once more, to be read: what descriptor there is says what may be done by it.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = File::from(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let len = file.metadata()?.len();
        Ok(Self { file, len, counted: OnceLock::new() })
    }

    /// From now on what it takes of the disk, holes not among it, is counted there; once.
    pub fn count(&self, among: &Nameless) -> io::Result<()> {
        let bytes = self.file.metadata()?.blocks() * 512;
        self.counted.get_or_init(|| {
            among.0.fetch_add(bytes, Ordering::Relaxed);
            Counted(among.clone(), bytes)
        });
        Ok(())
    }

    /// A file of its own that holds the same, in the file system of a folder: for what is written down again. Blocks.
    pub fn copy(&self, folder: &Path) -> io::Result<File> {
        let file = nameless(folder)?;
        let mut into = Unpacking::new(&file, self.len);
        self.write(&mut into)?;
        into.finish()?;
        Ok(file)
    }

    /// Its bytes, holes among them.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.len
    }

    /// Writes it as it is kept. Blocks.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        Sparse::write_of(&self.file, out)
    }

    /// Digest and length of that. Blocks.
    pub fn part(&self) -> io::Result<Part> {
        let mut measure = Measure::default();
        self.write(&mut measure)?;
        Ok(measure.part())
    }
}

/// A file without a name, in the file system of a folder.
pub fn nameless(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR)?.into())
}

impl AsFd for KeptDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn nameless_sparse_and_never_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk = KeptDisk::filled(dir.path(), |file| {
            file.set_len(1 << 30)?;
            file.write_all_at(b"superblock", 1024)
        });
        let disk = disk.unwrap();
        let file = File::from(disk.as_fd().try_clone_to_owned().unwrap());
        assert!(file.write_all_at(b"x", 0).is_err() && file.set_len(0).is_err());
        let about = file.metadata().unwrap();
        assert_eq!((about.len(), about.nlink()), (1 << 30, 0));
        assert!(about.blocks() < 100, "{} blocks", about.blocks());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut bytes = Vec::new();
        disk.write(&mut bytes).unwrap();
        assert_eq!(disk.part().unwrap(), Part::of(&bytes));
        assert_eq!(Sparse::parse(&bytes).unwrap().runs().count(), 1);
        // A copy holds the same, and what becomes of it is its own.
        let copy = disk.copy(dir.path()).unwrap();
        let about = copy.metadata().unwrap();
        assert_eq!((about.len(), about.nlink()), (1 << 30, 0));
        assert!(about.blocks() < 100, "{} blocks", about.blocks());
        assert_eq!(KeptDisk::of(&copy).unwrap().part().unwrap(), Part::of(&bytes));
        copy.write_all_at(b"later", 1024).unwrap();
        assert_eq!(disk.part().unwrap(), Part::of(&bytes));
        // A host without room for it is not a disk that is damaged.
        assert_eq!(disk.copy(Path::new("/proc")).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
