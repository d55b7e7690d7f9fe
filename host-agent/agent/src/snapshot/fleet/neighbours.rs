//! The workers of this zone that share snapshots: control tells which, their certificates who they are.

use crate::config::Config;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tonic::transport::{Channel, Endpoint};
use warren_chunks::l2::{Peer, PeerLimits, Peers};
use warren_identity::{HostId, Peer as Role, Service, client_tls};
use warren_proto::v1;

/// Most of them that are believed to be.
const MOST: usize = 1024;
/// One that takes no connection within this is asked no further.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// The neighbours, as a list that control replaces.
#[derive(Debug)]
pub(super) struct Neighbours {
    identity: PathBuf,
    peers: Arc<Peers>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    revision: u64,
    /// By name and address: a connection outlives the lists it is on.
    channels: HashMap<(String, String), Channel>,
}

impl Neighbours {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let own = config.host_id()?;
        let peers = Arc::new(Peers::new(own, Vec::new(), PeerLimits::default()));
        Ok(Self { identity: config.identity.clone(), peers, known: Mutex::default() })
    }

    pub(super) fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.peers)
    }

    /// Of the list that there is; 0: none.
    pub(super) fn revision(&self) -> u64 {
        self.known().revision
    }

    pub(super) fn count(&self) -> usize {
        self.peers.others()
    }

    /// Takes another list. Must be called inside the runtime; reads this agent's certificate.
    pub(super) fn meet(&self, list: v1::Neighbours) {
        let mut known = self.known();
        let mut channels = HashMap::new();
        for v1::Neighbour { host_id, address } in list.all.into_iter().take(MOST) {
            let key = (host_id, address);
            let channel = match known.channels.remove(&key) {
                Some(channel) => channel,
                None => match self.channel(&key.0, &key.1) {
                    Ok(channel) => channel,
                    Err(error) => {
                        let (host, address) = key;
                        tracing::warn!(host, address, "a neighbour cannot be asked: {error:#}");
                        continue;
                    }
                },
            };
            channels.insert(key, channel);
        }
        let peers =
            channels.iter().map(|((id, _), channel)| Peer { id: id.clone(), channel: channel.clone() });
        self.peers.replace(peers.collect());
        *known = Known { revision: list.revision, channels };
    }

    /// A way to the agent of that host, and to no other.
    fn channel(&self, host: &str, address: &str) -> anyhow::Result<Channel> {
        let role = Role::Worker(HostId::new(host)?);
        let tls = client_tls(&self.identity, Service::Agent, &role)?;
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(tls)?
            .connect_timeout(CONNECT_PATIENCE)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .tcp_nodelay(true);
        Ok(endpoint.connect_lazy())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whole between any two statements.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
