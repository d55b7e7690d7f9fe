//! Reading everything again while there is still another copy: this host's own chunks each day, the origin's by one host a day.

use super::{Fleet, collect::take_turn};
use std::{num::NonZeroU64, time::Duration};
use tokio::time::sleep;
use warren_chunks::{
    l3::{EntryName, OriginError},
    store::{Pace, Scrubbed},
};

/// How often.
const EVERY: Duration = Duration::from_hours(24);
/// How soon again while the origin is away.
const AWAY: Duration = Duration::from_mins(10);
/// How fast: 16 MiB a second leave disk and network to functions.
const BYTES_PER_SECOND: NonZeroU64 = NonZeroU64::new(16 << 20).unwrap();

impl Fleet {
    /// Scrubs this host's own chunks now and each day; for ever.
    pub async fn scrub_own(&self) {
        loop {
            // What is damaged is fetched again from the others.
            let wait = match self.store().await {
                Ok(store) => {
                    self.found("this host", &store.scrub_disk(Pace::of(BYTES_PER_SECOND)).await);
                    EVERY
                }
                Err(_) => AWAY,
            };
            sleep(wait).await;
        }
    }

    /// Scrubs the origin, if nobody did today.
    pub(in super::super) async fn scrub_origin(&self) -> Result<(), OriginError> {
        let store = self.store().await?;
        if take_turn(&store, turn(), EVERY).await? {
            self.found("the origin", &store.scrub_origin(Pace::of(BYTES_PER_SECOND)).await?);
        }
        Ok(())
    }

    fn found(&self, place: &str, found: &Scrubbed) {
        self.tiers.note(found);
        let Scrubbed { read, repaired, lost, unread } = found;
        if repaired.is_empty() && lost.is_empty() && *unread == 0 {
            tracing::info!(place, read, "chunks of shared snapshots were read again, and are whole");
        } else {
            let (repaired, lost) = (repaired.len(), lost.len());
            tracing::warn!(place, read, repaired, lost, unread, "chunks of shared snapshots were damaged");
        }
    }
}

/// Where it is said when the origin was scrubbed last: no snapshot has this key.
pub(super) fn turn() -> EntryName {
    EntryName(blake3::derive_key("warren-agent 2026 whose turn it is to scrub", b""))
}
