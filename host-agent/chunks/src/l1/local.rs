//! Memory and disk as one: what this worker has itself.

use super::{Disk, DiskError, Found, Memory, Put};
use crate::name::Name;
use bytes::Bytes;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// This worker's own tiers.
#[derive(Clone, Debug)]
pub struct Local {
    memory: Arc<Memory>,
    disk: Option<Arc<Disk>>,
}

/// What this worker has under a name.
#[derive(Debug)]
pub enum Own {
    /// In memory.
    Memory(Bytes),
    /// On the disk; now in memory too.
    Disk(Bytes),
    /// Nothing.
    Miss,
    /// Something else, which is gone now.
    Damaged,
    /// The disk failed.
    Failed(DiskError),
}

impl Local {
    /// Of a memory, and a disk where there is one.
    #[must_use]
    pub fn new(memory: Memory, disk: Option<Disk>) -> Self {
        Self { memory: Arc::new(memory), disk: disk.map(Arc::new) }
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.as_ref()
    }

    /// Looks in memory alone.
    #[must_use]
    pub fn remembered(&self, name: Name) -> Option<Bytes> {
        self.memory.get(name).filter(|sealed| name.is_of(sealed))
    }

    /// Looks in memory, then on the disk. Whatever it gives was held against its name just now.
    pub async fn get(&self, name: Name) -> Own {
        let mut damaged = false;
        if let Some(sealed) = self.memory.get(name) {
            if name.is_of(&sealed) {
                return Own::Memory(sealed);
            }
            // Memory that changes by itself: the disk may still be right.
            self.memory.drop_name(name);
            damaged = true;
        }
        let Some(disk) = self.disk.clone() else { return if damaged { Own::Damaged } else { Own::Miss } };
        match spawn_blocking(move || disk.get(name)).await {
            Ok(Ok(Found::Hit(sealed))) => {
                self.memory.put(name, sealed.clone());
                Own::Disk(sealed)
            }
            Ok(Ok(Found::Miss)) if !damaged => Own::Miss,
            Ok(Ok(Found::Miss | Found::Damaged)) => Own::Damaged,
            Ok(Err(error)) => Own::Failed(error),
            // The runtime is going down.
            Err(_) => Own::Miss,
        }
    }

    /// Keeps verified bytes in memory at once.
    pub fn remember(&self, name: Name, sealed: Bytes) {
        self.memory.put(name, sealed);
    }

    /// Keeps verified bytes on the disk; without one, memory has to do.
    pub async fn keep(&self, name: Name, sealed: Bytes) -> Result<Put, DiskError> {
        let Some(disk) = self.disk.clone() else { return Ok(Put::Present) };
        match spawn_blocking(move || disk.put(name, &sealed)).await {
            Ok(done) => done,
            // The runtime is going down: nothing was promised.
            Err(_) => Ok(Put::Present),
        }
    }
}
