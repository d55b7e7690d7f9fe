//! How often cold starts took a snapshot, and when last: by key, within a bound.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};
use warren_artefact::SnapshotKey;

/// Most keys known; the one that was used longest ago makes room.
const MOST: usize = 4096;
/// How exactly the file itself knows when it was used.
const TOUCH_EVERY: Duration = Duration::from_mins(1);

/// What is known of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) count: u64,
    pub(super) last: SystemTime,
    touched: SystemTime,
}

/// By key.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<SnapshotKey, Use>);

impl Uses {
    /// One more. True: its file shall be told, too.
    pub(super) fn note(&mut self, key: SnapshotKey, now: SystemTime) -> bool {
        if let Some(known) = self.0.get_mut(&key) {
            known.count = known.count.saturating_add(1);
            known.last = now;
            // A clock that was set back is no reason never to touch it again.
            let due = now.duration_since(known.touched).map_or(true, |since| since >= TOUCH_EVERY);
            if due {
                known.touched = now;
            }
            return due;
        }
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, known)| known.last).map(|(key, _)| *key)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, Use { count: 1, last: now, touched: now });
        true
    }

    /// What is known of one.
    pub(super) fn of(&self, key: SnapshotKey) -> Option<Use> {
        self.0.get(&key).copied()
    }

    /// It is gone.
    pub(super) fn forget(&mut self, key: SnapshotKey) {
        self.0.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> SnapshotKey {
        SnapshotKey::from_hex(&format!("{number:064x}")).unwrap()
    }

    #[test]
    fn counted_bounded_and_the_file_is_told_once_a_minute() {
        let (mut uses, now) = (Uses::default(), SystemTime::UNIX_EPOCH + Duration::from_hours(1));
        assert!(uses.note(key(0), now), "the first");
        assert!(!uses.note(key(0), now + TOUCH_EVERY / 2), "so soon");
        assert!(uses.note(key(0), now + TOUCH_EVERY));
        assert!(!uses.note(key(0), now + TOUCH_EVERY));
        assert!(uses.note(key(0), now), "the clock was set back");
        let known = uses.of(key(0)).unwrap();
        assert_eq!((known.count, known.last), (5, now));
        for number in 1..=MOST {
            uses.note(key(number), now + Duration::from_secs(number as u64));
        }
        assert_eq!((uses.0.len(), uses.of(key(0))), (MOST, None), "used longest ago");
        uses.forget(key(1));
        assert_eq!(uses.of(key(1)), None);
    }
}
