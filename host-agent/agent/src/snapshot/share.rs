//! Between this host's snapshots and the fleet's: what is kept here goes there, what is there is brought here.

use super::{Fleet, FleetSnapshot, SealedSnapshot, Snapshots, expect};
use crate::{
    host::Host,
    resources::HostFull,
    snapshot::fleet::{FetchError, Named},
    version::{Startable, VersionSpec, Weigh as _},
};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use warren_artefact::SnapshotOf;
use warren_chunks::store::ReadError;

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
    /// This host keeps none.
    #[error("this host keeps no snapshots")]
    None,
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
        from: Arc<FleetSnapshot>,
        what: (&VersionSpec, &Startable),
    ) -> Option<Arc<SealedSnapshot>> {
        let of = from.head.of();
        let bytes = from.head.memory_len().saturating_add(from.head.disk_len());
        if host.is_stopping() || !self.tries().begin(of, Instant::now()) {
            return None;
        }
        let (host, what) = (Arc::clone(host), (what.0.clone(), what.1.clone()));
        // As a task of its own: it outlives whoever wants it.
        let bringing = tokio::spawn(async move {
            let (snapshots, key) = (&host.snapshots, from.head.of().key());
            let kept = snapshots.take(&host, &from, (&what.0, &what.1)).await;
            // However it ended: who finds none makes one.
            if !snapshots.tries().end(key, Ok(()), Instant::now()) {
                let _ = snapshots.forget(key).await;
            }
            snapshots.ends.send_replace(());
            kept
        });
        if bytes > ON_THE_PATH_BYTES {
            return None;
        }
        timeout(ON_THE_PATH, bringing).await.ok()?.ok()?
    }

    /// Keeps a copy of what the fleet has of this. False: it has none, or none that could be had.
    pub(super) async fn take_from_fleet(
        &self,
        host: &Host,
        of: &SnapshotOf,
        what: (&VersionSpec, &Startable),
    ) -> bool {
        let Some(fleet) = &self.fleet else { return false };
        let Some(from) = fleet.find_patiently(of).await else { return false };
        self.take(host, &from, what).await.is_some()
    }

    async fn take(
        &self,
        host: &Host,
        from: &FleetSnapshot,
        what: (&VersionSpec, &Startable),
    ) -> Option<Arc<SealedSnapshot>> {
        let (key, function, by, began) =
            (from.head.of().key(), &from.head.of().function, &from.by, Instant::now());
        match self.keep(host, from).await {
            Ok(kept) => {
                let (bytes, ms) = (kept.bytes(), began.elapsed().as_millis());
                tracing::info!(function, %key, %by, bytes, ms, "a snapshot was brought from the fleet");
                expect(host, what);
                Some(kept)
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(function, %key, %by, "the fleet's snapshot cannot be had: {error:#}");
                None
            }
        }
    }

    async fn keep(&self, host: &Host, from: &FleetSnapshot) -> Result<Arc<SealedSnapshot>, BringError> {
        let (Some(fleet), Some(place)) = (&self.fleet, self.shelf.clone()) else {
            return Err(BringError::None);
        };
        let bytes = from.head.memory_len().saturating_add(from.head.disk_len());
        let _room = host.memory.reserve_brief((bytes >> 20) + 1)?;
        let fetched = fleet.fetch(from, &place.temporary()).await?;
        let compiler = Arc::clone(&self.compiler);
        let kept = tokio::task::spawn_blocking(move || {
            place.put(&fetched, compiler.signing_key())?;
            Ok::<_, io::Error>(fetched)
        });
        let kept = kept.await.map_err(io::Error::from)??;
        fleet.book().came(from.head.of().key(), from.stored);
        Ok(self.sealed.insert(from.head.of().key(), kept))
    }

    /// Gives the fleet a copy of one that is kept here, and of those that it could not be given before; in the background.
    pub(super) fn share(host: &Arc<Host>, of: SnapshotOf) {
        let Some(fleet) = host.snapshots.fleet.clone() else { return };
        if fleet.book().enqueue(of) {
            let host = Arc::clone(host);
            tokio::spawn(async move { host.snapshots.send(&host, &fleet).await });
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

    /// Puts back into service what the pager read although garbage collection had taken it out: for ever. It names such objects
    /// until it is told that they are.
    pub async fn rescue(host: Arc<Host>) {
        let mut retired = host.pager.retired();
        while retired.changed().await.is_ok() {
            let names = retired.borrow_and_update().clone();
            let Some(fleet) = host.snapshots.fleet() else { continue };
            let mut done = Vec::new();
            for name in names {
                match fleet.rescue(name).await {
                    // What is deleted already nobody can put back.
                    Ok(()) | Err(ReadError::Absent) => done.push(name),
                    Err(error) => {
                        let error = anyhow::Error::from(error);
                        tracing::warn!(%name, "a retired chunk that is in use is not back in service: {error:#}");
                    }
                }
            }
            host.pager.rescued(done).await;
        }
        std::future::pending::<()>().await;
    }

    /// Has the origin's garbage collected, and what stays read again, in the background: a large bucket is a long list.
    pub(super) fn collect(&self, named: Named, min_age: Duration) {
        let Some(fleet) = self.fleet.clone() else { return };
        tokio::spawn(async move {
            match fleet.collect(&named, min_age).await {
                Ok(None) => {}
                Ok(Some(cleared)) => {
                    tracing::info!(?cleared, "the garbage of the fleet's snapshots was collected");
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!("the garbage of the fleet's snapshots stays: {error:#}");
                }
            }
            if let Err(error) = fleet.scrub_origin().await {
                tracing::warn!("the origin of the fleet's snapshots is not read again today: {error}");
            }
        });
    }

    /// One at a time, until none waits.
    async fn send(&self, host: &Host, fleet: &Fleet) {
        loop {
            let Some(of) = fleet.book().next() else { return };
            self.send_one(host, fleet, of).await;
        }
    }

    /// Another host was first with this runtime's: what is made from here on begins with that one, as everywhere. If that cannot be had,
    /// this host's takes its place.
    async fn follow(&self, host: &Host, fleet: &Fleet, own: &SealedSnapshot) {
        let of = own.head.of();
        let Some(standing) = fleet.find_patiently(of).await else { return };
        self.sealed.forget(of.key());
        if let Err(error) = self.keep(host, &standing).await {
            let (key, by, error) = (of.key(), &standing.by, anyhow::Error::from(error));
            tracing::warn!(%key, %by, "the fleet's snapshot of a runtime cannot be had, this host's is kept: {error:#}");
            // One that is broken is known as such now. Whatever comes of it, the next one that is sent says.
            drop(fleet.publish(own, None).await);
        }
    }

    async fn send_one(&self, host: &Host, fleet: &Fleet, of: SnapshotOf) {
        let Some(place) = &self.shelf else { return };
        let key = of.key();
        let Some(kept) = self.get(place, of.clone()).await else {
            fleet.book().forget(key);
            return;
        };
        let base = fleet.book().base(&of);
        let base = match base {
            Some(base) => self.get(place, base).await,
            None => None,
        };
        match fleet.publish(&kept, base).await {
            Ok(stored) => {
                let wanted = fleet.book().sent(key, stored);
                if !wanted {
                    // Removed while it was sent.
                    let _ = fleet.remove(key).await;
                } else if of.is_runtime() && fleet.book().has_another(key, kept.head.memory()) {
                    self.follow(host, fleet, &kept).await;
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
