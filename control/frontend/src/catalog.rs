//! The functions, as the warm path reads them: one immutable snapshot, swapped whole after each durable change.

use crate::{observed::Observed, pool::Pool};
use arc_swap::ArcSwap;
use bytes::Bytes;
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use tokio::sync::Mutex;
use warren_placement::Observations;
use warren_proto::v1::{Function, FunctionVersion};
use warren_store::{Entry, Expect, Registry, Revision, StoreError};

const PREFIX: &str = "function/";
/// Most versions of a function; beyond that a deploy lets the oldest go, with its code.
const VERSIONS_KEPT: usize = 50;

/// What the registry keeps of a function: every version, oldest first.
#[derive(Clone, PartialEq, Message)]
struct StoredFunction {
    #[prost(message, repeated, tag = "1")]
    versions: Vec<FunctionVersion>,
}

/// One immutable version, with the sandboxes this frontend holds of it.
#[derive(Debug)]
pub struct Version {
    /// What it is.
    pub spec: FunctionVersion,
    /// Its function's name, as decisions and logs share it.
    pub name: Arc<str>,
    /// Stable hash of the function, as policies know it.
    pub hash: u64,
    pub(crate) pool: Pool,
    /// How many ran at once, at each lease.
    pub(crate) concurrency: Observed,
    /// MiB of memory really used, by each REPORT.
    pub(crate) memory_used: Observed,
}

/// One function.
#[derive(Debug)]
pub struct FunctionEntry {
    /// Its place in the registry.
    pub revision: Revision,
    /// All versions; never empty.
    pub versions: BTreeMap<u64, Arc<Version>>,
    /// The newest.
    pub latest: Arc<Version>,
}

impl FunctionEntry {
    /// As clients see it.
    #[must_use]
    pub fn to_wire(&self) -> Function {
        Function {
            latest: Some(self.latest.spec.clone()),
            revision: self.revision.0,
            versions: self.versions.keys().copied().collect(),
        }
    }
}

type Snapshot = HashMap<Arc<str>, Arc<FunctionEntry>>;

/// The functions.
pub struct Catalog {
    registry: Arc<dyn Registry>,
    snapshot: ArcSwap<Snapshot>,
    /// Orders the swaps of one process; the registry's compare-and-set orders writers.
    swapping: Mutex<()>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("functions", &self.snapshot.load().len()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Reads the registry.
    pub async fn load(registry: Arc<dyn Registry>) -> Result<Self, StoreError> {
        let mut snapshot = Snapshot::new();
        for (key, entry) in registry.list(PREFIX).await? {
            if let Some(function) = decode(&entry) {
                snapshot.insert(Arc::clone(&function.latest.name), Arc::new(function));
            } else {
                tracing::error!(key, "this registry entry is no function and is left out");
            }
        }
        Ok(Self { registry, snapshot: ArcSwap::from_pointee(snapshot), swapping: Mutex::new(()) })
    }

    /// One function.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<FunctionEntry>> {
        self.snapshot.load().get(name).cloned()
    }

    /// All functions, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<FunctionEntry>> {
        let mut all: Vec<_> = self.snapshot.load().values().cloned().collect();
        all.sort_by(|a, b| a.latest.name.cmp(&b.latest.name));
        all
    }

    /// Digests of everything that a version names.
    #[must_use]
    pub fn digests(&self) -> BTreeSet<String> {
        let all = self.all();
        let specs = all.iter().flat_map(|entry| entry.versions.values().map(|version| &version.spec));
        let digests = specs.flat_map(|spec| [spec.code_digest.clone(), spec.task_digest.clone()]);
        digests.filter(|digest| !digest.is_empty()).collect()
    }

    /// How many functions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.snapshot.load().len()
    }

    /// Whether there is no function.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a version to what the writer saw (`None`: no such function). Durable when it returns.
    pub async fn add_version(
        &self,
        seen: Option<&FunctionEntry>,
        spec: FunctionVersion,
    ) -> Result<Arc<FunctionEntry>, StoreError> {
        let mut stored = StoredFunction::default();
        let mut expect = Expect::Absent;
        if let Some(entry) = seen {
            stored.versions = entry.versions.values().map(|version| version.spec.clone()).collect();
            expect = Expect::At(entry.revision);
        }
        let version = Arc::new(Version::new(spec));
        stored.versions.push(version.spec.clone());
        let beyond = stored.versions.len().saturating_sub(VERSIONS_KEPT);
        stored.versions.drain(..beyond);
        let key = format!("{PREFIX}{}", version.name);
        let value = Bytes::from(stored.encode_to_vec());
        let _swapping = self.swapping.lock().await;
        let revision = self.registry.put(&key, expect, value).await?;
        let mut versions = seen.map(|entry| entry.versions.clone()).unwrap_or_default();
        versions.insert(version.spec.version, Arc::clone(&version));
        while versions.len() > VERSIONS_KEPT {
            versions.pop_first();
        }
        let entry = Arc::new(FunctionEntry { revision, versions, latest: Arc::clone(&version) });
        self.swap(|snapshot| drop(snapshot.insert(Arc::clone(&version.name), Arc::clone(&entry))));
        Ok(entry)
    }

    /// Deletes what the writer saw. Durable when it returns.
    pub async fn remove(&self, seen: &FunctionEntry) -> Result<(), StoreError> {
        let name = &seen.latest.name;
        let _swapping = self.swapping.lock().await;
        self.registry.delete(&format!("{PREFIX}{name}"), seen.revision).await?;
        self.swap(|snapshot| drop(snapshot.remove(name)));
        Ok(())
    }

    fn swap(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut next = Snapshot::clone(&self.snapshot.load());
        change(&mut next);
        self.snapshot.store(Arc::new(next));
    }
}

impl Version {
    fn new(spec: FunctionVersion) -> Self {
        let hash = warren_placement::function_hash(&spec.name);
        Self {
            name: spec.name.as_str().into(),
            hash,
            spec,
            pool: Pool::default(),
            concurrency: Observed::default(),
            memory_used: Observed::default(),
        }
    }

    /// What placement is told of it.
    pub(crate) fn observed(&self) -> Observations {
        let (memory_used_mib, concurrency) = (self.memory_used.p50_p99(), self.concurrency.p50_p99());
        Observations { memory_used_mib, concurrency }
    }
}

fn decode(entry: &Entry) -> Option<FunctionEntry> {
    let stored = StoredFunction::decode(entry.value.clone()).ok()?;
    let versions: BTreeMap<u64, Arc<Version>> =
        stored.versions.into_iter().map(|spec| (spec.version, Arc::new(Version::new(spec)))).collect();
    let latest = Arc::clone(versions.last_key_value()?.1);
    Some(FunctionEntry { revision: entry.revision, versions, latest })
}
