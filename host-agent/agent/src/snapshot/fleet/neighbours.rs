//! The workers of this zone that share snapshots: control tells which, their certificates who they are.

use crate::config::Config;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use warren_chunks::l2::{Peer, PeerLimits, Peers};
use warren_identity::{Credentials, HostId, Line, Peer as Role};
use warren_proto::v1;

/// Most of them that are believed to be.
const MOST: usize = 1024;
/// One that takes no connection within this is asked no further.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// The neighbours, as a list that control replaces.
#[derive(Debug)]
pub(super) struct Neighbours {
    credentials: Credentials,
    peers: Arc<Peers>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    revision: u64,
    /// By name and address: a connection outlives the lists it is on.
    lines: HashMap<(String, String), Line>,
}

impl Neighbours {
    pub(super) fn new(config: &Config, credentials: Credentials) -> anyhow::Result<Self> {
        let own = config.host_id()?;
        let peers = Arc::new(Peers::new(own, Vec::new(), PeerLimits::default()));
        Ok(Self { credentials, peers, known: Mutex::default() })
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

    /// Takes another list. Must be called inside the runtime. Those that stay are asked with the certificate in use.
    pub(super) fn meet(&self, list: v1::Neighbours) {
        let mut known = self.known();
        let mut lines = HashMap::new();
        for v1::Neighbour { host_id, address } in list.all.into_iter().take(MOST) {
            let key = (host_id, address);
            let line = match known.lines.remove(&key) {
                Some(line) => line,
                None => match self.line(&key.0, &key.1) {
                    Ok(line) => line,
                    Err(error) => {
                        let (host, address) = key;
                        tracing::warn!(host, address, "a neighbour cannot be asked: {error:#}");
                        continue;
                    }
                },
            };
            lines.insert(key, line);
        }
        let peers = lines.iter().map(|((id, _), line)| Peer { id: id.clone(), channel: line.channel() });
        self.peers.replace(peers.collect());
        *known = Known { revision: list.revision, lines };
    }

    /// A way to the agent of that host, and to no other.
    fn line(&self, host: &str, address: &str) -> anyhow::Result<Line> {
        let role = Role::Worker(HostId::new(host)?);
        Ok(Line::new(self.credentials.clone(), &role, address, |endpoint| {
            endpoint
                .connect_timeout(CONNECT_PATIENCE)
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(5))
        })?)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whole between any two statements.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
