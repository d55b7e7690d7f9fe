//! Chunks from the store, for threads that wait for other things too.

use crate::bundles::BundleId;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::{runtime::Handle, sync::Semaphore};
use warren_chunks::{
    Manifest, Name, Store, TenantKey, manifest::ChunkRef, metrics::Figures, store::ReadError,
};

/// Where chunks come from: one for all VMs. A clone is the same.
#[derive(Clone, Debug)]
pub struct Source {
    store: Store,
    runtime: Handle,
    /// Chunks that are being opened at once, whoever asked.
    places: Arc<Semaphore>,
}

/// What came of a fetch.
#[derive(Debug)]
pub struct Arrival {
    /// What was asked for.
    pub id: BundleId,
    /// Its pages.
    pub pages: Result<Vec<u8>, ReadError>,
}

/// A VM's fetches.
#[derive(Debug)]
pub struct Fetches {
    source: Source,
    bell: Arc<OwnedFd>,
    sender: Sender<Arrival>,
    receiver: Receiver<Arrival>,
}

impl Source {
    /// Of a store, on a runtime that goes on; so many chunks are opened at once.
    #[must_use]
    pub fn new(store: Store, runtime: Handle, at_once: usize) -> Self {
        Self { store, runtime, places: Arc::new(Semaphore::new(at_once)) }
    }

    /// A manifest. Waits, so not to be called on the runtime.
    pub fn manifest(&self, name: Name, key: &TenantKey) -> Result<Manifest, ReadError> {
        self.runtime.block_on(self.store.manifest(name, key))
    }

    /// What each tier did until now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.store.figures()
    }

    /// Retired objects that were read and that others have to put back into service: so many at most.
    #[must_use]
    pub fn to_rescue(&self, most: usize) -> Vec<Name> {
        self.store.to_rescue(most)
    }

    /// Others have done so with these.
    pub fn rescued(&self, names: &[Name]) {
        self.store.rescued(names);
    }

    /// Fetches of one VM.
    pub fn fetches(&self) -> std::io::Result<Fetches> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, receiver) = channel();
        Ok(Fetches { source: self.clone(), bell, sender, receiver })
    }
}

impl Fetches {
    /// Begins one; it arrives whatever becomes of it.
    pub fn begin(&self, id: BundleId, chunk: &ChunkRef, pages: u32) {
        let Source { store, places, .. } = self.source.clone();
        let (chunk, sender, bell) = (chunk.clone(), self.sender.clone(), Arc::clone(&self.bell));
        self.source.runtime.spawn(async move {
            let pages = match places.acquire_owned().await {
                Ok(_place) => store.chunk(&chunk, pages).await,
                Err(_) => Err(ReadError::Stopped),
            };
            // Whoever waited may be gone.
            let _ = sender.send(Arrival { id, pages });
            let _ = rustix::io::write(&bell, &1_u64.to_ne_bytes());
        });
    }

    /// What is readable when something arrived.
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next that arrived.
    #[must_use]
    pub fn next(&self) -> Option<Arrival> {
        if let Ok(arrival) = self.receiver.try_recv() {
            return Some(arrival);
        }
        // Empty the bell first, then look again: what arrives in between rings once more.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        self.receiver.try_recv().ok()
    }
}
