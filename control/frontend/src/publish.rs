//! SnapStart: a version's snapshot is made and verified on the host that prepared it, before the version is there.
//!
//! ```text
//! prepared ─▶ snapshotting ─┬─ made ─▶ verifying ─┬─ good ──────────────────────────────────▶ ON
//!                           │                     └─ not what was signed: removed ─▶ OFF, because
//!                           ├─ cannot be written down, not this time, the host is lost ─▶ OFF, because
//!                           └─ init failed, or ran past its time ─▶ the deploy is refused
//! ```
//! A version that is OFF is as good as any: its first cold start boots, and where that is of use another snapshot is tried.

use crate::Frontend;
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Status};
use warren_placement::{Worker, worker_error};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        DeployEvent, DeployPhase, DeployProgress, FunctionVersion, Kind, MakeSnapshotRequest, Optimization,
        RemoveSnapshotRequest, SnapStart, SnapshotOutcome, VerifySnapshotRequest, deploy_event::Event,
    },
};

/// What making one may take: init, writing it down, and those that are made before it.
const MAKE_TIME: Duration = Duration::from_mins(1);
/// The same of a Linux function, which boots first.
const MAKE_LINUX_TIME: Duration = Duration::from_mins(4);
/// And reading it again.
const VERIFY_TIME: Duration = Duration::from_secs(30);

/// Whoever watches a deploy; mostly nobody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watcher(Option<mpsc::Sender<Result<DeployEvent, Status>>>);

impl Watcher {
    pub(crate) const fn new(events: mpsc::Sender<Result<DeployEvent, Status>>) -> Self {
        Self(Some(events))
    }

    /// A watcher who dawdles misses a phase; the deploy waits for nobody.
    pub(crate) fn enter(&self, phase: DeployPhase, host: &str) {
        let progress = DeployProgress { phase: phase.into(), host_id: host.to_owned() };
        if let Some(events) = &self.0 {
            let _ = events.try_send(Ok(DeployEvent { event: Some(Event::Progress(progress)) }));
        }
    }
}

impl Frontend {
    /// Fills in what becomes of a prepared version's first cold start. An error: the version is not to be.
    pub(crate) async fn publish(
        &self,
        worker: &Worker,
        spec: &mut FunctionVersion,
        watcher: &Watcher,
    ) -> Result<(), WireError> {
        if spec.snap_start() != SnapStart::Published {
            return Ok(());
        }
        watcher.enter(DeployPhase::Snapshotting, worker.id());
        let off = match make(worker, spec).await? {
            Ok(key) => {
                watcher.enter(DeployPhase::Verifying, worker.id());
                verify(worker, key).await.err()
            }
            Err(why) => Some(why),
        };
        let optimization = if off.is_none() { Optimization::On } else { Optimization::Off };
        if let Some(why) = &off {
            tracing::info!(function = spec.name, version = spec.version, why, "its starts boot");
        }
        spec.set_optimization(optimization);
        spec.optimization_reason = off.unwrap_or_default();
        Ok(())
    }
}

/// Its key, or why there is none.
pub(crate) async fn make(
    worker: &Worker,
    spec: &FunctionVersion,
) -> Result<Result<String, String>, WireError> {
    let request = MakeSnapshotRequest { version: Some(spec.clone()) };
    let patience = if spec.kind() == Kind::Linux { MAKE_LINUX_TIME } else { MAKE_TIME };
    let made = match timeout(patience, worker.client().make_snapshot(request)).await {
        Ok(Ok(made)) => made.into_inner(),
        Ok(Err(status)) => {
            let error = worker_error(&status, "the worker was lost while it made the snapshot");
            return Ok(Err(error.message));
        }
        Err(_elapsed) => return Ok(Err(format!("making the snapshot takes longer than {patience:?}"))),
    };
    let refused = |code, reason, how: &str| {
        let message = format!(
            "{how} when the version was published: {}; nothing was changed; mend it, or deploy it with SnapStart off \
             (--snap-start off), which does not try its init",
            made.reason
        );
        Err(WireError::new(code, reason, Fault::Function, message))
    };
    match made.outcome() {
        SnapshotOutcome::Made => Ok(Ok(made.key)),
        SnapshotOutcome::InitFailed => {
            refused(Code::Unknown, reason::FUNCTION_INIT_FAILED, "the function's init failed")
        }
        SnapshotOutcome::InitTimedOut => refused(
            Code::DeadlineExceeded,
            reason::FUNCTION_INIT_TIMED_OUT,
            "the function's init did not end in time",
        ),
        SnapshotOutcome::Cannot | SnapshotOutcome::NotNow | SnapshotOutcome::Unspecified => {
            Ok(Err(made.reason))
        }
    }
}

pub(crate) async fn verify(worker: &Worker, key: String) -> Result<(), String> {
    let request = VerifySnapshotRequest { key: key.clone() };
    let why = match timeout(VERIFY_TIME, worker.client().verify_snapshot(request)).await {
        Ok(Ok(verified)) if verified.get_ref().good => return Ok(()),
        Ok(Ok(verified)) => {
            // The next cold start makes another.
            let _ = worker.client().remove_snapshot(RemoveSnapshotRequest { key, here_only: false }).await;
            verified.into_inner().reason
        }
        Ok(Err(status)) => {
            worker_error(&status, "the worker was lost while it verified the snapshot").message
        }
        Err(_elapsed) => format!("reading it takes longer than {VERIFY_TIME:?}"),
    };
    Err(format!("the snapshot was not verified: {why}"))
}
