//! WorkerService: thin, each method one call into the machinery and its error put on the wire.
//!
//! Only control's certificate may call; that is checked before a message is read.

mod logs;
mod snapshots;
mod stream;

use crate::{
    host::Host,
    sandbox::{
        InvokeError, birth,
        detach::FinishDetached,
        invoke::{self, Invocation},
        machine::{Cause, Event},
    },
    version::{PrepareError, Startable, VersionSpec},
};
use bytes::Bytes;
use futures::Stream;
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::time::timeout;
use tonic::{
    Request, Response, Status,
    service::{Interceptor, interceptor::InterceptedService},
};
use warren_artefact::World as ArtefactWorld;
use warren_chunks::l2::{Service as Chunks, v1::chunks_server::ChunksServer};
use warren_identity::{Gate, WorkersOnly, require_control};
use warren_proto::{
    MAX_MESSAGE_BYTES,
    error::WireError,
    v1,
    v1::worker_service_server::{WorkerService, WorkerServiceServer},
};

/// How long a destroy waits for an idle sandbox to be reclaimed before it answers.
///
/// Control waits for that answer in one case alone: when an event needs the memory that the sandbox still has, which nobody can
/// give it sooner. All other ends are asked for by tasks of their own (`destroy_later`), and a sandbox's own end is its owner
/// task's work: no event waits for either.
const RECLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Clone, Debug)]
pub struct Worker {
    host: Arc<Host>,
}

/// The service behind its gate.
pub type Gated = InterceptedService<WorkerServiceServer<Worker>, ControlOnly>;

/// Lets control through and nobody else.
#[derive(Clone, Debug)]
pub struct ControlOnly(Arc<Gate>);

impl Interceptor for ControlOnly {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        require_control(&self.0, &request)?;
        Ok(request)
    }
}

/// Chunks, for other workers alone.
#[must_use]
pub fn for_workers(chunks: ChunksServer<Chunks>) -> InterceptedService<ChunksServer<Chunks>, WorkersOnly> {
    InterceptedService::new(chunks, WorkersOnly::new(Arc::new(Gate::certificates_only())))
}

/// The service, for control alone.
#[must_use]
pub fn gated(host: Arc<Host>) -> Gated {
    let server = WorkerServiceServer::new(Worker { host })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    InterceptedService::new(server, ControlOnly(Arc::new(Gate::certificates_only())))
}

const fn world_of(world: ArtefactWorld) -> v1::World {
    match world {
        ArtefactWorld::Preview1 => v1::World::WasiPreview1,
        ArtefactWorld::Function => v1::World::Component,
        _ => v1::World::Unspecified,
    }
}

fn status(error: impl Into<WireError>) -> Status {
    error.into().into()
}

#[tonic::async_trait]
impl WorkerService for Worker {
    async fn prepare_version(
        &self,
        request: Request<v1::PrepareVersionRequest>,
    ) -> Result<Response<v1::PrepareVersionResponse>, Status> {
        let v1::PrepareVersionRequest { version, code, task } = request.into_inner();
        let spec = VersionSpec::check(version.as_ref()).map_err(PrepareError::from).map_err(status)?;
        let prepared = self.host.versions.prepare(&spec, code, task).await.map_err(status)?;
        let (world, artefact_bytes, runtime_digest) = match &prepared.version {
            Startable::Wasm(version) => {
                (world_of(version.code.world), version.code.file.len(), String::new())
            }
            Startable::Linux(version) => (v1::World::Unspecified, 0, version.runtime.manifest.digest.clone()),
        };
        Ok(Response::new(v1::PrepareVersionResponse {
            world: world.into(),
            artefact_bytes,
            compile_ms: u64::try_from(prepared.compile.as_millis()).unwrap_or(u64::MAX),
            cached: prepared.cached,
            runtime_digest,
        }))
    }

    async fn compile_policy(
        &self,
        request: Request<v1::CompilePolicyRequest>,
    ) -> Result<Response<v1::CompilePolicyResponse>, Status> {
        let component = request.into_inner().component;
        let compiled = self.host.versions.policy(component).await.map_err(status)?;
        let compile_ms = u64::try_from(compiled.1.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(v1::CompilePolicyResponse { artefact: compiled.0, compile_ms }))
    }

    async fn create_sandbox(
        &self,
        request: Request<v1::CreateSandboxRequest>,
    ) -> Result<Response<v1::CreateSandboxResponse>, Status> {
        let (sandbox, timings) = birth::create(&self.host, request.into_inner()).await.map_err(status)?;
        Ok(Response::new(v1::CreateSandboxResponse {
            sandbox: Some(sandbox.on_wire(&self.host.id)),
            jail_us: timings.jail_us,
            vm_us: timings.vm_us,
            init_us: timings.init_us,
            restore_us: timings.restore_us,
        }))
    }

    async fn destroy_sandbox(
        &self,
        request: Request<v1::DestroySandboxRequest>,
    ) -> Result<Response<v1::DestroySandboxResponse>, Status> {
        let request = request.into_inner();
        // One that is not there is destroyed: the command is idempotent.
        if let Some(sandbox) = self.host.sandboxes.get(&request.sandbox_id) {
            self.host.fence.admit(sandbox.about.partition, request.epoch).await.map_err(status)?;
            // `Drain` is legal in every state.
            let _ = sandbox.apply(Event::Drain(Cause::Destroyed(request.reason)));
            self.host.report(&sandbox);
            if sandbox.state().on_wire() == v1::SandboxState::Dead {
                let _ = timeout(RECLAIM_PATIENCE, sandbox.wait_gone()).await;
            }
        }
        Ok(Response::new(v1::DestroySandboxResponse {}))
    }

    async fn list_sandboxes(
        &self,
        _request: Request<v1::ListSandboxesRequest>,
    ) -> Result<Response<v1::ListSandboxesResponse>, Status> {
        let sandboxes = self.host.sandboxes.all();
        let mut sandboxes: Vec<_> = sandboxes.iter().map(|sandbox| sandbox.on_wire(&self.host.id)).collect();
        sandboxes.extend(self.host.zygotes.on_wire(&self.host.id));
        Ok(Response::new(v1::ListSandboxesResponse { sandboxes }))
    }

    async fn invoke_sandbox(
        &self,
        request: Request<v1::InvokeSandboxRequest>,
    ) -> Result<Response<v1::InvokeSandboxResponse>, Status> {
        let (begun, invocation) = self.begin(request.into_inner()).await.map_err(status)?;
        let work = invoke::run(Arc::clone(&self.host), begun, invocation, None);
        FinishDetached::new(work).await.map(Response::new).map_err(status)
    }

    type InvokeSandboxStreamStream = Answers<v1::InvokeSandboxEvent>;

    async fn invoke_sandbox_stream(
        &self,
        request: Request<v1::InvokeSandboxRequest>,
    ) -> Result<Response<Self::InvokeSandboxStreamStream>, Status> {
        let (begun, invocation) = self.begin(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(stream::invoke(Arc::clone(&self.host), begun, invocation)))
    }

    async fn retain(
        &self,
        request: Request<v1::RetainRequest>,
    ) -> Result<Response<v1::RetainResponse>, Status> {
        let removed = crate::garbage::retain(&self.host, request.into_inner()).await.map_err(status)?;
        Ok(Response::new(removed))
    }

    type WorkerLogsStream = Answers<v1::LogLine>;

    async fn worker_logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::WorkerLogsStream>, Status> {
        let request = request.into_inner();
        logs::check(&request).map_err(status)?;
        Ok(Response::new(logs::read(&self.host, request).await))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        let listed = snapshots::list(&self.host, &request.get_ref().function).await.map_err(status)?;
        Ok(Response::new(listed))
    }

    async fn make_snapshot(
        &self,
        request: Request<v1::MakeSnapshotRequest>,
    ) -> Result<Response<v1::MakeSnapshotResponse>, Status> {
        let version = request.into_inner().version;
        let spec = VersionSpec::check(version.as_ref()).map_err(PrepareError::from).map_err(status)?;
        let prepared = self.host.versions.prepare(&spec, Bytes::new(), Bytes::new()).await.map_err(status)?;
        let published = self.host.snapshots.publish(&self.host, &spec, &prepared.version).await;
        Ok(Response::new(snapshots::published(published)))
    }

    async fn verify_snapshot(
        &self,
        request: Request<v1::VerifySnapshotRequest>,
    ) -> Result<Response<v1::VerifySnapshotResponse>, Status> {
        let verified = snapshots::verify(&self.host, &request.get_ref().key).await.map_err(status)?;
        Ok(Response::new(verified))
    }

    async fn map_snapshot(
        &self,
        request: Request<v1::MapSnapshotRequest>,
    ) -> Result<Response<v1::MapSnapshotResponse>, Status> {
        let mapped = snapshots::map(&self.host, request.get_ref()).await.map_err(status)?;
        Ok(Response::new(mapped))
    }

    async fn remove_snapshot(
        &self,
        request: Request<v1::RemoveSnapshotRequest>,
    ) -> Result<Response<v1::RemoveSnapshotResponse>, Status> {
        let removed = snapshots::remove(&self.host, request.get_ref()).await.map_err(status)?;
        Ok(Response::new(removed))
    }
}

impl Worker {
    async fn begin(
        &self,
        request: v1::InvokeSandboxRequest,
    ) -> Result<(crate::sandbox::live::Begun, Invocation), InvokeError> {
        let sandbox = self.host.sandboxes.get(&request.sandbox_id);
        let sandbox = sandbox.ok_or_else(|| InvokeError::Gone(request.sandbox_id.clone()))?;
        let invocation = Invocation::check(request, sandbox.about.timeout_ms)?;
        let begun = invocation.begin(&self.host, &sandbox).await?;
        Ok((begun, invocation))
    }
}
