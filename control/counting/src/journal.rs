//! What of the counting is durable: grants, and hosts that may run executions.

use crate::leader::{Grant, GrantId, HostName, PoolKey};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use warren_store::Record;

/// One record. Exactly one field is set; a snapshot replaces everything before it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Line {
    #[prost(message, optional, tag = "1")]
    pub(crate) granted: Option<GrantLine>,
    #[prost(message, optional, tag = "2")]
    pub(crate) returned: Option<ReturnLine>,
    #[prost(string, optional, tag = "3")]
    pub(crate) host_joined: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(crate) host_dead: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub(crate) snapshot: Option<Snapshot>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GrantLine {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    /// Empty: the account's pool.
    #[prost(string, tag = "3")]
    function: String,
    #[prost(uint32, tag = "4")]
    slots: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReturnLine {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) slots: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Snapshot {
    #[prost(message, repeated, tag = "1")]
    grants: Vec<GrantLine>,
    #[prost(string, repeated, tag = "2")]
    hosts: Vec<String>,
}

impl Line {
    pub(crate) fn of_grant(grant: &Grant) -> Self {
        Self { granted: Some(GrantLine::new(grant)), ..Self::default() }
    }

    pub(crate) fn of_return(id: GrantId, slots: u32) -> Self {
        Self { returned: Some(ReturnLine { id: id.0, slots }), ..Self::default() }
    }

    pub(crate) fn joined(host: &HostName) -> Self {
        Self { host_joined: Some(host.to_string()), ..Self::default() }
    }

    pub(crate) fn dead(host: &HostName) -> Self {
        Self { host_dead: Some(host.to_string()), ..Self::default() }
    }

    pub(crate) fn of_all<'a>(grants: impl Iterator<Item = &'a Grant>, hosts: &BTreeSet<HostName>) -> Self {
        let snapshot = Snapshot {
            grants: grants.map(GrantLine::new).collect(),
            hosts: hosts.iter().map(ToString::to_string).collect(),
        };
        Self { snapshot: Some(snapshot), ..Self::default() }
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

impl GrantLine {
    fn new(grant: &Grant) -> Self {
        let function = match &grant.pool {
            PoolKey::Account => String::new(),
            PoolKey::Function(name) => name.to_string(),
        };
        Self { id: grant.id.0, epoch: grant.epoch, function, slots: grant.slots }
    }

    fn grant(self) -> Grant {
        let pool =
            if self.function.is_empty() { PoolKey::Account } else { PoolKey::Function(self.function.into()) };
        Grant { id: GrantId(self.id), epoch: self.epoch, pool, slots: self.slots }
    }
}

/// What a life of control left behind. A record that cannot be read is skipped, loudly by the caller.
pub(crate) fn replay(records: &[Record]) -> (Vec<Grant>, BTreeSet<HostName>, usize) {
    let mut grants: BTreeMap<u64, Grant> = BTreeMap::new();
    let mut hosts = BTreeSet::new();
    let mut unread = 0;
    for record in records {
        let Ok(line) = Line::decode(record.value.clone()) else {
            unread += 1;
            continue;
        };
        if let Some(snapshot) = line.snapshot {
            grants = snapshot.grants.into_iter().map(|line| (line.id, line.grant())).collect();
            hosts = snapshot.hosts.into_iter().map(Into::into).collect();
        }
        if let Some(granted) = line.granted {
            grants.insert(granted.id, granted.grant());
        }
        if let Some(returned) = line.returned
            && let Some(grant) = grants.get_mut(&returned.id)
        {
            grant.slots = grant.slots.saturating_sub(returned.slots);
        }
        if let Some(host) = line.host_joined {
            hosts.insert(host.into());
        }
        if let Some(host) = line.host_dead {
            hosts.remove(host.as_str());
        }
    }
    let left = grants.into_values().filter(|grant| grant.slots > 0).collect();
    (left, hosts, unread)
}
