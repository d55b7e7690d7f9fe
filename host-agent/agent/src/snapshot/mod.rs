//! Functions at rest, of either kind: made once for each version on this host, off the path of any request; cold starts begin from them.
//!
//! ```text
//!   none ──want──▶ making ──made──▶ kept (file, signed) ──first use──▶ sealed memory, shared by its sandboxes
//!    ▲ ▲             │ failed: not before RETRY                │ │
//!    │ ├─────────────┘                                         │ └─ a VMM refuses it ─▶ removed; not before RETRY
//!    │ └─ cannot be: the VMM says why, and this agent does not ask again
//!    └──── damaged, of something else, collected, pushed out ──┘
//! ```
//! - Whoever finds none boots, and wants one for the next. Nobody ever waits for one to be made.
//! - One is served for exactly what it was made of ([`SnapshotOf`]), or not at all.
//! - It is taken before any event: nothing of a caller is in it.
//! - A Linux function's is made for it from its boot on (`AWS_LAMBDA_INITIALIZATION_TYPE`), and its scratch disk is part of it.

mod make;
mod shelf;

pub use shelf::{SealedSnapshot, Shelf};

use crate::{
    host::Host,
    jailer::JailerClient,
    linux,
    version::{
        Compiler, LinuxVersion, SealedCache, SealedVersion, Startable, VersionSpec, Weigh as _, What,
        guest_world,
    },
    zygote::Class,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use warren_artefact::{Digest, GuestOf, SnapshotKey, SnapshotOf};
use warren_vmm_protocol::{
    PROTOCOL_VERSION,
    guest::{SandboxKind, Text},
};

/// A function larger than this is booted: a VMM looks at all of its memory to write it down.
const MOST_MEMORY_MIB: u32 = 1024;
/// Most unused ones in memory: a small function's is a megabyte, and the cache's bytes are bounded as well.
const MOST_SEALED: usize = 256;
/// Most versions known that cannot be written down.
const MOST_HOPELESS: usize = 4096;
/// How soon one that could not be made, or was refused, is tried again.
const RETRY: Duration = Duration::from_mins(1);

/// The snapshots of this host.
#[derive(Debug)]
pub struct Snapshots {
    /// `None`: this host keeps none.
    shelf: Option<Arc<Shelf>>,
    compiler: Arc<Compiler>,
    jailer: JailerClient,
    sealed: SealedCache<SnapshotKey, SealedSnapshot>,
    tries: Mutex<Tries>,
    /// One is made at a time: requests have the cores.
    turn: Semaphore,
}

#[derive(Debug, Default)]
struct Tries {
    making: HashSet<SnapshotKey>,
    failed: HashMap<SnapshotKey, Instant>,
    /// Of functions that cannot be written down.
    hopeless: HashSet<SnapshotKey>,
}

/// How a try at one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It is there.
    Made,
    /// Not this time.
    Failed,
    /// The VMM said that it cannot be: again it would say the same.
    Hopeless,
}

impl Tries {
    /// Whether to begin with this one now; it is being made from then on.
    fn begin(&mut self, key: SnapshotKey, now: Instant) -> bool {
        self.failed.retain(|_, at| now.saturating_duration_since(*at) < RETRY);
        !self.hopeless.contains(&key) && !self.failed.contains_key(&key) && self.making.insert(key)
    }

    fn end(&mut self, key: SnapshotKey, ended: Ended, now: Instant) {
        self.making.remove(&key);
        match ended {
            Ended::Made => {}
            Ended::Failed => drop(self.failed.insert(key, now)),
            Ended::Hopeless => {
                // Asking some of them again is cheaper than remembering all for ever.
                if self.hopeless.len() >= MOST_HOPELESS {
                    self.hopeless.clear();
                }
                self.hopeless.insert(key);
            }
        }
    }
}

impl Snapshots {
    /// Kept on this shelf.
    #[must_use]
    pub fn new(shelf: Option<Shelf>, compiler: Arc<Compiler>, jailer: JailerClient) -> Self {
        Self {
            shelf: shelf.map(Arc::new),
            compiler,
            jailer,
            sealed: SealedCache::of(MOST_SEALED),
            tries: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }

    /// Where they are kept.
    #[must_use]
    pub fn shelf(&self) -> Option<&Arc<Shelf>> {
        self.shelf.as_ref()
    }

    /// The snapshot of a version, if there is one that fits.
    pub async fn find(
        &self,
        host: &Host,
        spec: &VersionSpec,
        version: &Startable,
    ) -> Option<Arc<SealedSnapshot>> {
        let place = self.shelf.as_ref()?;
        self.get(place, self.of(host, spec, version)?).await
    }

    /// Makes one in the background, if there is none and nobody is at it.
    pub fn want(&self, host: &Arc<Host>, spec: &VersionSpec, version: &Startable) {
        let Some(place) = &self.shelf else { return };
        let Some(of) = self.of(host, spec, version) else { return };
        let key = of.key();
        if host.is_stopping() || !self.tries().begin(key, Instant::now()) {
            return;
        }
        let (host, place) = (Arc::clone(host), Arc::clone(place));
        let (spec, version) = (spec.clone(), version.clone());
        tokio::spawn(async move {
            let snapshots = &host.snapshots;
            let ended = snapshots.make(&host, &place, of, (&spec, &version)).await;
            snapshots.tries().end(key, ended, Instant::now());
        });
    }

    /// A VMM did not take it: it is not served again.
    pub async fn refused(&self, snapshot: &SealedSnapshot, why: &str) {
        let (of, key) = (snapshot.head.of().clone(), snapshot.head.of().key());
        tracing::warn!(function = of.function, %key, why, "a snapshot was refused and is removed; booting instead");
        self.sealed.forget(key);
        self.tries().failed.insert(key, Instant::now());
        if let Some(shelf) = self.shelf.clone() {
            let _ = tokio::task::spawn_blocking(move || shelf.remove(&of)).await;
        }
    }

    async fn get(&self, place: &Arc<Shelf>, of: SnapshotOf) -> Option<Arc<SealedSnapshot>> {
        let key = of.key();
        if let Some(sealed) = self.sealed.get(key) {
            return Some(sealed);
        }
        let (place, trusted) = (Arc::clone(place), self.compiler.builder_key());
        let found = tokio::task::spawn_blocking(move || place.get(&of, &[trusted])).await.ok()??;
        Some(self.sealed.insert(key, found))
    }

    async fn make(
        &self,
        host: &Arc<Host>,
        place: &Arc<Shelf>,
        of: SnapshotOf,
        what: (&VersionSpec, &Startable),
    ) -> Ended {
        let Ok(_turn) = self.turn.acquire().await else { return Ended::Failed };
        if self.get(place, of.clone()).await.is_some() {
            return Ended::Made;
        }
        if host.is_stopping() {
            return Ended::Failed;
        }
        let (key, function, began) = (of.key(), of.function.clone(), Instant::now());
        match make::make(host, place, &self.compiler, of, what).await {
            Ok(made) => {
                let (bytes, ms) = (made.bytes(), began.elapsed().as_millis());
                tracing::info!(function, %key, bytes, ms, "a snapshot was made");
                self.sealed.insert(key, made);
                // It was made of what is going to be called.
                if let (spec, Startable::Wasm(version)) = what {
                    host.zygotes.expect(Class::of(spec.memory_mib, version));
                }
                Ended::Made
            }
            Err(error) => {
                let ended = if error.is_final() { Ended::Hopeless } else { Ended::Failed };
                let error = anyhow::Error::from(error);
                tracing::warn!(function, %key, "no snapshot was made, its cold starts boot: {error:#}");
                ended
            }
        }
    }

    /// What a snapshot of this version has to be made of, if there can be one.
    fn of(&self, host: &Host, spec: &VersionSpec, version: &Startable) -> Option<SnapshotOf> {
        if spec.memory_mib > MOST_MEMORY_MIB {
            return None;
        }
        let (told, guest) = match version {
            Startable::Wasm(version) => self.wasm(spec, version)?,
            Startable::Linux(version) => of_linux(host, spec, version)?,
        };
        Some(SnapshotOf { function: spec.name.clone(), task: spec.task, told, guest })
    }

    fn wasm(&self, spec: &VersionSpec, version: &SealedVersion) -> Option<(Digest, GuestOf)> {
        let What::Wasm { code: source } = spec.what else { return None };
        let told = spec.for_guest(guest_world(version.code.world).ok()?);
        let guest = GuestOf::Wasm {
            source,
            code: version.code.digest,
            program: self.jailer.guest()?,
            abi_version: warren_abi::ABI_VERSION,
            isa: version.code.isa,
        };
        Some((Digest::of(&postcard::to_allocvec(&told).ok()?), guest))
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        // Whole between any two statements.
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_linux(host: &Host, spec: &VersionSpec, version: &LinuxVersion) -> Option<(Digest, GuestOf)> {
    let machine = linux::machine::machine(host, spec).ok()?;
    let devices = linux::machine::devices(host, version, machine.network);
    let whole = linux::machine::load_spec(spec, version, devices, "");
    let mut told = linux::machine::config("", spec, version, machine.network, SandboxKind::Snapshot);
    // A sandbox's own, and a moment's.
    (told.sandbox, told.log_stream) = (Text::default(), Text::default());
    (told.seed, told.wall_unix_ns) = ([0; 32], 0);
    let digest = |hex: &str| blake3::Hash::from_hex(hex).ok().map(|hash| Digest(*hash.as_bytes()));
    let guest = GuestOf::Linux {
        runtime: digest(&version.runtime.manifest.digest)?,
        kernel: digest(&version.kernel.manifest.image_digest)?,
        initrd: digest(&version.kernel.manifest.initrd_digest)?,
        machine: Digest::of(&postcard::to_allocvec(&(whole, machine.cpus, machine.disk_bytes)).ok()?),
        protocol_version: PROTOCOL_VERSION,
    };
    Some((Digest::of(&postcard::to_allocvec(&told).ok()?), guest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_abi::isa::IsaSet;

    #[test]
    fn one_at_a_time_and_not_again_at_once() {
        let of = SnapshotOf {
            function: "hello".into(),
            task: None,
            told: Digest([3; 32]),
            guest: GuestOf::Wasm {
                source: Digest([1; 32]),
                code: Digest([2; 32]),
                program: Digest([4; 32]),
                abi_version: 2,
                isa: IsaSet::BASELINE,
            },
        };
        let (mut tries, key, now) = (Tries::default(), of.key(), Instant::now());
        assert!(tries.begin(key, now) && !tries.begin(key, now), "it is being made");
        tries.end(key, Ended::Made, now);
        assert!(tries.begin(key, now), "it was made, and is gone again");
        tries.end(key, Ended::Failed, now);
        assert!(!tries.begin(key, now), "it has just failed");
        assert!(tries.begin(key, now + RETRY), "it may be tried again");
        tries.end(key, Ended::Hopeless, now);
        assert!(!tries.begin(key, now + 2 * RETRY), "it cannot be");
    }
}
