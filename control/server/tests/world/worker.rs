//! A worker that speaks the real protocol; what its sandboxes do is in the payload. Long because a service is one `impl`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint, Server},
};
use warren_identity::{Peer, Service, client_tls, server_tls};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        self, Sandbox, SandboxState, fleet_service_client::FleetServiceClient,
        worker_service_server as server,
    },
};

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    /// Most that ever ran at once, by function.
    peak: BTreeMap<String, usize>,
    running: BTreeMap<String, usize>,
    /// Running per grant.
    grants: BTreeMap<(u64, u64), u32>,
    changed: Vec<Sandbox>,
    /// Failures still to come, by payload: "once" payloads fail the first time.
    failed: Vec<String>,
    /// How often each payload was really run.
    ran: BTreeMap<String, usize>,
    /// Memory that is no sandbox's: a compilation's.
    compiling_mib: u64,
    /// Snapshots of an earlier release: function, version, key.
    outdated: Vec<(String, u64, String)>,
}

impl State {
    /// Of 1024 MiB.
    fn free_mib(&self) -> u64 {
        let used: u64 = self.sandboxes.values().map(|sandbox| u64::from(sandbox.memory_mib)).sum();
        1024_u64.saturating_sub(used + self.compiling_mib)
    }
}

#[derive(Clone)]
pub struct ScriptedWorker {
    state: Arc<Mutex<State>>,
    /// Invocations of payload "hold" wait for a permit.
    pub hold: Arc<Semaphore>,
    /// Deploys wait for a permit.
    pub prepare: Arc<Semaphore>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
    address: SocketAddr,
}

impl ScriptedWorker {
    /// Serves, registers, and sends heartbeats.
    pub async fn join(identity: &Path, control: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let worker = Self {
            state: Arc::default(),
            hold: Arc::new(Semaphore::new(0)),
            prepare: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            tasks: Arc::default(),
            address,
        };
        let serve = Server::builder()
            .tls_config(server_tls(identity, Service::Agent).unwrap())
            .unwrap()
            .add_service(
                server::WorkerServiceServer::new(worker.clone())
                    .max_decoding_message_size(usize::MAX)
                    .max_encoding_message_size(usize::MAX),
            )
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let serving = tokio::spawn(async move { drop(serve.await) });
        worker.tasks.lock().unwrap().push(serving);
        worker.report_to(identity, control).await;
        worker
    }

    /// Registers with control, and sends heartbeats from then on.
    pub async fn report_to(&self, identity: &Path, control: SocketAddr) {
        let tls = client_tls(identity, Service::Agent, &Peer::Control).unwrap();
        let channel = Endpoint::from_shared(format!("https://{control}")).unwrap().tls_config(tls).unwrap();
        let mut fleet = FleetServiceClient::new(channel.connect_lazy());
        self.register(&mut fleet, "w1").await.unwrap();
        let worker = self.clone();
        let beats = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let beat = worker.heartbeat();
                match fleet.heartbeat(beat).await {
                    Ok(answer) if !answer.get_ref().known => {
                        drop(worker.register(&mut fleet, "w1").await);
                    }
                    _ => {}
                }
            }
        });
        self.tasks.lock().unwrap().push(beats);
    }

    pub async fn register(
        &self,
        fleet: &mut FleetServiceClient<Channel>,
        as_host: &str,
    ) -> Result<(), Status> {
        let request = v1::RegisterWorkerRequest {
            host_id: as_host.to_owned(),
            address: self.address.to_string(),
            resources: Some(v1::HostResources {
                cpu_millis: 4000,
                memory_mib: 1024,
                guests: vec!["wasm".to_owned()],
                ..Default::default()
            }),
            sandboxes: self.sandboxes(),
            builder_key: vec![0; 32].into(),
            runtimes: Vec::new(),
        };
        fleet.register_worker(request).await.map(drop)
    }

    /// Everything of it stops at once, connections included.
    pub fn die(&self) {
        self.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
    }

    pub fn sandboxes(&self) -> Vec<Sandbox> {
        self.state.lock().unwrap().sandboxes.values().cloned().collect()
    }

    pub fn peak(&self, function: &str) -> usize {
        self.state.lock().unwrap().peak.get(function).copied().unwrap_or(0)
    }

    pub fn running(&self) -> usize {
        self.state.lock().unwrap().running.values().sum()
    }

    pub fn ran(&self, payload: &str) -> usize {
        self.state.lock().unwrap().ran.get(payload).copied().unwrap_or(0)
    }

    /// From the next heartbeat on so much memory is taken by what is no sandbox.
    pub fn compiles_with(&self, mib: u64) {
        self.state.lock().unwrap().compiling_mib = mib;
    }

    /// It keeps a snapshot of an earlier release.
    pub fn keeps(&self, function: &str, version: u64, digit: &str) {
        let kept = (function.to_owned(), version, digit.repeat(64));
        self.state.lock().unwrap().outdated.push(kept);
    }

    /// Functions of whose snapshots it has earlier ones.
    pub fn outdated(&self) -> Vec<String> {
        self.state.lock().unwrap().outdated.iter().map(|(function, ..)| function.clone()).collect()
    }

    fn heartbeat(&self) -> v1::HeartbeatRequest {
        let mut state = self.state.lock().unwrap();
        v1::HeartbeatRequest {
            host_id: "w1".to_owned(),
            free_memory_mib: state.free_mib(),
            sandboxes: u32::try_from(state.sandboxes.len()).unwrap(),
            busy: u32::try_from(state.running.values().sum::<usize>()).unwrap(),
            changed: std::mem::take(&mut state.changed),
            grants: state
                .grants
                .iter()
                .map(|((id, epoch), running)| v1::GrantUse {
                    grant_id: *id,
                    epoch: *epoch,
                    running: *running,
                })
                .collect(),
            ..v1::HeartbeatRequest::default()
        }
    }

    fn lose(&self, id: &str) {
        let mut state = self.state.lock().unwrap();
        if let Some(mut sandbox) = state.sandboxes.remove(id) {
            sandbox.state = SandboxState::Dead.into();
            state.changed.push(sandbox);
        }
    }

    /// Whether this payload fails now: "…-once" fails the first time only.
    fn fails(&self, payload: &str) -> bool {
        let mut state = self.state.lock().unwrap();
        let again = state.failed.iter().any(|known| known == payload);
        state.failed.push(payload.to_owned());
        !(again && payload.ends_with("-once"))
    }

    fn enter(&self, function: &str, payload: &str, grant: (u64, u64)) {
        let mut state = self.state.lock().unwrap();
        *state.ran.entry(payload.to_owned()).or_default() += 1;
        *state.grants.entry(grant).or_default() += 1;
        let running = state.running.entry(function.to_owned()).or_default();
        *running += 1;
        let running = *running;
        let peak = state.peak.entry(function.to_owned()).or_default();
        *peak = running.max(*peak);
    }

    fn leave(&self, id: &str, function: &str, grant: (u64, u64)) {
        let mut state = self.state.lock().unwrap();
        *state.running.get_mut(function).unwrap() -= 1;
        *state.grants.get_mut(&grant).unwrap() -= 1;
        state.grants.retain(|_, running| *running > 0);
        if let Some(sandbox) = state.sandboxes.get_mut(id) {
            sandbox.state = SandboxState::Idle.into();
            let sandbox = sandbox.clone();
            state.changed.push(sandbox);
        }
    }
}

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

    async fn worker_logs(&self, _: Request<v1::LogsRequest>) -> Result<Response<Lines>, Status> {
        let line = |sequence| v1::LogLine { host_id: "w1".to_owned(), sequence, ..Default::default() };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(line(1)), Ok(line(2))]))))
    }
}
