//! `AdminService`: what an operator sees.

use crate::Frontend;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};
use warren_placement::{HostState, Worker};
use warren_policy_engine::{By, Explained, Status as PolicyFigures};
use warren_proto::v1::{
    Candidate, Decision, DrainHostRequest, DrainHostResponse, ExplainPolicyRequest, ExplainPolicyResponse,
    Host, HostSnapshotRequest, ListAllSandboxesRequest, ListAllSandboxesResponse, ListAllSnapshotsRequest,
    ListAllSnapshotsResponse, ListHostsRequest, ListHostsResponse, ListPoliciesRequest, ListPoliciesResponse,
    ListSandboxesRequest, MapHostSnapshotRequest, MapSnapshotResponse, PolicyStatus, RemoveSnapshotResponse,
    RetryPoliciesRequest, RetryPoliciesResponse, Sandbox, StatusRequest, StatusResponse,
    VerifySnapshotResponse, admin_service_server,
};
use warren_proto::{
    error::{Fault, WireError},
    reason,
};
use warren_validation::clip;

/// How long a worker may take to list its sandboxes.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const DEFAULT_LAST: usize = 10;

/// Serves operators.
#[derive(Clone, Debug)]
pub struct Admin(pub(crate) Arc<Frontend>);

#[tonic::async_trait]
impl admin_service_server::AdminService for Admin {
    async fn list_all_sandboxes(
        &self,
        request: Request<ListAllSandboxesRequest>,
    ) -> Result<Response<ListAllSandboxesResponse>, Status> {
        let function = &request.get_ref().function;
        let workers =
            self.0.fleet.all().into_iter().filter(|worker| worker.status().state != HostState::Lost);
        // The workers are the truth about their sandboxes, so they are asked.
        let lists = futures::future::join_all(workers.map(sandboxes_of)).await;
        let mut sandboxes: Vec<Sandbox> = lists
            .into_iter()
            .flatten()
            .filter(|sandbox| function.is_empty() || sandbox.function == *function)
            .collect();
        sandboxes.sort_by(|a, b| (&a.function, &a.id).cmp(&(&b.function, &b.id)));
        Ok(Response::new(ListAllSandboxesResponse { sandboxes }))
    }

    async fn list_hosts(&self, _: Request<ListHostsRequest>) -> Result<Response<ListHostsResponse>, Status> {
        let hosts = self.0.fleet.all().iter().map(|worker| host(worker)).collect();
        Ok(Response::new(ListHostsResponse { hosts }))
    }

    async fn drain_host(
        &self,
        request: Request<DrainHostRequest>,
    ) -> Result<Response<DrainHostResponse>, Status> {
        let DrainHostRequest { host: name, undrain } = request.into_inner();
        let frontend = &self.0;
        if frontend.fleet.get(&name).is_none() {
            return Err(no_such_host(&name).into());
        }
        // Durable first: a control process that starts again must not give the host work.
        let kept = frontend.drains.set(&name, !undrain).await;
        kept.map_err(|error| crate::deploy::stored(&name, error))?;
        let worker = frontend.fleet.set_drained(&name, !undrain).ok_or_else(|| no_such_host(&name))?;
        if !undrain {
            frontend.hub.drain_host(&name);
        }
        tracing::info!(host = name, undrain, "drained by an operator");
        Ok(Response::new(DrainHostResponse { host: Some(host(&worker)) }))
    }

    async fn list_policies(
        &self,
        _: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        Ok(Response::new(ListPoliciesResponse { policies: policies(&self.0) }))
    }

    async fn retry_policies(
        &self,
        _: Request<RetryPoliciesRequest>,
    ) -> Result<Response<RetryPoliciesResponse>, Status> {
        let (tried, done) = oneshot::channel();
        // Nobody takes it where no policies are to be loaded: then they are as they are.
        if self.0.retry_policies.send(tried).await.is_ok() {
            let _ended = done.await;
        }
        Ok(Response::new(RetryPoliciesResponse { policies: policies(&self.0) }))
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, Status> {
        let request = request.into_inner();
        let choosers = self.0.fleet.choosers();
        let function = Some(request.function.as_str()).filter(|name| !name.is_empty());
        let last = if request.last == 0 { DEFAULT_LAST } else { request.last as usize };
        let mut decisions = Vec::new();
        let wanted = |kind: &str| request.kind.is_empty() || request.kind == kind;
        if wanted("packing") {
            decisions.extend(choosers.packing.recent(function, last));
        }
        if wanted("placement") {
            decisions.extend(choosers.placement.recent(function, last));
        }
        if wanted("routing") {
            decisions.extend(self.0.hub.routing().recent(function, last));
        }
        decisions.sort_by_key(|decision| std::cmp::Reverse(decision.unix_ms));
        decisions.truncate(last);
        Ok(Response::new(ExplainPolicyResponse { decisions: decisions.into_iter().map(decision).collect() }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let frontend = &self.0;
        let ready = |worker: &&Arc<Worker>| worker.status().state == HostState::Ready;
        let hosts_ready = frontend.fleet.all().iter().filter(ready).count();
        Ok(Response::new(StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: millis(self.0.began.elapsed()),
            hosts_ready: u32::try_from(hosts_ready).unwrap_or(u32::MAX),
            account_concurrency_limit: frontend.counting.limits().account,
            running: frontend.admission.running(),
            invocations: frontend.invocations.load(Ordering::Relaxed),
            functions: u64::try_from(frontend.catalog.len()).unwrap_or(u64::MAX),
            epoch: frontend.hub.epoch(),
            rss_bytes: resident_bytes(),
        }))
    }

    async fn list_all_snapshots(
        &self,
        request: Request<ListAllSnapshotsRequest>,
    ) -> Result<Response<ListAllSnapshotsResponse>, Status> {
        Ok(Response::new(self.0.list_snapshots(request.into_inner()).await))
    }

    async fn verify_host_snapshot(
        &self,
        request: Request<HostSnapshotRequest>,
    ) -> Result<Response<VerifySnapshotResponse>, Status> {
        Ok(Response::new(self.0.verify_snapshot(request.into_inner()).await?))
    }

    async fn map_host_snapshot(
        &self,
        request: Request<MapHostSnapshotRequest>,
    ) -> Result<Response<MapSnapshotResponse>, Status> {
        Ok(Response::new(self.0.map_snapshot(request.into_inner()).await?))
    }

    async fn remove_host_snapshot(
        &self,
        request: Request<HostSnapshotRequest>,
    ) -> Result<Response<RemoveSnapshotResponse>, Status> {
        Ok(Response::new(self.0.remove_snapshot(request.into_inner()).await?))
    }
}

async fn sandboxes_of(worker: Arc<Worker>) -> Vec<Sandbox> {
    let mut client = worker.client();
    match tokio::time::timeout(ANSWER_TIME, client.list_sandboxes(ListSandboxesRequest {})).await {
        Ok(Ok(answer)) => answer.into_inner().sandboxes,
        Ok(Err(status)) => {
            tracing::warn!(host = %worker.id(), %status, "this worker does not list its sandboxes");
            Vec::new()
        }
        Err(_elapsed) => {
            tracing::warn!(host = %worker.id(), "this worker takes too long to list its sandboxes");
            Vec::new()
        }
    }
}

fn host(worker: &Worker) -> Host {
    let status = worker.status();
    Host {
        id: worker.id().to_string(),
        address: worker.address(),
        state: status.state.as_str().to_owned(),
        runtimes: status.runtimes,
        ends: status.ends,
        zygotes: Some(status.zygotes),
        shared: status.shared,
        pager: status.pager,
        last_heartbeat_ms: millis(status.heard.elapsed()),
        free_memory_mib: status.free_memory_mib,
        sandboxes: status.sandboxes,
        busy: status.busy,
        resources: Some(status.resources),
    }
}

pub(crate) fn no_such_host(name: &str) -> WireError {
    let message = format!("there is no host {:?}; `warren hosts` lists them", clip(name));
    WireError::new(Code::NotFound, reason::NO_SUCH_HOST, Fault::Caller, message)
}

fn policies(frontend: &Frontend) -> Vec<PolicyStatus> {
    let choosers = frontend.fleet.choosers();
    vec![
        policy(choosers.packing.status(), "assignment"),
        policy(choosers.placement.status(), "assignment"),
        policy(frontend.hub.routing().status(), "frontend"),
    ]
}

fn policy(figures: PolicyFigures, location: &str) -> PolicyStatus {
    let (name, digest) =
        figures.identity.map(|identity| (identity.name, identity.digest)).unwrap_or_default();
    PolicyStatus {
        kind: figures.kind.as_str().to_owned(),
        name: if name.is_empty() { "built-in".to_owned() } else { name },
        digest,
        state: figures.state.as_str().to_owned(),
        location: location.to_owned(),
        decisions: figures.decisions,
        fallbacks: figures.fallbacks,
        traps: figures.traps,
        timeouts: figures.timeouts.saturating_add(figures.out_of_fuel),
        invalid: figures.invalid,
        p50_ns: figures.p50_ns,
        p99_ns: figures.p99_ns,
        fuel_p50: figures.fuel_p50,
        last_error: figures.last_error,
    }
}

fn decision(explained: Explained) -> Decision {
    let (decided_by, fallback_reason) = match explained.by {
        By::Wasm => ("wasm", ""),
        By::Native(why) => ("native", why.as_str()),
    };
    let candidates = explained.candidates.into_iter().map(|candidate| Candidate {
        id: candidate.id,
        score: candidate.score,
        chosen: candidate.chosen,
        note: candidate.note,
    });
    Decision {
        unix_ms: explained.unix_ms,
        kind: explained.kind.as_str().to_owned(),
        function: explained.function,
        request_id: explained.request,
        decided_by: decided_by.to_owned(),
        fallback_reason: fallback_reason.to_owned(),
        text: explained.text,
        candidates: candidates.collect(),
        took_ns: explained.took_ns,
        fuel: explained.fuel,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Resident memory of this process; 0 where /proc does not say.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(4096)
}
