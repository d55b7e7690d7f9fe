//! Sealed memory files: what goes to a jailed program cannot change under it, nor under us.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::fd::{AsFd, BorrowedFd},
};

/// A memory file that nobody can write, grow or shrink any more. Holding one proves the seals, not the content.
#[derive(Debug)]
pub struct SealedFile {
    file: File,
    len: u64,
}

impl SealedFile {
    /// Copies `bytes` into a new file and seals it.
    pub fn new(name: &str, bytes: &[u8]) -> io::Result<Self> {
        let mut file = unsealed(name)?;
        file.write_all(bytes)?;
        file.rewind()?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self { file, len: bytes.len() as u64 })
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
    }
}
