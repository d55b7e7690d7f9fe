//! A worker that speaks the real protocol: what it keeps, and what it tells control. `service` is what control asks of it.

mod service;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Server},
};
use warren_identity::{Peer, Service, client_tls, server_tls};
use warren_proto::v1::{
    self, Sandbox, SandboxState, fleet_service_client::FleetServiceClient, worker_service_server as server,
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
        fleet.register_worker(self.registration(as_host)).await.map(drop)
    }

    /// What it says of itself.
    pub fn registration(&self, as_host: &str) -> v1::RegisterWorkerRequest {
        v1::RegisterWorkerRequest {
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
        }
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
