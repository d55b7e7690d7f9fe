//! The book of tries: which snapshot is being made, which could not be, and why. No clock, no lock, no file.
//!
//! ```text
//!          begin                       end
//!  (none) ───────▶ making ─┬─ made ─────────────▶ (none: the file tells)
//!    ▲               ▲     ├─ failed, or init ──▶ ended ── begin after RETRY, or when told to ──▶ making
//!    │ forget        │     └─ hopeless ─────────▶ ended ── begin after it was forgotten ─────────▶ making
//!    └── ended       └─ forget: unwanted, so what comes of it is not kept
//! ```
//! Who publishes insists: for him nothing rests that another try could change.
//! What has ended is remembered within a bound; what is forgotten is asked again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use warren_artefact::{SnapshotKey, SnapshotOf};
use warren_proto::v1::Kind;

/// How soon one that could not be made, or was refused, is tried again.
pub(super) const RETRY: Duration = Duration::from_mins(1);
/// Most ends remembered.
const MOST_ENDED: usize = 4096;
/// Most bytes of a reason.
const MOST_REASON: usize = 1024;

/// Why there is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMade {
    /// The function's init failed, or ran past its time.
    Init {
        /// Which of the two.
        timed_out: bool,
        /// In its own words, and the VMM's.
        why: String,
    },
    /// It cannot be written down: another try would end the same.
    Cannot(String),
    /// Not this time: the host has no room for it, or something of it failed.
    NotNow(String),
}

impl NotMade {
    /// In words.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Init { why, .. } | Self::Cannot(why) | Self::NotNow(why) => why,
        }
    }

    fn is_final(&self) -> bool {
        matches!(self, Self::Cannot(_))
    }

    /// Words come from guests, among others.
    fn clipped(mut self) -> Self {
        let (Self::Init { why, .. } | Self::Cannot(why) | Self::NotNow(why)) = &mut self;
        why.truncate(why.floor_char_boundary(MOST_REASON));
        self
    }
}

/// Of what a try is, for who looks at the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) function: String,
    pub(super) version: u64,
    pub(super) kind: Kind,
}

impl From<&SnapshotOf> for Subject {
    fn from(of: &SnapshotOf) -> Self {
        Self { function: of.function.clone(), version: of.version, kind: super::view::kind(of) }
    }
}

/// A try as the book shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: SnapshotKey,
    pub(super) subject: Subject,
    /// Since when it is so.
    pub(super) since: Instant,
    /// `None`: it is being made.
    pub(super) not_made: Option<NotMade>,
}

/// What there is to do for who insists on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Insisted {
    /// Begin: it is being made from now on.
    Begin,
    /// Wait: somebody makes it.
    Underway,
    /// Give up.
    Cannot(NotMade),
}

#[derive(Debug)]
struct Making {
    subject: Subject,
    since: Instant,
    unwanted: bool,
}

#[derive(Debug)]
struct Ended {
    subject: Subject,
    at: Instant,
    why: NotMade,
}

/// The book.
#[derive(Debug, Default)]
pub(super) struct Tries {
    making: HashMap<SnapshotKey, Making>,
    ended: HashMap<SnapshotKey, Ended>,
}

impl Tries {
    /// Whether to begin with this one now; it is being made from then on.
    pub(super) fn begin(&mut self, of: &SnapshotOf, now: Instant) -> bool {
        let rests = |ended: &Ended| ended.why.is_final() || now.saturating_duration_since(ended.at) < RETRY;
        let key = of.key();
        if self.making.contains_key(&key) || self.ended.get(&key).is_some_and(rests) {
            return false;
        }
        self.making.insert(key, Making { subject: of.into(), since: now, unwanted: false });
        true
    }

    /// The same for who waits for it.
    pub(super) fn insist(&mut self, of: &SnapshotOf, now: Instant) -> Insisted {
        let key = of.key();
        if let Some(ended) = self.ended.get(&key).filter(|ended| ended.why.is_final()) {
            return Insisted::Cannot(ended.why.clone());
        }
        if self.making.contains_key(&key) {
            return Insisted::Underway;
        }
        self.making.insert(key, Making { subject: of.into(), since: now, unwanted: false });
        Insisted::Begin
    }

    /// How the last try at one ended, if it is not there.
    pub(super) fn last(&self, key: SnapshotKey) -> Option<NotMade> {
        self.ended.get(&key).map(|ended| ended.why.clone())
    }

    /// A try is over. False: it was forgotten meanwhile, and what it made is not to be kept.
    pub(super) fn end(&mut self, key: SnapshotKey, ended: Result<(), NotMade>, now: Instant) -> bool {
        let Some(made) = self.making.remove(&key) else { return false };
        if made.unwanted {
            return false;
        }
        match ended {
            Ok(()) => drop(self.ended.remove(&key)),
            Err(why) => self.remember(key, made.subject, why, now),
        }
        true
    }

    /// One that was made was not taken by a VMM.
    pub(super) fn refused(&mut self, of: &SnapshotOf, why: &str, now: Instant) {
        self.remember(of.key(), of.into(), NotMade::NotNow(why.to_owned()), now);
    }

    fn remember(&mut self, key: SnapshotKey, subject: Subject, why: NotMade, at: Instant) {
        if self.ended.len() >= MOST_ENDED {
            self.ended
                .retain(|_, ended| ended.why.is_final() || at.saturating_duration_since(ended.at) < RETRY);
        }
        if self.ended.len() >= MOST_ENDED {
            // Asking some of them again is cheaper than remembering all for ever.
            self.ended.clear();
        }
        self.ended.insert(key, Ended { subject, at, why: why.clipped() });
    }

    /// Forgets what is known of one; one that is being made is not kept. False: nothing was known.
    pub(super) fn forget(&mut self, key: SnapshotKey) -> bool {
        let ended = self.ended.remove(&key).is_some();
        match self.making.get_mut(&key) {
            Some(making) => !std::mem::replace(&mut making.unwanted, true) || ended,
            None => ended,
        }
    }

    /// Forgets what ended of functions that are not named.
    pub(super) fn retain(&mut self, is_named: impl Fn(&str) -> bool) {
        self.ended.retain(|_, ended| is_named(&ended.subject.function));
    }

    /// All of it.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let making = self.making.iter().filter(|(_, making)| !making.unwanted).map(|(key, making)| Entry {
            key: *key,
            subject: making.subject.clone(),
            since: making.since,
            not_made: None,
        });
        // One that is tried again is not shown twice.
        let ended = self.ended.iter().filter(|(key, _)| !self.making.contains_key(*key));
        let ended = ended.map(|(key, ended)| Entry {
            key: *key,
            subject: ended.subject.clone(),
            since: ended.at,
            not_made: Some(ended.why.clone()),
        });
        making.chain(ended).collect()
    }
}

#[cfg(test)]
mod tests;
