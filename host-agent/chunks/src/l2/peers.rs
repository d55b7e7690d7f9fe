//! Asking other workers.
//!
//! ```text
//! the first in line is asked ──true answer──▶ Hit
//!   │ it has none, failed or lied: the second at once
//!   │ it is later than 95 of 100 were: the second too, the first to answer truly wins
//!   ▼
//! both have none ──▶ Miss          neither answered ──▶ Failed          (the origin is next, whichever it is)
//! ```

use super::{
    MAX_OBJECT_BYTES,
    health::Health,
    rendezvous::ranked,
    v1::{GetRequest, OfferRequest, chunks_client::ChunksClient},
};
use crate::name::Name;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::FuturesUnordered};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tonic::{Code, transport::Channel};

/// Answers that the 95th of a hundred is computed over.
const REMEMBERED: usize = 256;
/// How many are needed before it means something.
const ENOUGH: usize = 16;

/// Another worker.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What everybody calls it: ranks are computed from it.
    pub id: String,
    /// The way to it, with its identity checked.
    pub channel: Channel,
}

/// How peers are asked.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Questions at once; beyond, the origin is asked without them.
    pub at_once: usize,
    /// Of one question to one peer.
    pub deadline: Duration,
    /// The second is asked no sooner than this,
    pub hedge_least: Duration,
    /// and no later than this.
    pub hedge_most: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            at_once: 64,
            deadline: Duration::from_secs(2),
            hedge_least: Duration::from_millis(1),
            hedge_most: Duration::from_millis(50),
        }
    }
}

/// What peers said.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The bytes of that name.
    Hit(Bytes),
    /// Nobody who was asked has it, or there was nobody to ask.
    Miss,
    /// Who was asked did not answer.
    Failed,
}

/// What happened until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Second questions because the first was late.
    pub hedged: u64,
    /// Of those, who won.
    pub hedges_won: u64,
    /// Answers that were other bytes.
    pub lies: u64,
    /// Questions that were not answered.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Counters {
    hedged: AtomicU64,
    hedges_won: AtomicU64,
    lies: AtomicU64,
    failures: AtomicU64,
}

enum Told {
    Truly(Bytes),
    Absent,
    Failed,
    Lied,
}

struct Known {
    peer: Peer,
    health: Mutex<Health>,
}

/// The other workers of the fleet.
pub struct Peers {
    own: String,
    /// As of the last [`Peers::replace`]; a question goes to those that were known when it began.
    known: Mutex<Arc<[Arc<Known>]>>,
    limits: PeerLimits,
    places: Semaphore,
    begun: Instant,
    recent: Mutex<VecDeque<Duration>>,
    counters: Counters,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("own", &self.own)
            .field("others", &self.known().len())
            .finish_non_exhaustive()
    }
}

impl Peers {
    /// This worker's own id, and the others.
    #[must_use]
    pub fn new(own: String, others: Vec<Peer>, limits: PeerLimits) -> Self {
        let peers = Self {
            own,
            known: Mutex::new(Arc::new([])),
            limits,
            places: Semaphore::new(limits.at_once),
            begun: Instant::now(),
            recent: Mutex::default(),
            counters: Counters::default(),
        };
        peers.replace(others);
        peers
    }

    /// From now on these are the others. Who stays is trusted as far as before, by whatever way it is reached now.
    pub fn replace(&self, others: Vec<Peer>) {
        let before = self.known();
        let known = others.into_iter().filter(|peer| peer.id != self.own).map(|peer| {
            let same = before.iter().find(|known| known.peer.id == peer.id);
            let health = same.map_or_else(Health::default, |known| *lock(&known.health));
            Arc::new(Known { peer, health: Mutex::new(health) })
        });
        *lock(&self.known) = known.collect();
    }

    /// How many others there are.
    #[must_use]
    pub fn others(&self) -> usize {
        self.known().len()
    }

    fn known(&self) -> Arc<[Arc<Known>]> {
        Arc::clone(&lock(&self.known))
    }

    /// Asks for an object of at most `most` bytes.
    pub async fn get(&self, name: Name, most: usize) -> Answer {
        let Ok(_place) = self.places.try_acquire() else { return Answer::Miss };
        let now = self.begun.elapsed();
        let line = self.in_line(name);
        let mut line = line.into_iter().filter(|known| lock(&known.health).may_be_asked(now));
        let Some(first) = line.next() else { return Answer::Miss };
        let mut second = line.next();
        let mut asked = FuturesUnordered::new();
        asked.push(self.ask(Arc::clone(&first), name, most));
        let late = sleep(self.hedge_after());
        tokio::pin!(late);
        let (mut hedged, mut failed) = (false, false);
        loop {
            tokio::select! {
                biased;
                Some((who, told)) = asked.next() => {
                    match told {
                        Told::Truly(sealed) => {
                            if hedged && !Arc::ptr_eq(&who, &first) {
                                self.counters.hedges_won.fetch_add(1, Ordering::Relaxed);
                                // Outrun counts as late: who never answers is left alone, not waited for each time.
                                lock(&first.health).failed(self.begun.elapsed());
                            }
                            return Answer::Hit(sealed);
                        }
                        Told::Absent => {}
                        Told::Failed | Told::Lied => failed = true,
                    }
                    if let Some(next) = second.take() {
                        asked.push(self.ask(next, name, most));
                    } else if asked.is_empty() {
                        return if failed { Answer::Failed } else { Answer::Miss };
                    }
                }
                () = &mut late, if second.is_some() => {
                    if let Some(next) = second.take() {
                        hedged = true;
                        self.counters.hedged.fetch_add(1, Ordering::Relaxed);
                        asked.push(self.ask(next, name, most));
                    }
                }
            }
        }
    }

    /// Tells whoever is asked first for a name to keep it. A hint: what comes of it is not told.
    pub async fn offer(&self, name: Name, sealed: Bytes) {
        let now = self.begun.elapsed();
        let Some(known) = self.in_line(name).into_iter().next() else { return };
        if sealed.len() > MAX_OBJECT_BYTES || !lock(&known.health).may_be_asked(now) {
            return;
        }
        let Ok(_place) = self.places.try_acquire() else { return };
        let mut client = ChunksClient::new(known.peer.channel.clone());
        let offer = OfferRequest { name: Bytes::copy_from_slice(&name.0), sealed };
        if !matches!(timeout(self.limits.deadline, client.offer(offer)).await, Ok(Ok(_))) {
            self.failed(&known);
        }
    }

    /// What happened until now.
    #[must_use]
    pub fn counts(&self) -> PeerCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerCounts {
            hedged: read(&self.counters.hedged),
            hedges_won: read(&self.counters.hedges_won),
            lies: read(&self.counters.lies),
            failures: read(&self.counters.failures),
        }
    }

    /// The two that are asked for a name: of all workers, this one too, the first two others.
    fn in_line(&self, name: Name) -> Vec<Arc<Known>> {
        let known = self.known();
        let ids = known.iter().map(|known| known.peer.id.as_str());
        ranked(name, ids).into_iter().take(2).filter_map(|place| known.get(place).cloned()).collect()
    }

    async fn ask(&self, known: Arc<Known>, name: Name, most: usize) -> (Arc<Known>, Told) {
        let begin = Instant::now();
        let told = timeout(self.limits.deadline, fetch(known.peer.channel.clone(), name, most));
        let told = told.await.unwrap_or(Told::Failed);
        match &told {
            Told::Truly(_) => {
                lock(&known.health).succeeded();
                let mut recent = lock(&self.recent);
                recent.push_back(begin.elapsed());
                if recent.len() > REMEMBERED {
                    recent.pop_front();
                }
            }
            Told::Absent => lock(&known.health).succeeded(),
            Told::Failed => self.failed(&known),
            Told::Lied => {
                self.counters.lies.fetch_add(1, Ordering::Relaxed);
                lock(&known.health).lied(self.begun.elapsed());
                tracing::warn!(peer = known.peer.id, %name, "a peer gave other bytes than it was asked for");
            }
        }
        (known, told)
    }

    fn failed(&self, known: &Known) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        lock(&known.health).failed(self.begun.elapsed());
    }

    fn hedge_after(&self) -> Duration {
        let mut recent: Vec<Duration> = lock(&self.recent).iter().copied().collect();
        if recent.len() < ENOUGH {
            return self.limits.hedge_most;
        }
        let at = recent.len() * 95 / 100;
        let (_, p95, _) = recent.select_nth_unstable(at);
        (*p95).clamp(self.limits.hedge_least, self.limits.hedge_most)
    }
}

/// One question to one peer: bounded in bytes, and nothing of it is believed.
async fn fetch(channel: Channel, name: Name, most: usize) -> Told {
    let most = most.min(MAX_OBJECT_BYTES);
    let mut client = ChunksClient::new(channel).max_decoding_message_size(2 * super::PIECE_BYTES);
    let mut pieces = match client.get(GetRequest { name: Bytes::copy_from_slice(&name.0) }).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if matches!(status.code(), Code::NotFound | Code::ResourceExhausted) => {
            return Told::Absent;
        }
        Err(_) => return Told::Failed,
    };
    let mut sealed = BytesMut::new();
    loop {
        match pieces.message().await {
            Ok(Some(piece)) if sealed.len().saturating_add(piece.data.len()) > most => return Told::Lied,
            Ok(Some(piece)) => sealed.extend_from_slice(&piece.data),
            Ok(None) if name.is_of(&sealed) => return Told::Truly(sealed.freeze()),
            Ok(None) => return Told::Lied,
            Err(_) => return Told::Failed,
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
