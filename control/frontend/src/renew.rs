//! Snapshots of an earlier guest program, kernel or VMM are made again when their host registers, ahead of the next cold start.
//!
//! ```text
//! a host registers (its agent began anew, perhaps as another release)
//!   └─ what it keeps, and calls outdated ─┬─ of a version that is still there, with SnapStart ─▶ prepared, made, verified ─▶ the old one removed
//!                                         └─ of any other ─▶ left to the collection
//! ```
//! One at a time, and nobody waits: until it is made, cold starts boot as they would have. What another host has made already is
//! brought, not made. The fleet's copy of the old one stays for hosts that were not upgraded yet; the collection takes it later.

use crate::{
    Frontend,
    deploy::PREPARE_TIMEOUT,
    publish::{make, verify},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use tonic::Status;
use warren_placement::{Worker, worker_error};
use warren_proto::v1::{
    FunctionVersion, ListSnapshotsRequest, PrepareVersionRequest, RemoveSnapshotRequest, SnapStart, Snapshot,
    SnapshotState,
};

/// How long a host may take to say what it keeps.
const LIST_TIME: Duration = Duration::from_secs(30);

/// The hosts whose snapshots are being made again; true: it registered once more meanwhile, and is looked at once more.
#[derive(Debug, Default)]
pub struct Renewals(Mutex<HashMap<Arc<str>, bool>>);

impl Renewals {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, bool>> {
        // Whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller is to look. If not, whoever does looks once more.
    fn begin(&self, host: &Arc<str>) -> bool {
        let mut hosts = self.lock();
        let is_free = !hosts.contains_key(host);
        hosts.insert(Arc::clone(host), !is_free);
        is_free
    }

    /// Whether to look once more.
    fn end(&self, host: &str) -> bool {
        let mut hosts = self.lock();
        let once_more = hosts.get_mut(host).is_some_and(std::mem::take);
        if !once_more {
            hosts.remove(host);
        }
        once_more
    }
}

impl Frontend {
    /// Makes again what this host keeps of an earlier release. Returns when that has ended, or at once if it is under way.
    pub async fn renew(&self, worker: &Worker) {
        if !self.renewals.begin(worker.id()) {
            return;
        }
        loop {
            self.renew_once(worker).await;
            if !self.renewals.end(worker.id()) {
                return;
            }
        }
    }

    async fn renew_once(&self, worker: &Worker) {
        let mut client = worker.client();
        let listed = match timeout(LIST_TIME, client.list_snapshots(ListSnapshotsRequest::default())).await {
            Ok(Ok(listed)) => listed.into_inner().snapshots,
            // It is lost, and registers again.
            Ok(Err(_)) | Err(_) => return,
        };
        let (mut made, mut left) = (0_u32, 0_u32);
        for old in listed.into_iter().filter(|one| one.state() == SnapshotState::Outdated) {
            let Some(spec) = self.wanted(&old) else { continue };
            match again(worker, &spec, old).await {
                Ok(()) => made += 1,
                Err(why) => {
                    left += 1;
                    let (host, function, version) = (worker.id(), &spec.name, spec.version);
                    tracing::info!(%host, function, version, why, "an outdated snapshot is not made again now");
                }
            }
        }
        if made + left > 0 {
            tracing::info!(host = %worker.id(), made, left, "outdated snapshots were made again");
        }
    }

    /// The version it is of, if its starts are to begin from a snapshot.
    fn wanted(&self, old: &Snapshot) -> Option<FunctionVersion> {
        let entry = self.catalog.get(&old.function)?;
        let version = entry.versions.get(&old.version)?;
        (version.spec.snap_start() == SnapStart::Published).then(|| FunctionVersion::clone(&version.spec))
    }
}

async fn again(worker: &Worker, spec: &FunctionVersion, old: Snapshot) -> Result<(), String> {
    let lost = |status: &Status| worker_error(status, "the worker was lost").message;
    // It has the code, or fetches it.
    let request = PrepareVersionRequest { version: Some(spec.clone()), ..PrepareVersionRequest::default() };
    timeout(PREPARE_TIMEOUT, worker.client().prepare_version(request))
        .await
        .map_err(|_| "preparing it takes too long".to_owned())?
        .map_err(|status| lost(&status))?;
    let key = make(worker, spec).await.map_err(|error| error.message)??;
    verify(worker, key.clone()).await?;
    if key != old.key {
        let request = RemoveSnapshotRequest { key: old.key, here_only: true };
        worker.client().remove_snapshot(request).await.map_err(|status| lost(&status))?;
    }
    Ok(())
}
