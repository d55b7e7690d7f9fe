//! Verified code and files in sealed memory, shared by every VM of a version.
//!
//! The bytes that were verified are the bytes that are sealed: the artefact is read into private memory, verified
//! there, copied into the memory file and sealed; the disk is not looked at again.

use crate::{
    linux::{Kernel, Runtime},
    memfd::SealedFile,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
};
use warren_abi::isa::IsaSet;
use warren_artefact::{ArtefactKey, Digest, MemoryDemand, World};

/// Most idle entries kept warm.
const MAX_IDLE: usize = 32;
/// Most bytes of idle entries kept warm.
const MAX_IDLE_BYTES: u64 = 256 << 20;

/// One compiled function, ready to be mapped.
#[derive(Debug)]
pub struct SealedCode {
    /// The code.
    pub file: SealedFile,
    /// Its digest.
    pub digest: Digest,
    /// What it fulfils.
    pub world: World,
    /// What it was compiled for.
    pub isa: IsaSet,
    /// What its memories ask for.
    pub memory: MemoryDemand,
}

/// What a VM of a version is given.
#[derive(Clone, Debug)]
pub struct SealedVersion {
    /// Its code.
    pub code: Arc<SealedCode>,
    /// Its files.
    pub task: Option<Arc<SealedFile>>,
}

/// What a Linux guest of a version is given.
#[derive(Clone, Debug)]
pub struct LinuxVersion {
    /// Its root file system.
    pub runtime: Arc<Runtime>,
    /// The kernel it runs on.
    pub kernel: Arc<Kernel>,
    /// What the runtime calls.
    pub handler: String,
    /// Its files.
    pub task: Option<Arc<SealedFile>>,
}

/// Either.
#[derive(Clone, Debug)]
pub enum Startable {
    /// A module.
    Wasm(SealedVersion),
    /// Files and a runtime.
    Linux(LinuxVersion),
}

/// Sealed files by key: shared while somebody uses them, a bounded number of unused ones kept.
#[derive(Debug)]
pub(crate) struct SealedCache<K, V> {
    inner: Mutex<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    known: HashMap<K, Weak<V>>,
    recent: VecDeque<Arc<V>>,
    most_idle: usize,
}

/// How much memory an entry holds.
pub(crate) trait Weigh {
    fn bytes(&self) -> u64;
}

impl Weigh for SealedCode {
    fn bytes(&self) -> u64 {
        self.file.held()
    }
}

impl Weigh for SealedFile {
    fn bytes(&self) -> u64 {
        self.len()
    }
}

/// Code by artefact key.
pub(super) type CodeCache = SealedCache<ArtefactKey, SealedCode>;
/// Archives by digest.
pub(super) type TaskCache = SealedCache<Digest, SealedFile>;

impl<K, V> Default for SealedCache<K, V> {
    fn default() -> Self {
        Self::of(MAX_IDLE)
    }
}

impl<K, V> SealedCache<K, V> {
    /// One that keeps so many unused entries at most.
    pub(crate) fn of(most_idle: usize) -> Self {
        Self { inner: Mutex::new(Inner { known: HashMap::new(), recent: VecDeque::new(), most_idle }) }
    }
}

impl<K: Copy + Eq + core::hash::Hash, V: Weigh> SealedCache<K, V> {
    pub(crate) fn get(&self, key: K) -> Option<Arc<V>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let found = inner.known.get(&key)?.upgrade()?;
        inner.touch(&found);
        Some(found)
    }

    /// Keeps `fresh`, unless another is kept already: then that one is shared.
    pub(crate) fn insert(&self, key: K, fresh: V) -> Arc<V> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = if let Some(kept) = inner.known.get(&key).and_then(Weak::upgrade) {
            kept
        } else {
            let fresh = Arc::new(fresh);
            inner.known.retain(|_, weak| weak.strong_count() > 0);
            inner.known.insert(key, Arc::downgrade(&fresh));
            fresh
        };
        inner.touch(&kept);
        kept
    }

    /// From now on nobody gets it; users keep theirs.
    pub(crate) fn forget(&self, key: K) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gone) = inner.known.remove(&key).and_then(|weak| weak.upgrade()) {
            inner.recent.retain(|other| !Arc::ptr_eq(other, &gone));
        }
    }
}

impl<K, V: Weigh> Inner<K, V> {
    /// Moves an entry to the young end and lets go of the oldest beyond the bounds; users keep theirs.
    fn touch(&mut self, entry: &Arc<V>) {
        self.recent.retain(|other| !Arc::ptr_eq(other, entry));
        self.recent.push_back(Arc::clone(entry));
        let mut bytes: u64 = self.recent.iter().map(|entry| entry.bytes()).sum();
        while self.recent.len() > 1 && (self.recent.len() > self.most_idle || bytes > MAX_IDLE_BYTES) {
            if let Some(oldest) = self.recent.pop_front() {
                bytes = bytes.saturating_sub(oldest.bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Block(u64);

    impl Weigh for Block {
        fn bytes(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn shared_while_used_and_bounded_when_not() {
        let cache = SealedCache::<u32, Block>::default();
        let used = cache.insert(0, Block(1));
        for key in 1..100 {
            cache.insert(key, Block(1));
        }
        assert!(Arc::ptr_eq(&used, &cache.get(0).unwrap()), "in use, so still shared");
        assert!(cache.get(1).is_none(), "old and unused");
        assert!(cache.get(99).is_some());
        assert!(cache.inner.lock().unwrap().recent.len() <= MAX_IDLE);
        cache.insert(200, Block(MAX_IDLE_BYTES));
        assert!(cache.get(99).is_none(), "no room beside a large one");
        assert!(cache.get(200).is_some());
    }

    #[test]
    fn the_first_of_two_is_shared() {
        let cache = SealedCache::<u32, Block>::default();
        let first = cache.insert(1, Block(10));
        assert!(Arc::ptr_eq(&first, &cache.insert(1, Block(10))));
        cache.forget(1);
        assert!(cache.get(1).is_none() && !Arc::ptr_eq(&first, &cache.insert(1, Block(10))));
    }
}
