//! Snapshots, as the workers that keep them say: control knows of none itself.

use crate::{Frontend, admin::no_such_host};
use futures::future::join_all;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::timeout;
use tonic::{Code, Response, Status};
use warren_placement::{HostState, Worker, worker_error};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        HostSnapshotRequest, ListAllSnapshotsRequest, ListAllSnapshotsResponse, ListSnapshotsRequest,
        MapHostSnapshotRequest, MapSnapshotRequest, MapSnapshotResponse, RemoveSnapshotRequest,
        RemoveSnapshotResponse, Snapshot, VerifySnapshotRequest, VerifySnapshotResponse,
    },
};
use warren_validation::operator;

/// How long a worker may take to list what it keeps, and to forget one.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// And to read one again; others may be before it.
const VERIFY_TIME: Duration = Duration::from_mins(1);

impl Frontend {
    /// Of every host that answers.
    pub(crate) async fn list_snapshots(&self, request: ListAllSnapshotsRequest) -> ListAllSnapshotsResponse {
        let hosts = self.fleet.all().into_iter();
        let asked = join_all(hosts.map(|worker| {
            let function = request.function.clone();
            async move { (worker.id().to_string(), snapshots_of(&worker, function).await) }
        }));
        let mut all = ListAllSnapshotsResponse::default();
        for (host, listed) in asked.await {
            match listed {
                Some(snapshots) => all.snapshots.extend(snapshots),
                None => all.silent_hosts.push(host),
            }
        }
        all.snapshots.sort_by(|a, b| {
            let by = |one: &Snapshot| (one.version, one.made_unix_ms);
            (&a.function, by(a), &a.host_id, &a.key).cmp(&(&b.function, by(b), &b.host_id, &b.key))
        });
        all
    }

    /// Has a host judge one again.
    pub(crate) async fn verify_snapshot(
        &self,
        request: HostSnapshotRequest,
    ) -> Result<VerifySnapshotResponse, WireError> {
        let worker = self.keeper(&request.host, &[&request.key])?;
        let asked = VerifySnapshotRequest { key: request.key };
        answered(&worker, VERIFY_TIME, worker.client().verify_snapshot(asked)).await
    }

    /// Has a host say which pages one has, or how they differ from another's.
    pub(crate) async fn map_snapshot(
        &self,
        request: MapHostSnapshotRequest,
    ) -> Result<MapSnapshotResponse, WireError> {
        let keys = [request.key.as_str(), &request.base_key];
        let given = if request.base_key.is_empty() { 1 } else { 2 };
        let worker = self.keeper(&request.host, keys.get(..given).unwrap_or(&keys))?;
        let asked = MapSnapshotRequest { key: request.key, base_key: request.base_key };
        answered(&worker, VERIFY_TIME, worker.client().map_snapshot(asked)).await
    }

    /// Has a host forget one.
    pub(crate) async fn remove_snapshot(
        &self,
        request: HostSnapshotRequest,
    ) -> Result<RemoveSnapshotResponse, WireError> {
        let worker = self.keeper(&request.host, &[&request.key])?;
        let asked = RemoveSnapshotRequest { key: request.key, here_only: false };
        answered(&worker, ANSWER_TIME, worker.client().remove_snapshot(asked)).await
    }

    fn keeper(&self, host: &str, keys: &[&str]) -> Result<Arc<Worker>, WireError> {
        operator::snapshot_keys(keys)?;
        self.fleet.get(host).ok_or_else(|| no_such_host(host))
    }
}

/// `None`: it is lost, or does not say.
async fn snapshots_of(worker: &Worker, function: String) -> Option<Vec<Snapshot>> {
    if worker.status().state == HostState::Lost {
        return None;
    }
    let mut client = worker.client();
    match timeout(ANSWER_TIME, client.list_snapshots(ListSnapshotsRequest { function })).await {
        Ok(Ok(answer)) => Some(answer.into_inner().snapshots),
        Ok(Err(status)) => {
            tracing::warn!(host = %worker.id(), %status, "this worker does not list its snapshots");
            None
        }
        Err(_elapsed) => {
            tracing::warn!(host = %worker.id(), "this worker takes too long to list its snapshots");
            None
        }
    }
}

async fn answered<T>(
    worker: &Worker,
    patience: Duration,
    asked: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, WireError> {
    match timeout(patience, asked).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(worker_error(&status, "the worker was lost; look again when it is back")),
        Err(_elapsed) => {
            let message =
                format!("host {} did not answer within {patience:?}; see `warren hosts`", worker.id());
            let error = WireError::new(Code::Unavailable, reason::WORKER_LOST, Fault::System, message);
            Err(error.retryable(Some(Duration::from_secs(1))))
        }
    }
}
