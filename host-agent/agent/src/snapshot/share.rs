//! Between this host's snapshots and the fleet's: what is kept here goes there, what is there is brought here.

use super::{Fleet, FleetSnapshot, SealedSnapshot, Shelf, Snapshots, begin, expect};
use crate::{
    host::Host,
    resources::HostFull,
    snapshot::fleet::FetchError,
    version::{Startable, VersionSpec, Weigh as _},
};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use warren_artefact::SnapshotOf;

/// Up to so many bytes a start waits for a copy rather than boot: so many come sooner than most functions are up.
const ON_THE_PATH_BYTES: u64 = 16 << 20;
/// And so long. What takes longer goes on, for the next start.
const ON_THE_PATH: Duration = Duration::from_millis(500);

/// Why a copy of the fleet's is not kept here.
#[derive(Debug, thiserror::Error)]
enum BringError {
    /// The host's memory is in use.
    #[error(transparent)]
    Full(#[from] HostFull),
    /// It cannot be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The host, a full disk among it.
    #[error("it cannot be kept")]
    Io(#[from] io::Error),
}

impl Snapshots {
    /// The fleet's snapshots, if this host shares.
    #[must_use]
    pub const fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.fleet.as_ref()
    }

    /// Fetches one whole, beside the start that asks: that waits only for what comes sooner than it would boot.
    pub async fn bring(
        &self,
        host: &Arc<Host>,
        from: &FleetSnapshot,
        what: (&VersionSpec, &Startable),
    ) -> Option<Arc<SealedSnapshot>> {
        let place = self.shelf.as_ref()?;
        let (of, bytes) = (from.head.of(), from.head.memory_len().saturating_add(from.head.disk_len()));
        if host.is_stopping() || !self.tries().begin(of, Instant::now()) {
            return None;
        }
        let begun = begin(host, place, of.clone(), what);
        if bytes > ON_THE_PATH_BYTES {
            return None;
        }
        timeout(ON_THE_PATH, begun).await.ok()?.ok()?.ok()?;
        self.get(place, of.clone()).await
    }

    /// Keeps a copy of what the fleet has of this. False: it has none, or none that could be had.
    pub(super) async fn take_from_fleet(
        &self,
        host: &Host,
        place: &Arc<Shelf>,
        of: &SnapshotOf,
        what: (&VersionSpec, &Startable),
    ) -> bool {
        let Some(fleet) = &self.fleet else { return false };
        let Some(from) = fleet.find_patiently(of).await else { return false };
        let (key, function, by, began) = (of.key(), &of.function, &from.by, Instant::now());
        match self.take(host, place, fleet, &from).await {
            Ok(kept) => {
                let (bytes, ms) = (kept.bytes(), began.elapsed().as_millis());
                tracing::info!(function, %key, %by, bytes, ms, "a snapshot was brought from the fleet");
                expect(host, what);
                true
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(function, %key, %by, "the fleet's snapshot cannot be had, another is made: {error:#}");
                false
            }
        }
    }

    async fn take(
        &self,
        host: &Host,
        place: &Arc<Shelf>,
        fleet: &Fleet,
        from: &FleetSnapshot,
    ) -> Result<Arc<SealedSnapshot>, BringError> {
        let bytes = from.head.memory_len().saturating_add(from.head.disk_len());
        let _room = host.memory.reserve_brief((bytes >> 20) + 1)?;
        let fetched = fleet.fetch(from).await?;
        let (place, key) = (Arc::clone(place), self.compiler.clone());
        let kept = tokio::task::spawn_blocking(move || {
            place.put(&fetched, key.signing_key())?;
            Ok::<_, io::Error>(fetched)
        });
        let kept = kept.await.map_err(io::Error::from)??;
        Ok(self.sealed.insert(from.head.of().key(), kept))
    }

    /// Gives the fleet a copy of one that is kept here, and of those that it could not be given before; in the background.
    pub(super) fn share(host: &Arc<Host>, of: SnapshotOf) {
        let Some(fleet) = host.snapshots.fleet.clone() else { return };
        if fleet.book().enqueue(of) {
            let host = Arc::clone(host);
            tokio::spawn(async move { host.snapshots.send(&fleet).await });
        }
    }

    /// The same of every one that is kept: the origin may be new, or was away.
    pub fn share_all(host: &Arc<Host>) {
        let (Some(place), Some(_)) = (host.snapshots.shelf.clone(), &host.snapshots.fleet) else { return };
        let (host, trusted) = (Arc::clone(host), host.snapshots.compiler.builder_key());
        tokio::spawn(async move {
            let looked = tokio::task::spawn_blocking(move || place.look("", &[trusted])).await;
            let heads = looked.ok().and_then(Result::ok).unwrap_or_default().into_iter();
            heads.filter_map(|one| one.head.ok()).for_each(|head| Self::share(&host, head.of().clone()));
        });
    }

    /// One at a time, until none waits.
    async fn send(&self, fleet: &Fleet) {
        loop {
            let Some(of) = fleet.book().next() else { return };
            self.send_one(fleet, of).await;
        }
    }

    async fn send_one(&self, fleet: &Fleet, of: SnapshotOf) {
        let Some(place) = &self.shelf else { return };
        let key = of.key();
        let Some(kept) = self.get(place, of.clone()).await else {
            fleet.book().forget(key);
            return;
        };
        match fleet.publish(&kept).await {
            Ok(stored) => {
                let wanted = fleet.book().sent(key, stored);
                if !wanted {
                    // Removed while it was sent.
                    let _ = fleet.remove(key).await;
                }
            }
            Err(error) => {
                let (function, why) = (of.function.clone(), format!("{:#}", anyhow::Error::from(error)));
                tracing::warn!(function, %key, why, "the fleet has no copy of a snapshot; tried again with the next");
                fleet.not_published(of, why);
            }
        }
    }
}
