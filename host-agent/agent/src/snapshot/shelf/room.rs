//! Room in the directory: what was used longest ago goes.

use super::Shelf;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

impl Shelf {
    /// Removes the oldest until so many bytes fit, but for this one.
    pub(super) fn make_room(&self, bytes: u64, but: Option<&Path>) -> io::Result<()> {
        if bytes > self.most_bytes {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "larger than all that is kept"));
        }
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(&self.root)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let facts = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((facts.modified().ok()?, facts.len(), entry.path()))
            })
            .collect();
        kept.sort();
        let mut total: u64 =
            kept.iter().map(|(_, len, _)| len).sum::<u64>().saturating_add(self.nameless.bytes());
        for (_, len, path) in kept.into_iter().filter(|(.., path)| Some(path.as_path()) != but) {
            if total.saturating_add(bytes) <= self.most_bytes {
                break;
            }
            fs::remove_file(path)?;
            total = total.saturating_sub(len);
        }
        Ok(())
    }
}
