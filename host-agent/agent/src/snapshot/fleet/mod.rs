//! Snapshots of the fleet: what one host made, every other may start from.
//!
//! ```text
//!  made, kept ─▶ waiting ─▶ cut ─▶ chunks, manifests ─▶ entry, signed ─▶ in the origin
//!                  ▲ │ full, slow, forbidden, away: said, counted, tried again with the next one made
//!                  ╰─╯
//!  not kept ─▶ entry? ─ absent ─▶ (remembered for a moment) boots, and makes one
//!               │ refused: by form, signer, time, generation, key, what it was made of ─▶ the same, and it is replaced
//!               ▼
//!              judged ─ fetched whole, digests those signed ─▶ kept
//! ```
//! - The origin is believed nothing: an entry counts for its signature by a worker of this fleet, chunks for their names.
//! - No request waits for a copy to be sent; a cold start waits for an answer of the origin within a bound, and then boots.
//! - An entry stands as long as it is good: the first of several hosts that make one at once is the one that all use.
//!
//! Modules: `place` where the origin is, `entry` what is signed (pure), `book` what is remembered (pure), `image` memory and disk as
//! images and back, `publish` and `fetch` the two ways, `relearn` access logs, `collect` garbage, `scrub` damage, `tiers` where chunks are,
//! `neighbours` who else has some, `keys` what is derived from the fleet's secret.

mod book;
mod collect;
mod entry;
mod fetch;
mod image;
mod keys;
mod neighbours;
mod place;
mod publish;
mod relearn;
mod scrub;
mod tiers;

pub use entry::{EntryError, FleetSnapshot, Stored};
pub use fetch::FetchError;
pub use place::{BadPlace, Place};
pub use relearn::RelearnError;

pub(super) use collect::Named;

use crate::config::Config;
use anyhow::Context as _;
use book::{Answer, Book, Copy, Refusal};
use keys::Keys;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tiers::Tiers;
use tokio::time::timeout;
use warren_artefact::{Digest, SnapshotKey, SnapshotOf};
use warren_chunks::{
    Name, Store,
    l2::{self, v1::chunks_server::ChunksServer},
    l3::{EntryName, OriginError},
    store::{Fetched, ReadError},
};
use warren_identity::Credentials;
use warren_proto::v1;

/// How long a cold start waits for the origin's answer.
const ON_THE_PATH: Duration = Duration::from_millis(250);
/// How long whoever makes one does, and who removes one.
const OFF_THE_PATH: Duration = Duration::from_secs(5);

/// The fleet's snapshots, as this host reaches them.
#[derive(Debug)]
pub struct Fleet {
    tiers: Tiers,
    keys: Keys,
    credentials: Credentials,
    /// Of what is published here, and the least that is believed.
    generation: u32,
    book: Mutex<Book>,
    counts: Counts,
}

/// What lies under a key.
#[derive(Debug)]
enum Entry {
    /// One that is believed, though this host may have no use for it.
    Good(Arc<FleetSnapshot>),
    /// None.
    None,
    /// One that is not believed: another one may take its place.
    Refused,
}

/// What was done since the agent started.
#[derive(Debug, Default)]
struct Counts {
    published: AtomicU64,
    not_published: AtomicU64,
    new_bytes: AtomicU64,
    shared_bytes: AtomicU64,
    fetched: AtomicU64,
    not_fetched: AtomicU64,
    refused: AtomicU64,
}

impl Fleet {
    /// As the command line says; `None` if it names no origin.
    pub fn open(config: &Config, credentials: &Credentials) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(place) = config.snapshot_origin.clone() else { return Ok(None) };
        let keys = Keys::load(&config.identity).context("snapshots cannot be shared")?;
        let generation = config.snapshot_min_generation;
        Ok(Some(Arc::new(Self {
            tiers: Tiers::open(config, place, credentials)?,
            keys,
            credentials: credentials.clone(),
            generation,
            book: Mutex::default(),
            counts: Counts::default(),
        })))
    }

    /// The fleet's snapshot of exactly this, within what a cold start can wait.
    pub async fn find(&self, of: &SnapshotOf) -> Option<Arc<FleetSnapshot>> {
        self.look(of, ON_THE_PATH).await
    }

    /// The same for who has more time.
    pub(super) async fn find_patiently(&self, of: &SnapshotOf) -> Option<Arc<FleetSnapshot>> {
        self.look(of, OFF_THE_PATH).await
    }

    async fn look(&self, of: &SnapshotOf, patience: Duration) -> Option<Arc<FleetSnapshot>> {
        match self.book().answer(of.key(), Instant::now()) {
            Answer::Known(known) => return Some(known),
            Answer::NotNow => return None,
            Answer::Ask => {}
        }
        let Ok(asked) = timeout(patience, self.ask(of)).await else {
            self.away(&OriginError::Slow);
            return None;
        };
        asked.ok().flatten()
    }

    async fn ask(&self, of: &SnapshotOf) -> Result<Option<Arc<FleetSnapshot>>, OriginError> {
        match self.read(of).await? {
            Entry::Good(found) => Ok(self.book().usable(&found)),
            Entry::None | Entry::Refused => Ok(None),
        }
    }

    /// Reads an entry and judges it.
    async fn read(&self, of: &SnapshotOf) -> Result<Entry, OriginError> {
        let key = of.key();
        let read = match self.store().await {
            Ok(store) => store.origin().entry(named(key), entry::MAX_BYTES).await,
            Err(error) => Err(error),
        };
        let judged = match read {
            Ok(bytes) => self.judge(of, &bytes),
            Err(OriginError::Absent) => {
                self.book().absent(key, Instant::now());
                return Ok(Entry::None);
            }
            // Nobody writes one that long.
            Err(OriginError::Damaged) => Err(EntryError::TooLong),
            Err(error) => {
                self.away(&error);
                return Err(error);
            }
        };
        match judged {
            Ok(found) => {
                let found = Arc::new(found);
                self.book().known(&found, Instant::now());
                Ok(Entry::Good(found))
            }
            Err(error) => {
                add(&self.counts.refused, 1);
                let (function, error) = (&of.function, anyhow::Error::from(error));
                tracing::warn!(function, %key, "an entry of the fleet's snapshots is refused: {error:#}");
                self.book().absent(key, Instant::now());
                Ok(Entry::Refused)
            }
        }
    }

    fn judge(&self, of: &SnapshotOf, bytes: &[u8]) -> Result<FleetSnapshot, EntryError> {
        let now = SystemTime::now();
        let judged =
            entry::judge(&self.credentials.verifier(), of.key(), bytes, now, self.generation, &self.keys)?;
        if judged.head.of() == of { Ok(judged) } else { Err(EntryError::Other) }
    }

    /// A VMM of this host did not take the one with this memory: not again, here.
    pub(super) fn refused(&self, key: SnapshotKey, memory: Digest) {
        self.book().refuse(key, memory, Refusal::Vmm);
    }

    /// It could not be published this time.
    pub(super) fn not_published(&self, of: SnapshotOf, why: String) {
        add(&self.counts.not_published, 1);
        self.book().not_sent(of, why);
    }

    /// Takes its entry away, for all hosts.
    pub(super) async fn remove(&self, key: SnapshotKey) -> Result<bool, OriginError> {
        self.book().forget(key);
        let removed = timeout(OFF_THE_PATH, async {
            let store = self.store().await?;
            let there = match store.origin().held_entry(named(key)).await {
                Ok(_) => true,
                Err(OriginError::Absent) => false,
                Err(error) => return Err(error),
            };
            store.origin().remove_entry(named(key)).await?;
            Ok(there)
        });
        removed.await.unwrap_or(Err(OriginError::Slow))
    }

    /// Puts a retired object back into service.
    pub(super) async fn rescue(&self, name: Name) -> Result<(), ReadError> {
        self.store().await?.rescue(name).await
    }

    /// A sealed object of at most `most` bytes, from whichever tier has it.
    pub async fn object(&self, name: Name, most: usize) -> Result<Fetched, ReadError> {
        self.store().await?.find(name, most).await
    }

    /// The store of chunks and manifests.
    pub(super) async fn store(&self) -> Result<Store, OriginError> {
        self.tiers.store().await
    }

    /// What neighbours ask: who may is the server's affair.
    pub fn server(&self) -> ChunksServer<l2::Service> {
        self.tiers.server()
    }

    /// The list of neighbours that there is; 0: none.
    #[must_use]
    pub fn neighbours(&self) -> u64 {
        self.tiers.neighbours.revision()
    }

    /// Takes another list of them. Must be called inside the runtime.
    pub fn meet(&self, list: v1::Neighbours) {
        self.tiers.neighbours.meet(list);
    }

    /// Said once in a while: nobody asks it again for a moment.
    fn away(&self, error: &OriginError) {
        if self.book().away(Instant::now()) {
            let origin = &self.tiers.place;
            tracing::warn!(%origin, "the fleet's snapshots cannot be reached, cold starts go on without: {error}");
        }
    }

    /// What was done since the agent started, and what happened to its chunks.
    #[must_use]
    pub fn figures(&self) -> v1::SharedSnapshots {
        let Counts { published, not_published, new_bytes, shared_bytes, fetched, not_fetched, refused } =
            &self.counts;
        let mut told = v1::SharedSnapshots {
            published: get(published),
            not_published: get(not_published),
            new_bytes: get(new_bytes),
            shared_bytes: get(shared_bytes),
            fetched: get(fetched),
            not_fetched: get(not_fetched),
            refused_entries: get(refused),
            ..v1::SharedSnapshots::default()
        };
        self.tiers.tell(&mut told);
        told
    }

    /// What a list says of the fleet's copy of one that is kept here.
    pub(super) fn told(&self, key: SnapshotKey, one: &mut v1::Snapshot) {
        let (origin, stored, reason) = match self.book().copy(key) {
            None => return,
            Some(Copy::OnItsWay) => (v1::OriginCopy::OnItsWay, Stored::default(), String::new()),
            Some(Copy::There(stored)) => (v1::OriginCopy::There, *stored, String::new()),
            Some(Copy::Failed(why)) => (v1::OriginCopy::Failed, Stored::default(), why.clone()),
        };
        one.set_origin(origin);
        (one.origin_new_bytes, one.origin_shared_bytes) = (stored.new_bytes, stored.shared_bytes);
        one.origin_reason = reason;
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        // Whole between any two statements.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the entry of a snapshot is.
const fn named(key: SnapshotKey) -> EntryName {
    EntryName(key.to_bytes())
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
