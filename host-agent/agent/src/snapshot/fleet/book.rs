//! What is remembered of the fleet's snapshots: answers of the origin, what this host cannot use, what is on its way there. No clock,
//! no lock, no socket.
//!
//! ```text
//! answer   ask ─▶ known (for a minute) or absent (for seconds) ─▶ ask
//!          away: nothing is asked for seconds, whatever is known is still used
//! copy     (none) ─▶ waiting ─▶ sending ─┬─ there
//!                       ▲                ╰─ failed ── with the next one that waits ─▶ waiting
//!                       ╰───────────────────────┘
//! ```
//! All of it is bounded; what is forgotten is asked again.

use super::{FleetSnapshot, Stored};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use warren_artefact::{Digest, GuestOf, SnapshotKey, SnapshotOf};

/// How long an entry that was read counts: as long a removed one is still used.
const KNOWN: Duration = Duration::from_mins(1);
/// How long an absent one is not asked for again.
const ABSENT: Duration = Duration::from_secs(5);
/// How long an origin that failed is not asked.
const AWAY: Duration = Duration::from_secs(5);
/// Most of each kind that are remembered.
const MOST: usize = 1024;
/// Most bytes of a reason.
const MOST_REASON: usize = 1024;

/// What is known before anybody asks.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was read lately.
    Known(Arc<FleetSnapshot>),
    /// It is not there, of no use here, or the origin is away: for now.
    NotNow,
    /// Nothing.
    Ask,
}

/// Why one is of no use to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its VMM does not take it: it is of another processor, perhaps. Others may.
    Vmm,
    /// What it names is not there, or not what it says: another one may take its place.
    Broken,
}

/// The fleet's copy of a snapshot that this host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// It waits for its turn, or is being sent.
    OnItsWay,
    /// The origin has it, this host's or another's.
    There(Stored),
    /// Not this time.
    Failed(String),
}

/// What functions have in common whose memories are alike page by page: the guest program that was loaded before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RuntimeOf {
    program: Digest,
    isa: u64,
}

impl RuntimeOf {
    /// `None`: each boot of it puts its pages elsewhere. A Linux function's is told by [its runtime's](SnapshotOf::runtime) alone.
    pub(super) const fn of(of: &SnapshotOf) -> Option<Self> {
        match of.guest {
            GuestOf::Wasm { program, isa, .. } => Some(Self { program, isa: isa.0 }),
            GuestOf::Linux { .. } => None,
        }
    }
}

/// The book.
#[derive(Debug, Default)]
pub(in super::super) struct Book {
    answers: HashMap<SnapshotKey, (Instant, Option<Arc<FleetSnapshot>>)>,
    away: Option<Instant>,
    refused: HashMap<SnapshotKey, (Digest, Refusal)>,
    copies: HashMap<SnapshotKey, Copy>,
    /// Of each runtime one that the fleet has whole: others of it are told by how they differ.
    bases: HashMap<RuntimeOf, SnapshotOf>,
    waiting: VecDeque<SnapshotOf>,
    failed: Vec<SnapshotOf>,
    sending: bool,
}

impl Book {
    /// What is known of a key now.
    pub(super) fn answer(&self, key: SnapshotKey, now: Instant) -> Answer {
        let away = self.away.is_some_and(|since| now.saturating_duration_since(since) < AWAY);
        let Some((at, answer)) = self.answers.get(&key) else {
            return if away { Answer::NotNow } else { Answer::Ask };
        };
        let age = now.saturating_duration_since(*at);
        match answer {
            Some(found) if age < KNOWN || away => self.usable(found).map_or(Answer::NotNow, Answer::Known),
            None if age < ABSENT => Answer::NotNow,
            _ if away => Answer::NotNow,
            _ => Answer::Ask,
        }
    }

    /// It was read, and is good.
    pub(super) fn known(&mut self, found: &Arc<FleetSnapshot>, now: Instant) {
        self.away = None;
        bounded(&mut self.answers, found.head.of().key(), (now, Some(Arc::clone(found))));
    }

    /// It is not there, or what is there is not believed.
    pub(super) fn absent(&mut self, key: SnapshotKey, now: Instant) {
        self.away = None;
        bounded(&mut self.answers, key, (now, None));
    }

    /// The origin did not answer. Whether that is news.
    pub(super) fn away(&mut self, now: Instant) -> bool {
        let known = self.away.is_some_and(|since| now.saturating_duration_since(since) < AWAY);
        if !known {
            self.away = Some(now);
        }
        !known
    }

    /// The one with this memory is of no use here.
    pub(super) fn refuse(&mut self, key: SnapshotKey, memory: Digest, why: Refusal) {
        bounded(&mut self.refused, key, (memory, why));
    }

    /// Why it is of no use here, if it is not.
    pub(super) fn refusal(&self, found: &FleetSnapshot) -> Option<Refusal> {
        let (memory, why) = self.refused.get(&found.head.of().key())?;
        (*memory == found.head.memory()).then_some(*why)
    }

    /// It, if it is of use here.
    pub(super) fn usable(&self, found: &Arc<FleetSnapshot>) -> Option<Arc<FleetSnapshot>> {
        self.refusal(found).is_none().then(|| Arc::clone(found))
    }

    /// One more is to be sent, and with it those that could not be. True: nobody is at it.
    pub(in super::super) fn enqueue(&mut self, of: SnapshotOf) -> bool {
        for of in std::mem::take(&mut self.failed).into_iter().chain([of]) {
            let waits = self.waiting.iter().any(|one| *one == of);
            if !waits && self.waiting.len() < MOST {
                bounded(&mut self.copies, of.key(), Copy::OnItsWay);
                self.waiting.push_back(of);
            }
        }
        !std::mem::replace(&mut self.sending, true)
    }

    /// The next one to send: what others are told by first. `None`: there is none, and nobody is at it any more.
    pub(in super::super) fn next(&mut self) -> Option<SnapshotOf> {
        let runtime = self.waiting.iter().position(SnapshotOf::is_runtime);
        let next = self.waiting.remove(runtime.unwrap_or(0));
        self.sending = next.is_some();
        next
    }

    /// One was sent. False: it was removed meanwhile.
    pub(in super::super) fn sent(&mut self, key: SnapshotKey, stored: Stored) -> bool {
        let wanted = self.copies.get_mut(&key);
        wanted.is_some_and(|copy| {
            *copy = Copy::There(stored);
            true
        })
    }

    /// One could not be sent this time.
    pub(super) fn not_sent(&mut self, of: SnapshotOf, mut why: String) {
        let key = of.key();
        if let Some(copy) = self.copies.get_mut(&key) {
            why.truncate(why.floor_char_boundary(MOST_REASON));
            *copy = Copy::Failed(why);
            if self.failed.len() < MOST {
                self.failed.push(of);
            }
        }
    }

    /// One that is kept here came from there.
    pub(in super::super) fn came(&mut self, key: SnapshotKey, stored: Stored) {
        bounded(&mut self.copies, key, Copy::There(stored));
    }

    /// The fleet has this one whole: the first of its runtime is a base, as long as it is there.
    pub(super) fn is_whole(&mut self, of: &SnapshotOf) {
        let Some(runtime) = RuntimeOf::of(of) else { return };
        if self.bases.len() < MOST {
            self.bases.entry(runtime).or_insert_with(|| of.clone());
        }
    }

    /// Whether what was read of a key lately, and is of use here, is another than the one with this memory.
    pub(in super::super) fn has_another(&self, key: SnapshotKey, memory: Digest) -> bool {
        let found = self.answers.get(&key).and_then(|(_, found)| found.as_ref());
        found.is_some_and(|found| found.head.memory() != memory && self.refusal(found).is_none())
    }

    /// What another of this one's runtime may be told by.
    pub(in super::super) fn base(&self, of: &SnapshotOf) -> Option<SnapshotOf> {
        if let Some(runtime) = of.runtime() {
            return Some(runtime);
        }
        self.bases.get(&RuntimeOf::of(of)?).filter(|base| *base != of).cloned()
    }

    /// It is no base any more.
    pub(super) fn not_whole(&mut self, of: &SnapshotOf) {
        self.bases.retain(|_, base| base != of);
    }

    /// What became of a copy.
    pub(super) fn copy(&self, key: SnapshotKey) -> Option<&Copy> {
        self.copies.get(&key)
    }

    /// It is removed: whatever is known of it.
    pub(in super::super) fn forget(&mut self, key: SnapshotKey) {
        self.answers.remove(&key);
        self.copies.remove(&key);
        self.waiting.retain(|of| of.key() != key);
        self.failed.retain(|of| of.key() != key);
        self.bases.retain(|_, base| base.key() != key);
    }
}

/// Forgetting all is cheaper than remembering all for ever.
fn bounded<T>(map: &mut HashMap<SnapshotKey, T>, key: SnapshotKey, value: T) {
    if map.len() >= MOST && !map.contains_key(&key) {
        map.clear();
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests;
