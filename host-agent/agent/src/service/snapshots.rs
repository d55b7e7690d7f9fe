//! Snapshots on the wire.

use crate::{
    host::Host,
    snapshot::{LookError, Map, NotMade, Touches, Verified, WINDOW_PAGES},
};
use std::sync::Arc;
use tonic::Code;
use warren_artefact::SnapshotKey;
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        ListSnapshotsResponse, MakeSnapshotResponse, MapSnapshotRequest, MapSnapshotResponse,
        RemoveSnapshotRequest, RemoveSnapshotResponse, SnapshotOutcome, SnapshotTouch, SnapshotTouches,
        SnapshotWindow, VerifySnapshotResponse,
    },
};

impl From<LookError> for WireError {
    fn from(error: LookError) -> Self {
        let message = error.to_string();
        match error {
            LookError::None(_) => Self::new(Code::NotFound, reason::NO_SUCH_SNAPSHOT, Fault::Caller, message),
            LookError::Origin(_) => {
                Self::new(Code::Unavailable, reason::ORIGIN_UNAVAILABLE, Fault::System, message)
                    .retryable(None)
            }
            LookError::Damaged { .. } => {
                Self::new(Code::DataLoss, reason::SNAPSHOT_DAMAGED, Fault::System, message)
            }
            LookError::Io(_) => {
                Self::new(Code::Internal, "HOST_STORAGE_FAILED", Fault::System, message).retryable(None)
            }
        }
    }
}

pub(super) async fn list(host: &Arc<Host>, function: &str) -> Result<ListSnapshotsResponse, LookError> {
    Ok(ListSnapshotsResponse { snapshots: host.snapshots.list(host, function).await? })
}

pub(super) async fn verify(host: &Arc<Host>, key: &str) -> Result<VerifySnapshotResponse, LookError> {
    let Verified { found, took } = host.snapshots.verify(key).await?;
    Ok(VerifySnapshotResponse {
        good: found.is_ok(),
        memory_bytes: found.as_ref().copied().unwrap_or(0),
        reason: found.err().unwrap_or_default(),
        took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    })
}

pub(super) async fn map(
    host: &Arc<Host>,
    request: &MapSnapshotRequest,
) -> Result<MapSnapshotResponse, LookError> {
    let Map { windows, took, touches } = host.snapshots.map(&request.key, &request.base_key).await?;
    // A window has sixteen pages: each count fits.
    let count = |pages: u64| u32::try_from(pages).unwrap_or(u32::MAX);
    let windows = windows.into_iter().map(|window| SnapshotWindow {
        number: window.number,
        same: count(window.pages.same),
        filled: count(window.pages.filled),
        zeroed: count(window.pages.zeroed),
        replaced: count(window.pages.replaced),
    });
    Ok(MapSnapshotResponse {
        windows: windows.collect(),
        window_pages: WINDOW_PAGES,
        took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        touches: touches.map(touched),
    })
}

fn touched(touches: Touches) -> SnapshotTouches {
    let Touches { starts, pages, windows } = touches;
    let windows = windows.into_iter().map(|(number, (pages, first))| SnapshotTouch { number, pages, first });
    SnapshotTouches { starts, pages, windows: windows.collect() }
}

pub(super) async fn remove(
    host: &Arc<Host>,
    request: &RemoveSnapshotRequest,
) -> Result<RemoveSnapshotResponse, LookError> {
    host.snapshots.remove(&request.key, request.here_only).await?;
    Ok(RemoveSnapshotResponse {})
}

pub(super) fn published(published: Result<SnapshotKey, NotMade>) -> MakeSnapshotResponse {
    let outcome = match &published {
        Ok(_) => SnapshotOutcome::Made,
        Err(NotMade::Init { timed_out: false, .. }) => SnapshotOutcome::InitFailed,
        Err(NotMade::Init { timed_out: true, .. }) => SnapshotOutcome::InitTimedOut,
        Err(NotMade::Cannot(_)) => SnapshotOutcome::Cannot,
        Err(NotMade::NotNow(_)) => SnapshotOutcome::NotNow,
    };
    MakeSnapshotResponse {
        outcome: outcome.into(),
        key: published.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: published.err().map(|why| why.reason().to_owned()).unwrap_or_default(),
    }
}
