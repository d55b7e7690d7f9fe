//! Where chunks of shared snapshots are looked for: this host's own cache, its neighbours, the origin.

use super::{Place, add, get, neighbours::Neighbours};
use crate::config::Config;
use anyhow::Context as _;
use std::sync::{Arc, atomic::AtomicU64};
use tokio::sync::OnceCell;
use warren_chunks::{
    Store,
    l1::{Disk, Local, Memory},
    l2::{self, v1::chunks_server::ChunksServer},
    l3::{OriginError, OriginLimits},
    store::Scrubbed,
};
use warren_identity::Credentials;
use warren_proto::v1;

/// Sealed chunks kept in memory: an agent reads each about once.
const MEMORY_BYTES: u64 = 8 << 20;
/// Objects that neighbours are given at once; more are told to ask elsewhere.
const GIVEN_AT_ONCE: usize = 32;

/// The store, and what it is made of.
#[derive(Debug)]
pub(super) struct Tiers {
    pub(super) place: Place,
    local: Local,
    pub(super) neighbours: Neighbours,
    service: l2::Service,
    /// Opened with the first use, so that an origin that is away keeps no agent from starting.
    store: OnceCell<Store>,
    scrubbed: AtomicU64,
    repaired: AtomicU64,
    lost: AtomicU64,
}

impl Tiers {
    /// As the command line says, over this origin.
    pub(super) fn open(config: &Config, place: Place, credentials: &Credentials) -> anyhow::Result<Self> {
        let folder = config.data.join("shared-chunks");
        let disk = match config.snapshot_chunks_mib {
            0 => None,
            mib => Some(Disk::open(&folder, mib << 20).with_context(|| {
                format!("cannot keep chunks of shared snapshots in {}", folder.display())
            })?),
        };
        let local = Local::new(Memory::new(MEMORY_BYTES), disk);
        Ok(Self {
            place,
            service: l2::Service::new(local.clone(), GIVEN_AT_ONCE),
            local,
            neighbours: Neighbours::new(config, credentials.clone())?,
            store: OnceCell::new(),
            scrubbed: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// What neighbours ask.
    pub(super) fn server(&self) -> ChunksServer<l2::Service> {
        self.service.clone().into_server()
    }

    /// The store of chunks and manifests.
    pub(super) async fn store(&self) -> Result<Store, OriginError> {
        let open = async || {
            let place = self.place.clone();
            let opened = tokio::task::spawn_blocking(move || place.open(OriginLimits::default()));
            let origin = opened.await.map_err(|error| OriginError::Unavailable(Arc::new(error)))??;
            Ok(Store::new(self.local.clone(), Some(self.neighbours.peers()), origin))
        };
        self.store.get_or_try_init(open).await.cloned()
    }

    /// Counts what a scrub found.
    pub(super) fn note(&self, found: &Scrubbed) {
        add(&self.scrubbed, found.read);
        add(&self.repaired, found.repaired.len() as u64);
        add(&self.lost, found.lost.len() as u64);
    }

    /// Says what the tiers did since the agent started.
    pub(super) fn tell(&self, told: &mut v1::SharedSnapshots) {
        let did = self.store.get().map(Store::figures).unwrap_or_default();
        told.retired_reads = did.retired_reads;
        told.own_hits = did.memory.hits.saturating_add(did.disk.hits);
        told.neighbour_hits = did.peers.hits;
        told.origin_hits = did.origin.hits;
        (told.neighbour_lies, told.neighbour_failures) = (did.asked.lies, did.asked.failures);
        told.neighbours = u32::try_from(self.neighbours.count()).unwrap_or(u32::MAX);
        told.given = self.service.given();
        (told.scrubbed, told.repaired, told.lost) =
            (get(&self.scrubbed), get(&self.repaired), get(&self.lost));
    }
}
