//! Garbage of the origin: entries of functions that are gone, and the chunks that no entry reaches any more.
//!
//! ```text
//! turn ─ taken lately, by whoever ─▶ not now
//!  │
//!  ▼
//! every entry read and judged ─ origin fails ─▶ nothing is touched
//!  │ good, and its function and code are named ─▶ root
//!  │ good, a runtime's, and a root begins with it ▶ root
//!  │ good, and young ───────────────────────────▶ root: a deploy under way is named by nobody yet
//!  ╰ anything else, and old ────────────────────▶ removed
//! roots ─▶ what none reaches is retired, and deleted by a later collection (warren-chunks)
//!  ╰ a root that cannot be read, being gone or damaged ─▶ its entry is removed, and once more
//! ```
//! The turn is an entry of its own that says nothing but when: whoever replaces it and still finds its own there has it. Two at
//! once would do each other's work, not harm.

use super::{Fleet, FleetSnapshot, entry, scrub};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};
use warren_artefact::SnapshotKey;
use warren_chunks::{
    Name, Store,
    gc::{CollectError, Generation, collect},
    l3::{EntryName, Held, OriginError, OriginLimits},
};

/// One collection in so long, of all hosts together; each ends within it, or is nobody's.
const TURN: Duration = Duration::from_mins(10);
/// What an upload may take at most, beside the age at which a chunk that is put again is made young.
const UPLOAD: Duration = Duration::from_hours(1);
/// Entries read at once.
const AT_ONCE: usize = 8;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Cleared {
    /// Entries of functions that are gone, or that nobody believes.
    pub(in super::super) entries: usize,
    /// Objects taken out of service.
    pub(in super::super) retired: usize,
    /// Objects gone, and how much they held.
    pub(in super::super) deleted: usize,
    pub(in super::super) bytes: u64,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Root,
    Stays,
    Goes,
}

/// Whose snapshots are still wanted.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Named {
    /// Digests of code and files, hex.
    pub(in super::super) sources: HashSet<String>,
    /// Functions.
    pub(in super::super) functions: HashSet<String>,
}

impl Named {
    /// Decides over one entry; `None`: it is not believed. `begun_with`: runtimes' that a root begins with.
    fn fate(&self, entry: Option<&FleetSnapshot>, is_old: bool, begun_with: &HashSet<SnapshotKey>) -> Fate {
        let Some(entry) = entry else { return if is_old { Fate::Goes } else { Fate::Stays } };
        let of = entry.head.of();
        let is_wanted = if of.is_runtime() {
            begun_with.contains(&of.key())
        } else {
            let source = of.source().map(|source| source.to_string());
            self.functions.contains(&of.function)
                && source.is_some_and(|source| self.sources.contains(&source))
        };
        if is_wanted || !is_old { Fate::Root } else { Fate::Goes }
    }

    /// What the roots among these begin with.
    fn begun_with<'a>(
        &self,
        entries: impl Iterator<Item = (&'a FleetSnapshot, bool)>,
    ) -> HashSet<SnapshotKey> {
        let roots =
            entries.filter(|(entry, is_old)| self.fate(Some(entry), *is_old, &HashSet::new()) == Fate::Root);
        roots.filter_map(|(entry, _)| Some(entry.head.of().runtime()?.key())).collect()
    }
}

impl Fleet {
    /// Collects, if it is this host's turn. Entries younger than `min_age` stay.
    pub(in super::super) async fn collect(
        &self,
        named: &Named,
        min_age: Duration,
    ) -> Result<Option<Cleared>, CollectError> {
        let store = self.store().await?;
        if !take_turn(&store, turn(), TURN).await? {
            return Ok(None);
        }
        let mut cleared = Cleared::default();
        let mut roots = self.sort(&store, named, min_age, &mut cleared).await?;
        // The contract of chunks: longer than any upload, and than what makes old ones young again.
        let min_age = min_age.max(OriginLimits::default().refresh_after + UPLOAD);
        loop {
            let manifests = roots.iter().flat_map(|(_, root)| root.iter().copied()).collect();
            let wrong = match collect(store.origin(), &Generation { roots: manifests, min_age }).await {
                Ok(done) => {
                    cleared.retired = done.retired.len();
                    (cleared.deleted, cleared.bytes) = (done.deleted.len(), done.bytes);
                    return Ok(Some(cleared));
                }
                Err(
                    CollectError::Unreadable {
                        root, source: OriginError::Absent | OriginError::Damaged, ..
                    }
                    | CollectError::NotAManifest { root, .. },
                ) => root,
                Err(error) => return Err(error),
            };
            let Some(at) = roots.iter().position(|(_, root)| root.contains(&wrong)) else {
                // Not one of those that were given, which a collection cannot say.
                return Err(CollectError::Unreadable {
                    name: wrong,
                    root: wrong,
                    source: OriginError::Absent,
                });
            };
            let (entry, _) = roots.swap_remove(at);
            tracing::warn!(manifest = %wrong, "an entry's manifest, or the base of it, is gone or damaged, and the entry is removed");
            store.origin().remove_entry(entry).await?;
            cleared.entries += 1;
        }
    }

    /// Reads every entry: removes those that nobody wants, gives the manifests of the others.
    async fn sort(
        &self,
        store: &Store,
        named: &Named,
        min_age: Duration,
        cleared: &mut Cleared,
    ) -> Result<Vec<(EntryName, Vec<Name>)>, CollectError> {
        let mut listed = store.origin().entries().await?;
        listed.retain(|(name, _)| ![turn(), scrub::turn()].contains(name));
        let reads = stream::iter(listed).map(|(name, held)| async move {
            match store.origin().entry(name, entry::MAX_BYTES).await {
                Ok(bytes) => Ok(Some((name, held, self.judged(name, &bytes)))),
                Err(OriginError::Damaged) => Ok(Some((name, held, None))),
                Err(OriginError::Absent) => Ok(None),
                Err(error) => Err(error),
            }
        });
        // All of them before any is touched.
        let all: Vec<_> = reads.buffer_unordered(AT_ONCE).try_collect().await?;
        let now = SystemTime::now();
        let is_old = |held: &Held| now.duration_since(held.since).is_ok_and(|age| age >= min_age);
        let mut roots = Vec::new();
        let believed = all.iter().flatten();
        let believed = believed.filter_map(|(_, held, entry)| Some((entry.as_ref()?, is_old(held))));
        let begun_with = named.begun_with(believed);
        for (name, held, entry) in all.into_iter().flatten() {
            match (named.fate(entry.as_ref(), is_old(&held), &begun_with), entry) {
                (Fate::Root, Some(entry)) => {
                    roots.push((name, [Some(entry.memory), entry.disk].into_iter().flatten().collect()));
                }
                (Fate::Goes, _) => {
                    store.origin().remove_entry(name).await?;
                    cleared.entries += 1;
                }
                (Fate::Stays | Fate::Root, _) => {}
            }
        }
        Ok(roots)
    }

    fn judged(&self, name: EntryName, bytes: &[u8]) -> Option<FleetSnapshot> {
        let key = SnapshotKey::from_bytes(name.0);
        entry::judge(&self.credentials.verifier(), key, bytes, SystemTime::now(), self.generation, &self.keys)
            .ok()
    }
}

/// Where it is said whose turn it is: no snapshot has this key.
fn turn() -> EntryName {
    EntryName(blake3::derive_key("warren-agent 2026 whose turn it is to collect", b""))
}

/// Takes a turn that one host has in so long.
pub(super) async fn take_turn(store: &Store, turn: EntryName, every: Duration) -> Result<bool, OriginError> {
    let origin = store.origin();
    let mut own = vec![0; 16];
    // Without random bytes two might both think it theirs.
    getrandom::fill(&mut own).map_err(|error| OriginError::Unavailable(std::sync::Arc::new(error)))?;
    let own = bytes::Bytes::from(own);
    match origin.held_entry(turn).await {
        Err(OriginError::Absent) => return origin.put_new_entry(turn, own).await,
        Err(error) => return Err(error),
        // One of a clock that is ahead holds until that time has come, and as long again.
        Ok(held) if held.since.elapsed().map_or(true, |age| age < every) => return Ok(false),
        Ok(_) => origin.replace_entry(turn, own.clone()).await?,
    }
    Ok(origin.entry(turn, own.len()).await? == own)
}

#[cfg(test)]
mod tests;
