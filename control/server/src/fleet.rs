//! `FleetService`: what agents call. A worker can only speak for itself.

use crate::policies::Builder;
use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};
use warren_assignment::{Assignment, Gone};
use warren_counting::GrantId;
use warren_frontend::Frontend;
use warren_identity::{Credentials, HostId, Line, Peer, require_worker};
use warren_placement::{HEARTBEAT, Neighbourhoods, Wires, express};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{
        self, BlobChunk, FetchBlobRequest, HeartbeatRequest, HeartbeatResponse, RegisterWorkerRequest,
        RegisterWorkerResponse, SandboxState, fleet_service_server,
    },
};
use warren_validation::{bad_request, clip, worker};

/// A piece of a blob.
const CHUNK_BYTES: usize = 1 << 20;

/// Serves agents.
#[derive(Clone, Debug)]
pub(crate) struct Fleets {
    pub(crate) frontend: Arc<Frontend>,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) credentials: Credentials,
    /// Tells the policy loader of workers that can compile.
    pub(crate) builder: tokio::sync::watch::Sender<Builder>,
    /// Who asks whom for chunks.
    pub(crate) neighbours: Arc<Neighbourhoods>,
}

#[tonic::async_trait]
impl fleet_service_server::FleetService for Fleets {
    async fn register_worker(
        &self,
        request: Request<RegisterWorkerRequest>,
    ) -> Result<Response<RegisterWorkerResponse>, Status> {
        let host = self.speaker(&request, |request| &request.host_id)?;
        let request = worker::registration(request.into_inner())?;
        // Durable before the worker knows its epoch, so before it can run anything that has to be counted.
        let name = host.as_str().into();
        self.frontend.counting.host_joined(&name).await.map_err(|error| {
            WireError::new(Code::Unavailable, reason::STORE_FAILED, Fault::System, error.to_string())
                .retryable(None)
        })?;
        let connect = |address: &str| connect(&self.credentials, &host, address);
        let worker = self.frontend.fleet.register(&request, Instant::now(), connect).map_err(|error| {
            let message = format!("cannot connect to {:?}: {error}", clip(&request.address));
            Status::from(bad_request(message))
        })?;
        tracing::info!(%host, address = request.address, sandboxes = request.sandboxes.len(), "a worker registered");
        forget(&self.frontend, worker.id(), &self.assignment.resync(worker.id(), &request.sandboxes));
        self.idle_again(worker.id(), &request.sandboxes);
        let (frontend, renewed) = (Arc::clone(&self.frontend), Arc::clone(&worker));
        tokio::spawn(async move { frontend.renew(&renewed).await });
        self.builder.send_replace(Some((worker, request.builder_key.to_vec())));
        Ok(Response::new(RegisterWorkerResponse {
            heartbeat_ms: u32::try_from(HEARTBEAT.as_millis()).unwrap_or(u32::MAX),
            epoch: self.assignment.epoch(),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        self.speaker(&request, |request| &request.host_id)?;
        let request = worker::heartbeat(request.into_inner())?;
        let now = Instant::now();
        let known = self.frontend.fleet.heartbeat(&request, now);
        let mut neighbours = None;
        if known {
            let fleet = &self.frontend.fleet;
            neighbours = self.neighbours.news(fleet, &request.host_id, request.neighbours, now);
            let host = request.host_id.as_str().into();
            let running = request.grants.iter().map(|used| (GrantId(used.grant_id), used.running)).collect();
            self.frontend.counting.report(&host, &running);
            forget(&self.frontend, &host, &self.assignment.report(&host, &request.changed));
            self.idle_again(&host, &request.changed);
        }
        Ok(Response::new(HeartbeatResponse { known, neighbours }))
    }

    type FetchBlobStream = Pin<Box<dyn Stream<Item = Result<BlobChunk, Status>> + Send>>;

    async fn fetch_blob(
        &self,
        request: Request<FetchBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        require_worker(&self.frontend.gate, &request)?;
        let mut blob = self.frontend.blob(&request.get_ref().digest).await?;
        let pieces = std::iter::from_fn(move || {
            (!blob.is_empty()).then(|| Ok(BlobChunk { data: blob.split_to(blob.len().min(CHUNK_BYTES)) }))
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }
}

impl Fleets {
    pub(crate) fn new(
        frontend: &Arc<Frontend>,
        assignment: Arc<Assignment>,
        credentials: Credentials,
        builder: tokio::sync::watch::Sender<Builder>,
    ) -> Self {
        Self { frontend: Arc::clone(frontend), assignment, credentials, builder, neighbours: Arc::default() }
    }

    /// Sandboxes that run nothing hold nobody's slot.
    fn idle_again(&self, host: &str, said: &[v1::Sandbox]) {
        for sandbox in said.iter().filter(|sandbox| sandbox.state() != SandboxState::Busy) {
            self.frontend.lingering.ended(host, &sandbox.id);
        }
    }

    /// The host whose certificate sent this, if the request speaks for that very host.
    fn speaker<T>(&self, request: &Request<T>, named: impl Fn(&T) -> &String) -> Result<HostId, Status> {
        let host = require_worker(&self.frontend.gate, request)?;
        if host.as_str() == named(request.get_ref()) {
            return Ok(host);
        }
        let message = format!("this certificate is {host}'s and cannot speak for another host");
        Err(WireError::new(Code::PermissionDenied, reason::WRONG_ROLE, Fault::Caller, message).into())
    }
}

/// Sandboxes are gone, says their worker: whoever holds them idle forgets them, and they run nothing any more.
pub(crate) fn forget(frontend: &Frontend, host: &str, gone: &[Gone]) {
    for (id, _) in gone {
        frontend.lingering.ended(host, id);
    }
    withdraw(frontend, gone);
}

/// Whoever holds these idle forgets them. Something may still run in them: their host is only silent.
pub(crate) fn withdraw(frontend: &Frontend, gone: &[Gone]) {
    for (id, key) in gone {
        let entry = frontend.catalog.get(&key.function);
        if let Some(version) = entry.and_then(|entry| entry.versions.get(&key.version).cloned()) {
            frontend.hub.forget(&version, std::slice::from_ref(id));
        }
    }
}

fn connect(
    credentials: &Credentials,
    host: &HostId,
    address: &str,
) -> Result<Wires, tonic::transport::Error> {
    let peer = Peer::Worker(host.clone());
    let general = Line::new(credentials.clone(), &peer, address, |endpoint| {
        endpoint
            .connect_timeout(Duration::from_secs(3))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            // One large payload must not hold up the others on this connection.
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(64 << 20)
    })?;
    Ok(Wires { general, express: express(address, &peer, credentials.clone()) })
}
