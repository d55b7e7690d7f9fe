//! The archive format of an initramfs (`newc`), written with fixed numbers and times: the same files, the same bytes.

use cpio::{NewcBuilder, newc};
use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// An archive being written, uncompressed: a loader copies it faster than a guest unpacks it.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    inode: u32,
    folders: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    /// Into `out`.
    pub fn new(out: W) -> Self {
        Self { out, inode: 1, folders: BTreeSet::new() }
    }

    /// A folder, and those above it that are not there yet.
    pub fn folder(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<_> =
            path.ancestors().filter(|p| p.parent().is_some() && !self.folders.contains(*p)).collect();
        for folder in missing.into_iter().rev() {
            self.entry(folder, 0o04_0755, &[])?;
            self.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    /// A file with these permissions, by its absolute path.
    pub fn file(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        self.entry(path, 0o10_0000 | mode, bytes)
    }

    /// Writes the end.
    pub fn finish(self) -> io::Result<W> {
        newc::trailer(self.out)
    }

    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let name = path.to_string_lossy();
        let length =
            u32::try_from(bytes.len()).map_err(|_| io::Error::other(format!("{name} is over 4 GiB")))?;
        let builder = NewcBuilder::new(name.trim_start_matches('/')).ino(self.inode).mode(mode).nlink(1);
        self.inode += 1;
        let mut writer = builder.write(&mut self.out, length);
        writer.write_all(bytes)?;
        writer.finish()?;
        Ok(())
    }
}
