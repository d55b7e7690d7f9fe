//! One worker host as control knows it: its connection and what it last said.

use arc_swap::ArcSwap;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tonic::transport::Channel;
use warren_proto::{
    MAX_MESSAGE_BYTES,
    v1::{HostResources, worker_service_client::WorkerServiceClient},
};

/// The generated client, on this worker's one connection.
pub type Client = WorkerServiceClient<Channel>;

/// Whether a host may be given work.
///
/// ```text
/// register --> Ready --(three heartbeats missed)--> Lost --(register again)--> Ready
///                |--(operator)--> Draining --(three missed)--> Lost
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// Takes new sandboxes.
    Ready,
    /// Finishes what it has.
    Draining,
    /// Not heard of for three heartbeats.
    Lost,
}

impl HostState {
    /// The name people read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Lost => "lost",
        }
    }
}

/// What a host last said, and what was promised on it since.
#[derive(Clone, Debug)]
pub struct HostStatus {
    /// Whether it may be given work.
    pub state: HostState,
    /// What it has.
    pub resources: HostResources,
    /// Memory not promised to a sandbox, by its last heartbeat less what was promised since.
    pub free_memory_mib: u64,
    /// Sandboxes, by its last heartbeat.
    pub sandboxes: u32,
    /// Of them, running an invocation.
    pub busy: u32,
    /// When it was last heard of.
    pub heard: Instant,
}

/// A worker host. Lives as long as control does; a host that registers again is the same one.
#[derive(Debug)]
pub struct Worker {
    id: Arc<str>,
    link: ArcSwap<(String, Client)>,
    status: Mutex<HostStatus>,
}

impl Worker {
    pub(crate) fn new(id: Arc<str>, address: String, channel: Channel, status: HostStatus) -> Self {
        Self { id, link: ArcSwap::from_pointee((address, client(channel))), status: Mutex::new(status) }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.link.load().0.clone()
    }

    /// A client on its connection; cheap.
    #[must_use]
    pub fn client(&self) -> Client {
        self.link.load().1.clone()
    }

    pub(crate) fn relink(&self, address: String, channel: Channel) {
        self.link.store(Arc::new((address, client(channel))));
    }

    /// What it last said.
    #[must_use]
    pub fn status(&self) -> HostStatus {
        self.lock().clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HostStatus> {
        // Every writer leaves the status whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(channel: Channel) -> Client {
    WorkerServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}
