//! Room for the journal on a disk that others fill.
//!
//! The store's file owns the blocks of all it holds and of as much again, at the least [`LEAST`]. A full disk then stops
//! what grows without bound (the registry, see [`Room::enlarge`]) and leaves what is bounded by trimming: the journal, on
//! which admissions and a restart of control stand.

use crate::StoreError;
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes beyond the file's end that are its own, at the least: a redb file of the smallest size can double.
const LEAST: u64 = 2 << 20;

/// The file's blocks; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// Another descriptor of redb's file; redb's lock stays on its own.
    file: Arc<File>,
    /// Up to which length blocks are known to be there.
    owned: Arc<AtomicU64>,
}

impl Room {
    /// Over the database's file.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(StoreError::Directory)?;
        Ok(Self { file: Arc::new(file), owned: Arc::default() })
    }

    /// Before something is written that nothing will trim: fails once the room of the journal is being used for it.
    pub(crate) fn enlarge(&self) -> Result<(), StoreError> {
        match self.claim() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(StoreError::Full),
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => Err(StoreError::Full),
            // A file system that cannot promise blocks: the write itself will tell.
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// After a commit: the file may have grown into its room, or shrunk and lost it.
    pub(crate) fn keep(&self) {
        let unchanged =
            self.file.metadata().is_ok_and(|facts| wanted(facts.len()) == self.owned.load(Ordering::Relaxed));
        if !unchanged && let Err(error) = self.claim() {
            tracing::warn!(%error, "the store has no room beyond its file");
        }
    }

    fn claim(&self) -> io::Result<()> {
        let wanted = wanted(self.file.metadata()?.len());
        // Blocks that are there are left alone. Without KEEP_SIZE the file itself would grow, which is redb's to decide.
        fallocate(&*self.file, FallocateFlags::KEEP_SIZE, 0, wanted)?;
        self.owned.store(wanted, Ordering::Relaxed);
        Ok(())
    }
}

const fn wanted(len: u64) -> u64 {
    len.saturating_add(if len > LEAST { len } else { LEAST })
}
