//! Which workers ask each other for chunks of snapshots before they ask the origin: those of a zone that share any.
//!
//! All of a zone are given one list, for each computes from it who keeps what. A list is made anew at most once a second, and is
//! sent to whoever has another one.

use crate::{Fleet, HostState};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use warren_proto::v1::{Neighbour, Neighbours};

/// How long a list stands.
const STANDS: Duration = Duration::from_secs(1);
/// Most workers of a list. The others of a larger zone ask these, and are not asked.
const MOST: usize = 256;

/// The lists, by zone.
#[derive(Debug, Default)]
pub struct Neighbourhoods(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    /// When they were made; `None`: never.
    at: Option<Instant>,
    zones: HashMap<String, Arc<Neighbours>>,
}

impl Neighbourhoods {
    /// The list of this host's zone, if the host shares snapshots and knows another list than this revision.
    #[must_use]
    pub fn news(&self, fleet: &Fleet, host: &str, revision: u64, now: Instant) -> Option<Neighbours> {
        let worker = fleet.get(host)?;
        let zone = {
            let status = worker.lock();
            status.shared.is_some().then(|| status.resources.zone.clone())
        }?;
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.at.is_none_or(|at| now.saturating_duration_since(at) >= STANDS) {
            *lists = Lists { at: Some(now), zones: zones(fleet) };
        }
        let list = lists.zones.get(&zone)?;
        (list.revision != revision).then(|| Neighbours::clone(list))
    }
}

fn zones(fleet: &Fleet) -> HashMap<String, Arc<Neighbours>> {
    let mut zones: HashMap<String, Vec<Neighbour>> = HashMap::new();
    for worker in fleet.all() {
        let status = worker.lock();
        if status.state == HostState::Lost || status.shared.is_none() {
            continue;
        }
        let zone = status.resources.zone.clone();
        drop(status);
        let neighbour = Neighbour { host_id: worker.id().to_string(), address: worker.address() };
        zones.entry(zone).or_default().push(neighbour);
    }
    zones.into_iter().map(|(zone, all)| (zone, Arc::new(list(all)))).collect()
}

/// Of a zone's workers, in an order that is the same whatever order they come in, and that follows no rack.
fn list(mut all: Vec<Neighbour>) -> Neighbours {
    all.sort_by_cached_key(|one| (hash(&one.host_id), one.host_id.clone()));
    all.truncate(MOST);
    let revision = hash(all.iter().map(|one| (&one.host_id, &one.address)).collect::<Vec<_>>()).max(1);
    Neighbours { revision, all }
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbours(ids: impl IntoIterator<Item = usize>) -> Vec<Neighbour> {
        ids.into_iter()
            .map(|id| Neighbour { host_id: format!("h{id}"), address: format!("10.0.0.1:{id}") })
            .collect()
    }

    #[test]
    fn one_list_whatever_the_order_and_another_for_other_hosts() {
        let one = list(neighbours(0..300));
        assert_eq!(one, list(neighbours((0..300).rev())));
        assert_eq!(one.all.len(), MOST);
        assert_ne!(one.revision, 0);
        let mut moved = neighbours(0..300);
        for one in &mut moved {
            one.address.push('0');
        }
        for other in [neighbours(0..299), neighbours([]), moved] {
            let changes = list(other.clone());
            // One that is not among the first changes nothing.
            let is_same = changes.all == one.all;
            assert_eq!(changes.revision == one.revision, is_same, "{} hosts", other.len());
        }
        assert_ne!(list(neighbours(0..3)).revision, list(neighbours(0..2)).revision);
    }
}
