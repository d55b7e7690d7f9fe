//! The tiers as one store.
//!
//! ```text
//! read(name) ─ memory ─▶ hit
//!    │ one flight a name: whoever asks meanwhile waits for the same answer
//!    ▼
//!  disk ─miss, damaged, failed─▶ peers ─miss, failed─▶ origin ─absent─▶ retired ─▶ Absent
//!    │ hit                         │ hit                 │ hit             │ hit: alarm, and back into service first
//!    └──────────── held against its name ────────────────┴─────────────────┘
//!                        │ into memory; in the background onto the disk, and to who is asked first for it
//!                        ▼
//!                      answer
//! a process without a network: memory ─▶ disk ─▶ the origin, if it is in reach ─▶ proxy (`proxy`)
//!
//! put(name) ─▶ origin: durable ─▶ acknowledged; the rest as above
//! ```
//! A tier that is full, slow or broken costs its own answers alone. A flight is a task of its own: a caller that leaves
//! neither stops it for others nor holds a place at the origin without going on.

mod error;
mod proxy;
mod publish;
mod scrub;

pub use error::{PutError, ReadError};
pub use proxy::{Fetched, Proxy, Whence};
pub use publish::PublishError;
pub use scrub::{Pace, Scrubbed};

use crate::{
    l1::{Local, Own},
    l2::{Answer, MAX_OBJECT_BYTES, Peers},
    l3::{Area, Origin, OriginError},
    manifest::{
        ChunkRef, Manifest,
        sealed::{MAX_MANIFEST_BYTES, open_manifest},
    },
    metrics::{Figures, Metrics, add},
    name::{Name, TenantKey},
    pages::PAGE_BYTES,
    seal::open,
};
use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::Semaphore;

/// Objects on their way to the disk and to peers at once; a read waits for neither.
const IN_BACKGROUND: usize = 64;
/// Most retired objects that wait to be put back into service by somebody else. What is beyond is named when it is read again.
const TO_RESCUE_MAX: usize = 4096;

type Flight = Shared<BoxFuture<'static, Result<Fetched, ReadError>>>;

struct Inner {
    local: Local,
    peers: Option<Arc<Peers>>,
    origin: Origin,
    /// Who is asked for what is not in reach.
    proxy: Option<Arc<dyn Proxy>>,
    flights: Mutex<HashMap<(Name, usize), Flight>>,
    /// Retired objects that were read from an origin in which this process can change nothing.
    to_rescue: Mutex<BTreeSet<Name>>,
    background: Arc<Semaphore>,
    metrics: Metrics,
}

/// A store over three tiers. A clone is the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("local", &self.0.local)
            .field("peers", &self.0.peers)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Of this worker's tiers, the other workers where there are any, and the origin.
    #[must_use]
    pub fn new(local: Local, peers: Option<Arc<Peers>>, origin: Origin) -> Self {
        Self::of(local, peers, origin, None)
    }

    /// Of a process without a network: its own tiers, an origin as far as it is in reach, and who fetches what neither has.
    #[must_use]
    pub fn behind(proxy: Arc<dyn Proxy>, local: Local, origin: Origin) -> Self {
        Self::of(local, None, origin, Some(proxy))
    }

    fn of(local: Local, peers: Option<Arc<Peers>>, origin: Origin, proxy: Option<Arc<dyn Proxy>>) -> Self {
        Self(Arc::new(Inner {
            local,
            peers,
            origin,
            proxy,
            flights: Mutex::default(),
            to_rescue: Mutex::default(),
            background: Arc::new(Semaphore::new(IN_BACKGROUND)),
            metrics: Metrics::default(),
        }))
    }

    /// The third tier, for garbage collection.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// This worker's own, for serving others and for pinning.
    #[must_use]
    pub fn local(&self) -> &Local {
        &self.0.local
    }

    /// What happened until now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.0.metrics.figures(self.0.peers.as_deref().map(Peers::counts).unwrap_or_default())
    }

    /// Reads a chunk and opens it: so many pages, those that were sealed.
    pub async fn chunk(&self, chunk: &ChunkRef, pages: u32) -> Result<Vec<u8>, ReadError> {
        let sealed = self.read(chunk.name, MAX_OBJECT_BYTES).await?;
        let length = usize::try_from(pages).unwrap_or(usize::MAX).saturating_mul(PAGE_BYTES);
        Ok(open(&chunk.name, &chunk.key, length, &sealed)?)
    }

    /// Reads a manifest and judges it.
    pub async fn manifest(&self, name: Name, key: &TenantKey) -> Result<Manifest, ReadError> {
        Ok(open_manifest(&self.read(name, MAX_MANIFEST_BYTES).await?, key)?)
    }

    /// Reads a sealed object of at most `most` bytes, held against its name.
    pub async fn read(&self, name: Name, most: usize) -> Result<Bytes, ReadError> {
        self.find(name, most).await.map(|fetched| fetched.sealed)
    }

    /// The same, with where it was.
    pub async fn find(&self, name: Name, most: usize) -> Result<Fetched, ReadError> {
        let begin = Instant::now();
        if let Some(sealed) = self.0.local.remembered(name) {
            self.0.metrics.memory.hit(sealed.len(), begin.elapsed());
            return Ok(Fetched { sealed, from: Whence::Memory });
        }
        self.flight(name, most).await
    }

    fn flight(&self, name: Name, most: usize) -> Flight {
        let mut flights = lock(&self.0.flights);
        if let Some(flight) = flights.get(&(name, most)) {
            add(&self.0.metrics.joined, 1);
            return flight.clone();
        }
        let inner = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let _landed = Landed { inner: &inner, flight: (name, most) };
            inner.fetch(name, most).await
        });
        let flight = task.map(|done| done.unwrap_or(Err(ReadError::Stopped))).boxed().shared();
        flights.insert((name, most), flight.clone());
        flight
    }

    /// Puts a retired object back into service, as reading it does. That it is in service already is as good.
    pub async fn rescue(&self, name: Name) -> Result<(), ReadError> {
        match self.0.origin.held(Area::Live, name).await {
            Err(OriginError::Absent) => Ok(self.0.retired(name, MAX_MANIFEST_BYTES).await.map(drop)?),
            looked => Ok(looked.map(drop)?),
        }
    }

    /// Retired objects that were read from an origin in which this process can change nothing: so many at most, for who can.
    #[must_use]
    pub fn to_rescue(&self, most: usize) -> Vec<Name> {
        lock(&self.0.to_rescue).iter().take(most).copied().collect()
    }

    /// These are in service again.
    pub fn rescued(&self, names: &[Name]) {
        let mut waiting = lock(&self.0.to_rescue);
        for name in names {
            waiting.remove(name);
        }
    }

    /// Keeps an object durably; `false` if it was there. What is not of its name is refused.
    pub async fn put(&self, name: Name, sealed: Bytes) -> Result<bool, PutError> {
        if sealed.len() > MAX_MANIFEST_BYTES {
            return Err(PutError::TooLarge);
        }
        if !name.is_of(&sealed) {
            return Err(PutError::NotItsName);
        }
        let fresh = self.0.origin.put(name, sealed.clone()).await?;
        self.0.spread(name, &sealed, fresh);
        Ok(fresh)
    }
}

/// Whatever a flight comes to, the next reader begins another.
struct Landed<'a> {
    inner: &'a Inner,
    flight: (Name, usize),
}

impl Drop for Landed<'_> {
    fn drop(&mut self) {
        lock(&self.inner.flights).remove(&self.flight);
    }
}

impl Inner {
    async fn fetch(self: &Arc<Self>, name: Name, most: usize) -> Result<Fetched, ReadError> {
        let begin = Instant::now();
        match self.local.get(name).await {
            Own::Memory(sealed) => {
                self.metrics.memory.hit(sealed.len(), begin.elapsed());
                return Ok(Fetched { sealed, from: Whence::Memory });
            }
            Own::Disk(sealed) => {
                self.metrics.memory.miss();
                self.metrics.disk.hit(sealed.len(), begin.elapsed());
                return Ok(Fetched { sealed, from: Whence::Disk });
            }
            Own::Miss => self.metrics.disk.miss(),
            Own::Damaged => {
                self.metrics.disk.damaged();
                tracing::warn!(%name, "this worker's copy was not of its name any more, and is dropped");
            }
            Own::Failed(error) => {
                self.metrics.disk.failed();
                tracing::warn!(%name, error = &error as &dyn std::error::Error, "this worker's disk cannot be read");
            }
        }
        self.metrics.memory.miss();
        if let Some(peers) = &self.peers {
            let begin = Instant::now();
            match peers.get(name, most).await {
                Answer::Hit(sealed) => {
                    self.metrics.peers.hit(sealed.len(), begin.elapsed());
                    self.spread(name, &sealed, false);
                    return Ok(Fetched { sealed, from: Whence::Peers });
                }
                Answer::Miss => self.metrics.peers.miss(),
                Answer::Failed => self.metrics.peers.failed(),
            }
        }
        let begin = Instant::now();
        let answer = match self.origin.get(Area::Live, name, most).await {
            Err(OriginError::Absent) => self.retired(name, most).await,
            answer => answer,
        };
        match answer {
            Ok(sealed) => {
                self.metrics.origin.hit(sealed.len(), begin.elapsed());
                self.spread(name, &sealed, true);
                Ok(Fetched { sealed, from: Whence::Origin })
            }
            Err(error) => {
                match &error {
                    // One that is out of reach has none of them, and is asked through the proxy.
                    OriginError::Absent if self.proxy.is_some() => {}
                    OriginError::Absent => self.metrics.origin.miss(),
                    OriginError::Damaged => self.metrics.origin.damaged(),
                    _ => self.metrics.origin.failed(),
                }
                match self.proxy.as_deref() {
                    Some(proxy) => self.through(proxy, (name, most), error).await,
                    None => Err(error.into()),
                }
            }
        }
    }

    /// What garbage collection took out of service is read for a root it does not know. It goes back into service before
    /// anybody has it, so that the next collection does not delete it. Who can change nothing there remembers it for who can.
    async fn retired(&self, name: Name, most: usize) -> Result<Bytes, OriginError> {
        let sealed = self.origin.get(Area::Retired, name, most).await?;
        add(&self.metrics.retired_reads, 1);
        tracing::error!(%name, "a retired object is read: a root is missing from garbage collection");
        if self.origin.is_read_only() {
            let mut waiting = lock(&self.to_rescue);
            if waiting.len() < TO_RESCUE_MAX {
                waiting.insert(name);
            }
            return Ok(sealed);
        }
        if let Err(error) = self.origin.put(name, sealed.clone()).await {
            // The reader has what it asked for; the counter stands, and whoever collects looks at it first.
            tracing::error!(%name, error = &error as &dyn std::error::Error, "it cannot be put back into service");
        }
        Ok(sealed)
    }

    /// Into memory at once; onto the disk, and to the worker that is asked first for it, when there is time.
    fn spread(self: &Arc<Self>, name: Name, sealed: &Bytes, offer: bool) {
        self.local.remember(name, sealed.clone());
        let Ok(place) = Arc::clone(&self.background).try_acquire_owned() else {
            add(&self.metrics.fills_left, 1);
            return;
        };
        let (inner, sealed) = (Arc::clone(self), sealed.clone());
        tokio::spawn(async move {
            if let Err(error) = inner.local.keep(name, sealed.clone()).await {
                inner.metrics.disk.failed();
                tracing::debug!(%name, error = &error as &dyn std::error::Error, "not kept on this worker's disk");
            }
            if let Some(peers) = inner.peers.as_ref().filter(|_| offer) {
                peers.offer(name, sealed).await;
            }
            drop(place);
        });
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
