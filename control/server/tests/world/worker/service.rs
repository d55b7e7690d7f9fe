//! What control asks of a scripted worker; what a sandbox does is in the payload.

use super::ScriptedWorker;
use std::pin::Pin;
use tonic::{Code, Request, Response, Status};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{self, Sandbox, SandboxState, worker_service_server as server},
};

fn system(code: Code, reason: &str) -> Status {
    WireError::new(code, reason, Fault::System, "as the script says").retryable(None).into()
}

type Lines = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::LogLine, Status>> + Send>>;
type Events = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::InvokeSandboxEvent, Status>> + Send>>;

#[tonic::async_trait]
impl server::WorkerService for ScriptedWorker {
    async fn prepare_version(
        &self,
        _: Request<v1::PrepareVersionRequest>,
    ) -> Result<Response<v1::PrepareVersionResponse>, Status> {
        self.prepare.acquire().await.unwrap().forget();
        self.prepare.add_permits(1);
        Ok(Response::new(v1::PrepareVersionResponse { world: 1, ..Default::default() }))
    }

    async fn compile_policy(
        &self,
        _: Request<v1::CompilePolicyRequest>,
    ) -> Result<Response<v1::CompilePolicyResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn create_sandbox(
        &self,
        request: Request<v1::CreateSandboxRequest>,
    ) -> Result<Response<v1::CreateSandboxResponse>, Status> {
        let request = request.into_inner();
        let version = request.version.unwrap();
        let sandbox = Sandbox {
            id: request.sandbox_id.clone(),
            host_id: "w1".to_owned(),
            function: version.name,
            version: version.version,
            state: SandboxState::Idle.into(),
            memory_mib: version.limits.unwrap().memory_mib,
            epoch: request.epoch,
            ..Default::default()
        };
        let mut state = self.state.lock().unwrap();
        if state.free_mib() < u64::from(sandbox.memory_mib) {
            let full = WireError::new(Code::ResourceExhausted, reason::HOST_FULL, Fault::System, "full");
            return Err(full.into());
        }
        state.sandboxes.insert(request.sandbox_id, sandbox.clone());
        Ok(Response::new(v1::CreateSandboxResponse {
            sandbox: Some(sandbox),
            jail_us: 1,
            vm_us: 2,
            init_us: 3,
            restore_us: 0,
        }))
    }

    async fn destroy_sandbox(
        &self,
        request: Request<v1::DestroySandboxRequest>,
    ) -> Result<Response<v1::DestroySandboxResponse>, Status> {
        self.lose(&request.get_ref().sandbox_id);
        Ok(Response::new(v1::DestroySandboxResponse {}))
    }

    async fn list_sandboxes(
        &self,
        _: Request<v1::ListSandboxesRequest>,
    ) -> Result<Response<v1::ListSandboxesResponse>, Status> {
        Ok(Response::new(v1::ListSandboxesResponse { sandboxes: self.sandboxes() }))
    }

    async fn invoke_sandbox(
        &self,
        request: Request<v1::InvokeSandboxRequest>,
    ) -> Result<Response<v1::InvokeSandboxResponse>, Status> {
        let request = request.into_inner();
        let payload = String::from_utf8_lossy(&request.payload).into_owned();
        let Some(sandbox) = self.state.lock().unwrap().sandboxes.get(&request.sandbox_id).cloned() else {
            return Err(system(Code::NotFound, reason::SANDBOX_GONE));
        };
        let kind = payload.split('-').next().unwrap_or_default();
        if matches!(kind, "busy" | "gone" | "early" | "lost") && self.fails(&payload) {
            return Err(match kind {
                "busy" => system(Code::FailedPrecondition, reason::SANDBOX_BUSY),
                other => {
                    self.lose(&request.sandbox_id);
                    match other {
                        "gone" => system(Code::NotFound, reason::SANDBOX_GONE),
                        "early" => system(Code::Unavailable, reason::SANDBOX_LOST_BEFORE_START),
                        _ => system(Code::Unavailable, reason::SANDBOX_LOST),
                    }
                }
            });
        }
        let grant = (request.grant_id, request.grant_epoch);
        self.enter(&sandbox.function, &payload, grant);
        let (worker, holds) = (self.clone(), kind == "hold");
        // What runs, runs to its end, whoever asked for it is still there or not.
        let run = tokio::spawn(async move {
            if holds {
                worker.hold.acquire().await.unwrap().forget();
            }
            worker.leave(&request.sandbox_id, &sandbox.function, grant);
        });
        run.await.unwrap();
        if kind == "trap" {
            let error =
                WireError::new(Code::Unknown, reason::FUNCTION_TRAPPED, Fault::Function, "unreachable");
            return Err(error.into());
        }
        Ok(Response::new(v1::InvokeSandboxResponse { payload: request.payload, ..Default::default() }))
    }

    type InvokeSandboxStreamStream = Events;

    async fn invoke_sandbox_stream(
        &self,
        request: Request<v1::InvokeSandboxRequest>,
    ) -> Result<Response<Events>, Status> {
        use v1::invoke_sandbox_event::Event;
        let line = v1::LogLine { text: "a line".to_owned(), ..Default::default() };
        let end = self.invoke_sandbox(request).await?.into_inner();
        let events = [Event::Log(line), Event::End(end)]
            .map(|event| Ok(v1::InvokeSandboxEvent { event: Some(event) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    type WorkerLogsStream = Lines;

    async fn retain(&self, _: Request<v1::RetainRequest>) -> Result<Response<v1::RetainResponse>, Status> {
        Ok(Response::new(v1::RetainResponse::default()))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let function = request.into_inner().function;
        let one = v1::Snapshot { host_id: "w1".to_owned(), function, ..Default::default() };
        let state = self.state.lock().unwrap();
        let outdated = state.outdated.iter().map(|(function, version, key)| v1::Snapshot {
            host_id: "w1".to_owned(),
            function: function.clone(),
            version: *version,
            key: key.clone(),
            state: v1::SnapshotState::Outdated.into(),
            ..Default::default()
        });
        Ok(Response::new(v1::ListSnapshotsResponse { snapshots: outdated.chain([one]).collect() }))
    }

    async fn make_snapshot(
        &self,
        request: Request<v1::MakeSnapshotRequest>,
    ) -> Result<Response<v1::MakeSnapshotResponse>, Status> {
        let name = request.into_inner().version.unwrap().name;
        let (outcome, digit) = match name.split('-').next().unwrap_or_default() {
            "drew" => (v1::SnapshotOutcome::Cannot, ""),
            "full" => (v1::SnapshotOutcome::NotNow, ""),
            "trap" => (v1::SnapshotOutcome::InitFailed, ""),
            "slow" => (v1::SnapshotOutcome::InitTimedOut, ""),
            "lost" => return Err(Status::unavailable("as the script says")),
            "torn" => (v1::SnapshotOutcome::Made, "1"),
            _ => (v1::SnapshotOutcome::Made, "0"),
        };
        let reason = if digit.is_empty() { format!("{name}, it says") } else { String::new() };
        let (outcome, key) = (outcome.into(), digit.repeat(64));
        Ok(Response::new(v1::MakeSnapshotResponse { outcome, key, reason }))
    }

    async fn verify_snapshot(
        &self,
        request: Request<v1::VerifySnapshotRequest>,
    ) -> Result<Response<v1::VerifySnapshotResponse>, Status> {
        let good = request.into_inner().key.starts_with('0');
        Ok(Response::new(v1::VerifySnapshotResponse { good, ..Default::default() }))
    }

    async fn map_snapshot(
        &self,
        request: Request<v1::MapSnapshotRequest>,
    ) -> Result<Response<v1::MapSnapshotResponse>, Status> {
        // It says back what it was asked: which of the two keys is which.
        let v1::MapSnapshotRequest { key, base_key } = request.into_inner();
        let digits = |key: &str| u32::from_str_radix(key.get(..1).unwrap_or_default(), 16).unwrap_or(99);
        let window =
            v1::SnapshotWindow { same: digits(&key), filled: digits(&base_key), ..Default::default() };
        Ok(Response::new(v1::MapSnapshotResponse { windows: vec![window], ..Default::default() }))
    }

    async fn remove_snapshot(
        &self,
        request: Request<v1::RemoveSnapshotRequest>,
    ) -> Result<Response<v1::RemoveSnapshotResponse>, Status> {
        let v1::RemoveSnapshotRequest { key, here_only } = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let before = state.outdated.len();
        state.outdated.retain(|(_, _, kept)| !here_only || *kept != key);
        if state.outdated.len() < before {
            return Ok(Response::new(v1::RemoveSnapshotResponse {}));
        }
        let none = WireError::new(Code::NotFound, reason::NO_SUCH_SNAPSHOT, Fault::Caller, "none");
        Err(none.into())
    }

    async fn worker_logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Lines>, Status> {
        let line = |sequence| Ok(v1::LogLine { host_id: "w1".to_owned(), sequence, ..Default::default() });
        // Of "babble" it never comes to an end.
        let last = if request.get_ref().function == "babble" { u64::MAX } else { 2 };
        Ok(Response::new(Box::pin(tokio_stream::iter((1..=last).map(line)))))
    }
}
