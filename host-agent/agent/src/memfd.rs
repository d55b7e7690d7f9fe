//! Sealed memory files: what goes to a jailed program cannot change under it, nor under us.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    num::NonZeroUsize,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt as _,
    },
};
use warren_large_pages::{LARGE_PAGE, gather};

/// A memory file that nobody can write, grow or shrink any more. Holding one proves the seals, not the content.
#[derive(Debug)]
pub struct SealedFile {
    file: File,
    len: u64,
}

impl SealedFile {
    /// Copies `bytes` into a new file and seals it.
    pub fn new(name: &str, bytes: &[u8]) -> io::Result<Self> {
        Self::filled(name, |file| file.write_all(bytes))
    }

    /// A new file, sealed once `content` has been written into it.
    pub fn filled<E: From<io::Error>>(
        name: &str,
        content: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut file = unsealed(name)?;
        content(&mut file)?;
        Ok(Self::sealed(file)?)
    }

    /// The same for what many guests map and none writes: made longer, to whole large pages, and put together in them where the kernel
    /// can, if at least a quarter of them is `bytes`. Its length is that of `bytes`.
    pub fn shared(name: &str, bytes: &[u8]) -> io::Result<Self> {
        let whole = bytes.len().checked_next_multiple_of(LARGE_PAGE).and_then(NonZeroUsize::new);
        let Some(whole) = whole.filter(|whole| bytes.len() >= whole.get() / 4) else {
            return Self::new(name, bytes);
        };
        let file = Self::filled(name, |file| {
            file.write_all(bytes)?;
            file.set_len(whole.get() as u64)?;
            // Where it cannot, guests touch small pages one by one.
            let _ = gather(&*file, 0, whole);
            Ok::<_, io::Error>(())
        })?;
        Ok(Self { len: bytes.len() as u64, ..file })
    }

    /// Seals an [`unsealed`] file as it is now. What it holds is to be looked at after this.
    pub fn sealed(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    /// Reads it from its beginning, whoever reads it beside.
    #[must_use]
    pub const fn reader(&self) -> Reader<'_> {
        Reader { file: &self.file, at: 0, len: self.len }
    }

    /// Bytes of memory that it may hold.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.file.metadata().map_or(self.len, |metadata| metadata.len())
    }

    /// Its length.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A place in a sealed file of its own: descriptors that were passed on share the file's.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a File,
    at: u64,
    len: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..left).unwrap_or_default(), self.at)?;
        self.at = self.at.saturating_add(count as u64).min(self.len);
        Ok(count)
    }
}

impl AsFd for SealedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A memory file a jailed program may still write: its answer comes back in it.
pub fn unsealed(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// Longer than what it is read as, and sealed like any other.
    #[test]
    fn what_is_shared_is_whole_large_pages() {
        for (len, held) in [(5, 5), (LARGE_PAGE / 4, LARGE_PAGE), (LARGE_PAGE + 1, 2 * LARGE_PAGE)] {
            let bytes = vec![7; len];
            let file = SealedFile::shared("test", &bytes).unwrap();
            assert_eq!((file.len(), file.held()), (len as u64, held as u64));
            let mut back = Vec::new();
            file.reader().read_to_end(&mut back).unwrap();
            assert_eq!(back, bytes);
            assert!(File::from(file.as_fd().try_clone_to_owned().unwrap()).set_len(0).is_err());
        }
    }

    #[test]
    fn what_is_sealed_stays() {
        let sealed = SealedFile::new("test", b"module").unwrap();
        let mut file = File::from(sealed.as_fd().try_clone_to_owned().unwrap());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(100).is_err());
        file.rewind().unwrap();
        let mut back = Vec::new();
        file.read_to_end(&mut back).unwrap();
        assert_eq!((back.as_slice(), sealed.len()), (&b"module"[..], 6));
        let mut again = Vec::new();
        sealed.reader().read_to_end(&mut again).unwrap();
        assert_eq!(again, back, "though the file's own offset is at its end");
    }
}
