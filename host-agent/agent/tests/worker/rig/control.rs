//! The test in control's place: it takes registrations and heartbeats, and gives blobs.

use std::{
    collections::HashMap,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};
use warren_identity::{Gate, Service, require_worker, server_tls};
use warren_proto::v1::{
    self,
    fleet_service_server::{FleetService, FleetServiceServer},
};

#[derive(Default)]
struct State {
    registrations: Vec<v1::RegisterWorkerRequest>,
    heartbeats: u64,
    last: v1::HeartbeatRequest,
    died: Vec<String>,
    blobs: HashMap<String, Vec<u8>>,
    forget: bool,
    neighbours: Option<v1::Neighbours>,
}

#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    pub(crate) epoch: Arc<AtomicU64>,
}

impl Control {
    pub(crate) async fn start(identity: &Path) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let control = Self { address, state: Arc::default(), epoch: Arc::new(AtomicU64::new(1)) };
        let tls = server_tls(identity, Service::Control).unwrap();
        let service =
            FleetServiceServer::new(Fleet { control: control.clone(), gate: Gate::certificates_only() });
        let server = Server::builder().tls_config(tls).unwrap().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        control
    }

    pub(crate) fn registrations(&self) -> Vec<v1::RegisterWorkerRequest> {
        self.state.lock().unwrap().registrations.clone()
    }

    pub(crate) fn last_heartbeat(&self) -> (u64, v1::HeartbeatRequest) {
        let state = self.state.lock().unwrap();
        (state.heartbeats, state.last.clone())
    }

    /// Sandboxes that heartbeats called dead.
    pub(crate) fn died(&self) -> Vec<String> {
        self.state.lock().unwrap().died.clone()
    }

    pub(crate) fn add_blob(&self, bytes: &[u8]) {
        let digest = blake3::hash(bytes).to_hex().to_string();
        self.state.lock().unwrap().blobs.insert(digest, bytes.to_vec());
    }

    /// Its worker shall ask these for chunks.
    pub(crate) fn introduce(&self, neighbours: v1::Neighbours) {
        self.state.lock().unwrap().neighbours = Some(neighbours);
    }

    /// As after a restart: the next heartbeat is not known.
    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().forget = true;
    }
}

struct Fleet {
    control: Control,
    gate: Gate,
}

#[tonic::async_trait]
impl FleetService for Fleet {
    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerResponse>, Status> {
        let host = require_worker(&self.gate, &request)?;
        let request = request.into_inner();
        assert_eq!(request.host_id, host.as_str());
        self.control.state.lock().unwrap().registrations.push(request);
        let epoch = self.control.epoch.load(Ordering::Relaxed);
        Ok(Response::new(v1::RegisterWorkerResponse { heartbeat_ms: 50, epoch }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let mut state = self.control.state.lock().unwrap();
        state.heartbeats += 1;
        state.last = request.into_inner();
        let dead = state.last.changed.iter().filter(|sandbox| sandbox.state() == v1::SandboxState::Dead);
        let dead: Vec<String> = dead.map(|sandbox| sandbox.id.clone()).collect();
        state.died.extend(dead);
        let known = !core::mem::take(&mut state.forget);
        let has = state.last.neighbours;
        let neighbours = state.neighbours.clone().filter(|list| list.revision != has);
        Ok(Response::new(v1::HeartbeatResponse { known, neighbours }))
    }

    type FetchBlobStream = Pin<Box<dyn Stream<Item = Result<v1::BlobChunk, Status>> + Send>>;

    async fn fetch_blob(
        &self,
        request: Request<v1::FetchBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        let digest = request.into_inner().digest;
        let blob = self.control.state.lock().unwrap().blobs.get(&digest).cloned();
        let blob = blob.ok_or_else(|| Status::not_found("no such blob"))?;
        let chunks: Vec<_> =
            blob.chunks(1000).map(|chunk| Ok(v1::BlobChunk { data: chunk.to_vec().into() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}
