//! What each tier did: hits, misses, failures, and how long hits took.

use crate::l2::peers::PeerCounts;
use hdrhistogram::Histogram;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The longest time that is told from longer ones.
const LONGEST_US: u64 = 60_000_000;

/// Counts of one tier.
#[derive(Debug)]
pub(crate) struct Tier {
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
    /// `None` only if its bounds were impossible, which they are not.
    times: Option<Mutex<Histogram<u64>>>,
}

impl Default for Tier {
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST_US, 2).ok().map(Mutex::new);
        let zero = || AtomicU64::new(0);
        Self { hits: zero(), misses: zero(), damaged: zero(), failures: zero(), bytes: zero(), times }
    }
}

impl Tier {
    pub(crate) fn hit(&self, bytes: usize, took: Duration) {
        add(&self.hits, 1);
        add(&self.bytes, bytes as u64);
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
        if let Some(times) = &self.times {
            times.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros.max(1));
        }
    }

    pub(crate) fn miss(&self) {
        add(&self.misses, 1);
    }

    pub(crate) fn damaged(&self) {
        add(&self.damaged, 1);
    }

    pub(crate) fn failed(&self) {
        add(&self.failures, 1);
    }

    fn figures(&self) -> TierFigures {
        let at = |quantile| {
            let times = self.times.as_ref().map(|times| times.lock().unwrap_or_else(PoisonError::into_inner));
            Duration::from_micros(times.map_or(0, |times| times.value_at_quantile(quantile)))
        };
        TierFigures {
            hits: get(&self.hits),
            misses: get(&self.misses),
            damaged: get(&self.damaged),
            failures: get(&self.failures),
            bytes: get(&self.bytes),
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
        }
    }
}

/// What one tier did until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierFigures {
    /// Reads it answered.
    pub hits: u64,
    /// Reads it had nothing for.
    pub misses: u64,
    /// Reads it had other bytes for than were asked.
    pub damaged: u64,
    /// Reads and writes that failed.
    pub failures: u64,
    /// Bytes of its hits.
    pub bytes: u64,
    /// How long half of its hits took at most.
    pub p50: Duration,
    /// 95 of a hundred.
    pub p95: Duration,
    /// 99 of a hundred.
    pub p99: Duration,
}

impl TierFigures {
    /// Hits of all who asked; `None` if nobody did.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn hit_ratio(&self) -> Option<f64> {
        let asked = self.hits + self.misses + self.damaged + self.failures;
        (asked > 0).then(|| self.hits as f64 / asked as f64)
    }
}

/// Counts of a store.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) memory: Tier,
    pub(crate) disk: Tier,
    pub(crate) peers: Tier,
    pub(crate) origin: Tier,
    pub(crate) proxy: Tier,
    pub(crate) joined: AtomicU64,
    pub(crate) retired_reads: AtomicU64,
    pub(crate) fills_left: AtomicU64,
}

impl Metrics {
    pub(crate) fn figures(&self, asked: PeerCounts) -> Figures {
        Figures {
            memory: self.memory.figures(),
            disk: self.disk.figures(),
            peers: self.peers.figures(),
            origin: self.origin.figures(),
            proxy: self.proxy.figures(),
            asked,
            joined: get(&self.joined),
            retired_reads: get(&self.retired_reads),
            fills_left: get(&self.fills_left),
        }
    }
}

/// What a store did until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The first tier's memory.
    pub memory: TierFigures,
    /// The first tier's disk.
    pub disk: TierFigures,
    /// The second tier.
    pub peers: TierFigures,
    /// The third.
    pub origin: TierFigures,
    /// Of a process that asks another: hits are what that one had itself. What it had from its peers or the origin is theirs.
    pub proxy: TierFigures,
    /// How peers were asked.
    pub asked: PeerCounts,
    /// Reads that joined one that was under way.
    pub joined: u64,
    /// **Alarm**: reads of what garbage collection had taken out of service. Each says that a root is missing.
    pub retired_reads: u64,
    /// Objects that were not written to the disk or offered, because too much was under way.
    pub fills_left: u64,
}

pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
