//! One worker host as control knows it: its connection and what it last said.

use crate::lane::Express;
use arc_swap::ArcSwap;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};
use tonic::transport::Channel;
use warren_identity::Line;
use warren_proto::{
    MAX_MESSAGE_BYTES,
    v1::{
        FunctionVersion, HostResources, Kind, Network, Pager, Runtime, SharedSnapshots, Zygotes,
        worker_service_client::WorkerServiceClient,
    },
};

/// The generated client, on this worker's general channel.
pub type Client = WorkerServiceClient<Channel>;

/// The connections to one worker.
#[derive(Debug)]
pub struct Wires {
    /// For everything but warm invocations.
    pub general: Line,
    /// For those.
    pub express: Express,
}

#[derive(Debug)]
struct Link {
    address: String,
    general: Line,
    express: Express,
}

/// Whether a host may be given work.
///
/// ```text
/// register --> Ready --(three heartbeats missed)--> Lost --(register again)--> Ready
///                |<-(operator)--> Draining --(three missed)--> Lost
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
    /// The root file systems it holds.
    pub runtimes: Vec<Runtime>,
    /// Memory not promised to a sandbox, by its last heartbeat less what was promised since.
    pub free_memory_mib: u64,
    /// Sandboxes, by its last heartbeat.
    pub sandboxes: u32,
    /// Of them, running an invocation.
    pub busy: u32,
    /// How busy its processors are, thousandths, by its last heartbeat.
    pub load: u32,
    /// What its sandboxes together really use, MiB, and one standard deviation of that.
    pub used_memory_mib: (u64, u64),
    /// How its sandboxes ended, by reason; few, as a host has few words for it.
    pub ends: HashMap<String, u64>,
    /// Its jails that wait for cold starts.
    pub zygotes: Zygotes,
    /// What it did of the snapshots that hosts share, if it shares some.
    pub shared: Option<SharedSnapshots>,
    /// What its pager did, if it has one.
    pub pager: Option<Pager>,
    /// When it was last heard of.
    pub heard: Instant,
}

/// Why a host cannot run a version, whatever room it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cannot {
    /// It runs no Linux guests; in its own words.
    Linux(String),
    /// Linux functions reach nothing from it; in its own words.
    Network(String),
    /// It does not hold the runtime.
    Runtime,
}

impl HostStatus {
    /// Whether the host can run a version, whatever room it has.
    pub fn can_run(&self, version: &FunctionVersion) -> Result<(), Cannot> {
        if version.kind() != Kind::Linux {
            return Ok(());
        }
        if !self.resources.guests.iter().any(|guest| guest == "linux") {
            return Err(Cannot::Linux(self.resources.no_linux_because.clone()));
        }
        if version.network() == Network::Outbound && !self.resources.no_network_because.is_empty() {
            return Err(Cannot::Network(self.resources.no_network_because.clone()));
        }
        let is = |held: &Runtime| {
            held.name == version.runtime
                // Before a version is made it is not fixed to any build.
                && (version.runtime_digest.is_empty() || held.digest == version.runtime_digest)
        };
        if self.runtimes.iter().any(is) { Ok(()) } else { Err(Cannot::Runtime) }
    }
}

const IN_SERVICE: u32 = 0;
const OUT_OF_SERVICE: u32 = 1;

/// A worker host. Lives as long as control does; a host that registers again is the same one.
#[derive(Debug)]
pub struct Worker {
    id: Arc<str>,
    link: ArcSwap<Link>,
    status: Mutex<HostStatus>,
    /// What an invocation's way looks at, without the lock: [`Glance`] in its parts.
    zone: AtomicU32,
    load: AtomicU32,
    state: AtomicU32,
}

/// What routing looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The zone's number, as policies know it.
    pub zone: u32,
    /// How busy the host is, thousandths.
    pub load: u32,
    /// Whether it takes invocations: not while it is drained.
    pub in_service: bool,
}

impl Worker {
    pub(crate) fn new(id: Arc<str>, address: String, wires: Wires, status: HostStatus) -> Self {
        Self {
            id,
            link: ArcSwap::from_pointee(link(address, wires)),
            status: Mutex::new(status),
            zone: AtomicU32::new(0),
            load: AtomicU32::new(0),
            state: AtomicU32::new(IN_SERVICE),
        }
    }

    /// Where it is and how busy, as of its last heartbeat; takes no lock.
    #[must_use]
    pub fn glance(&self) -> Glance {
        Glance {
            zone: self.zone.load(Ordering::Relaxed),
            load: self.load.load(Ordering::Relaxed),
            in_service: self.state.load(Ordering::Relaxed) == IN_SERVICE,
        }
    }

    /// Brings the glance in step with the status.
    pub(crate) fn show(&self, zone: u32, status: &HostStatus) {
        self.zone.store(zone, Ordering::Relaxed);
        self.load.store(status.load, Ordering::Relaxed);
        let drained = status.state == HostState::Draining;
        self.state.store(if drained { OUT_OF_SERVICE } else { IN_SERVICE }, Ordering::Relaxed);
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.link.load().address.clone()
    }

    /// A client on its general channel; cheap.
    #[must_use]
    pub fn client(&self) -> Client {
        WorkerServiceClient::new(self.link.load().general.channel())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A client on its express lane, for invocations; cheap.
    #[must_use]
    pub fn express(&self) -> Express {
        self.link.load().express.clone()
    }

    pub(crate) fn relink(&self, address: String, wires: Wires) {
        self.link.store(Arc::new(link(address, wires)));
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

fn link(address: String, Wires { general, express }: Wires) -> Link {
    Link { address, general, express }
}
