//! Whole files by absolute path, for worlds without descriptors.

use super::Fs;
use crate::Errno;
use alloc::vec::Vec;

impl Fs {
    /// The bytes of a file under `/var/task` or `/tmp`.
    pub fn read_whole(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let (root, relative) = Self::split_absolute(path).ok_or(Errno::NoEnt)?;
        let node = self.find(root, relative, true)?;
        let len = usize::try_from(self.stat(node)?.size).map_err(|_| Errno::NoMem)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Errno::NoMem)?;
        bytes.resize(len, 0);
        let read = self.read_at(node, 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Creates or replaces a file under `/tmp`; without space for all of it, the file is left empty.
    pub fn write_whole(&mut self, path: &str, bytes: &[u8], now: u64) -> Result<(), Errno> {
        let (root, relative) = Self::split_absolute(path).ok_or(Errno::NoEnt)?;
        let place = self.lookup(root, relative, true)?;
        let node = match place.node {
            Some(node) => node,
            None => self.create_file(&place, now)?,
        };
        if self.directory(node).is_ok() {
            return Err(Errno::IsDir);
        }
        self.set_len(node, 0, now)?;
        if self.write_at(node, 0, bytes, now)? < bytes.len() {
            self.set_len(node, 0, now)?;
            return Err(Errno::NoSpc);
        }
        Ok(())
    }
}
