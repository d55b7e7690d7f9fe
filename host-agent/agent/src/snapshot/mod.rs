//! Functions at rest, of either kind: made once for each version on this host, off the path of any request; cold starts begin from them.
//!
//! ```text
//!   none ──want──▶ making ──made──▶ kept (file, signed) ──first use──▶ sealed memory, shared by its sandboxes
//!    ▲ ▲             │ failed: not before a minute is over     │ │
//!    │ ├─────────────┘                                         │ └─ a VMM refuses it ─▶ removed; not before a minute is over
//!    │ └─ cannot be: the VMM says why, and this agent does not ask again
//!    └──── damaged, of something else, collected, pushed out ──┘
//! ```
//! - Whoever finds none boots, and wants one for the next. Nobody waits for one to be made but who publishes a version.
//! - What the fleet has is brought, not made again (`fleet`).
//! - One is served for exactly what it was made of ([`SnapshotOf`]), or not at all.
//! - It is taken before any event: nothing of a caller is in it.
//! - A Linux function's is made for it from its init on (`AWS_LAMBDA_INITIALIZATION_TYPE`), and its scratch disk is part of it. It begins
//!   with its [runtime's own](SnapshotOf::runtime), which is made once, kept and shared as any other.
//!
//! Modules: `shelf` files, `disk` what copies' disks lie over, `make` a VM that is written down, `runtime` what a Linux function's begins
//! with, `made_of` of what, `tries` what is being made or could not be, `uses` how often they
//! are taken, `view` what people see of all that and may do; `fleet` those of all hosts, `share` what goes there and comes from there, `paged` what
//! starts that are paged touched, `map` which pages one holds.

mod disk;
pub mod fleet;
mod large;
mod made_of;
mod make;
mod map;
mod paged;
mod runs;
mod runtime;
mod share;
mod shelf;
mod tries;
mod uses;
mod view;

pub use disk::{KeptDisk, nameless};
pub use fleet::{Fleet, FleetSnapshot, Place};
pub use map::{Map, Touches, WINDOW_PAGES};
pub use shelf::{SealedSnapshot, Shelf};
pub use tries::NotMade;
pub use view::{LookError, Verified};

use crate::{
    garbage::Removed,
    host::Host,
    jailer::JailerClient,
    pager::Manners,
    version::{Compiler, SealedCache, Startable, VersionSpec, Weigh as _},
    zygote::Class,
};
use fleet::Named;
use make::{MakeError, words};
use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};
use tries::{Insisted, Tries};
use uses::Uses;
use warren_artefact::{SnapshotKey, SnapshotOf};
use warren_sandbox_plan::name::SandboxName;

/// Most unused ones in memory: a small function's is a megabyte, and the cache's bytes are bounded as well.
const MOST_SEALED: usize = 256;

/// How long one that was ended has to be cleared away, before it is ended again.
const CLEARED: Duration = Duration::from_millis(200);
/// A defect: a task of the agent's is no more.
const ENDED: &str = "a task of the agent's ended";

/// What a cold start can begin from.
#[derive(Clone, Debug)]
pub enum Found {
    /// One of this host's own.
    Kept(Arc<SealedSnapshot>),
    /// One that the fleet has and this host not yet.
    Fleet(Arc<FleetSnapshot>),
}

/// The snapshots of this host.
#[derive(Debug)]
pub struct Snapshots {
    /// `None`: this host keeps none.
    shelf: Option<Arc<Shelf>>,
    /// `None`: it shares none.
    fleet: Option<Arc<Fleet>>,
    compiler: Arc<Compiler>,
    jailer: JailerClient,
    sealed: SealedCache<SnapshotKey, SealedSnapshot>,
    tries: Mutex<Tries>,
    uses: Mutex<Uses>,
    /// Told each time a try has ended.
    ends: watch::Sender<()>,
    /// One is made at a time: requests have the cores.
    turn: Semaphore,
    /// The VM whose turn it is.
    making: Mutex<Option<SandboxName>>,
    /// Nor is more than one verified.
    verifying: Semaphore,
    /// How starts from the fleet's are served.
    manners: Mutex<Manners>,
}

impl Snapshots {
    /// Kept on this shelf, shared with this fleet.
    #[must_use]
    pub fn new(
        shelf: Option<Shelf>,
        fleet: Option<Arc<Fleet>>,
        compiler: Arc<Compiler>,
        jailer: JailerClient,
    ) -> Self {
        Self {
            shelf: shelf.map(Arc::new),
            fleet,
            compiler,
            jailer,
            sealed: SealedCache::of(MOST_SEALED),
            tries: Mutex::default(),
            uses: Mutex::default(),
            ends: watch::Sender::new(()),
            turn: Semaphore::new(1),
            making: Mutex::default(),
            verifying: Semaphore::new(1),
            manners: Mutex::default(),
        }
    }

    /// Removes those whose code or function is not named, once they are old enough, and what is known of tries at them.
    pub async fn retain(
        &self,
        sources: HashSet<String>,
        functions: HashSet<String>,
        min_age: Duration,
    ) -> io::Result<Removed> {
        // A runtime's own are nobody's, and few.
        self.tries().retain(|function| function.is_empty() || functions.contains(function));
        self.collect(Named { sources: sources.clone(), functions: functions.clone() }, min_age);
        let Some(place) = self.shelf.clone() else { return Ok(Removed::default()) };
        let trusted = self.compiler.builder_key();
        let work = move || place.retain(&sources, &functions, min_age, &[trusted]);
        tokio::task::spawn_blocking(work).await?
    }

    /// The snapshot of a version for a cold start, if there is one that fits.
    pub async fn find(&self, host: &Host, spec: &VersionSpec, version: &Startable) -> Option<Found> {
        let of = self.of(host, spec, version)?;
        let kept = match &self.shelf {
            Some(place) => self.get(place, of.clone()).await.zip(Some(place)),
            None => None,
        };
        // A host that keeps none may still begin from the fleet's.
        let Some((found, place)) = kept else {
            return self.fleet.as_ref()?.find(&of).await.map(Found::Fleet);
        };
        if self.uses().note(of.key(), SystemTime::now()) {
            let place = Arc::clone(place);
            drop(tokio::task::spawn_blocking(move || place.touch(&of)));
        }
        Some(Found::Kept(found))
    }

    /// Makes one in the background, if there is none and nobody is at it.
    pub fn want(&self, host: &Arc<Host>, spec: &VersionSpec, version: &Startable) {
        let Some(place) = &self.shelf else { return };
        let Some(of) = self.of(host, spec, version) else { return };
        if !host.is_stopping() && self.tries().begin(&of, Instant::now()) {
            drop(begin(host, place, of, (spec, version)));
        }
    }

    /// Makes one, unless it is there, and waits until that has ended, whoever makes it.
    pub async fn publish(
        &self,
        host: &Arc<Host>,
        spec: &VersionSpec,
        version: &Startable,
    ) -> Result<SnapshotKey, NotMade> {
        let cannot = |why: &str| Err(NotMade::Cannot(why.to_owned()));
        let Some(place) = &self.shelf else { return cannot("its host keeps no snapshots") };
        if !spec.snap_start {
            return cannot("SnapStart is off");
        }
        let most_mib = make::most_memory_mib(spec);
        if spec.memory_mib > most_mib {
            return Err(NotMade::Cannot(format!("it has more than {most_mib} MiB of memory")));
        }
        let Some(of) = self.of(host, spec, version) else {
            return Err(NotMade::NotNow(
                "its host cannot say yet of what it would be made (no jailer, or no network it must have)"
                    .to_owned(),
            ));
        };
        let key = of.key();
        // Before looking, so that no end falls between.
        let mut ends = self.ends.subscribe();
        loop {
            let insisted = self.tries().insist(&of, Instant::now());
            match insisted {
                Insisted::Cannot(why) => return Err(why),
                Insisted::Begin => {
                    let begun = begin(host, place, of, (spec, version));
                    let ended = begun.await.unwrap_or_else(|_| Err(NotMade::NotNow(ENDED.to_owned())));
                    return ended.map(|()| key);
                }
                Insisted::Underway => {
                    let _ = ends.changed().await;
                    let last = self.tries().last(key);
                    match last {
                        _ if self.get(place, of.clone()).await.is_some() => return Ok(key),
                        Some(why) => return Err(why),
                        // Another one has ended.
                        None => {}
                    }
                }
            }
        }
    }

    /// A VMM did not take it: it is not served again.
    pub async fn refused(&self, snapshot: &SealedSnapshot, why: &str) {
        let (of, key) = (snapshot.head.of().clone(), snapshot.head.of().key());
        tracing::warn!(function = of.function, %key, why, "a snapshot was refused and is removed; booting instead");
        self.sealed.forget(key);
        self.uses().forget(key);
        if let Some(fleet) = &self.fleet {
            fleet.refused(key, snapshot.head.memory());
        }
        self.tries().refused(&of, &format!("a VMM refused it: {why}"), Instant::now());
        if let Some(shelf) = self.shelf.clone() {
            let _ = tokio::task::spawn_blocking(move || shelf.remove(&of)).await;
        }
    }

    /// Ends what is being made, for an agent that stops: nothing of it stays behind. Returns once that is so.
    pub async fn close(&self, host: &Host) {
        loop {
            let making = self.making().clone();
            if let Some(name) = making {
                let _ = host.jailer.kill_until_gone(&name).await;
            }
            // Its jail may come to be only now.
            if timeout(CLEARED, self.turn.acquire()).await.is_ok() {
                return self.turn.close();
            }
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
    ) -> Result<(), NotMade> {
        let stopping = || NotMade::NotNow("the host stops".to_owned());
        let _turn = self.turn.acquire().await.map_err(|_| stopping())?;
        if self.get(place, of.clone()).await.is_some() {
            return Ok(());
        }
        if host.is_stopping() {
            return Err(stopping());
        }
        if self.take_from_fleet(host, &of, what).await {
            return Ok(());
        }
        let (mut runtime, new) = match self.runtime(host, place, &of, what).await {
            Some((runtime, is_new)) => (Some(Arc::clone(&runtime)), is_new.then_some(runtime)),
            None => (None, None),
        };
        let (key, function, began) = (of.key(), of.function.clone(), Instant::now());
        let (made, is_booted) = loop {
            let made = make::make(host, place, &self.compiler, of.clone(), what, runtime.as_deref()).await;
            match (made, runtime.take()) {
                // The next try boots.
                (Err(MakeError::Runtime(why)), Some(runtime)) => self.refused(&runtime, &words(&why)).await,
                (made, runtime) => break (made, runtime.is_none()),
            }
        };
        // Not earlier: to be sent, it is read and sealed, and a function's init has its time.
        if let Some(runtime) = new {
            Self::share(host, runtime.head.of().clone());
        }
        match made {
            Ok(made) => {
                let (bytes, ms) = (made.bytes(), began.elapsed().as_millis());
                tracing::info!(function, %key, bytes, ms, is_booted, "a snapshot was made");
                let made = self.sealed.insert(key, made);
                expect(host, what);
                Self::share(host, made.head.of().clone());
                Ok(())
            }
            Err(error) => {
                let why = NotMade::from(&error);
                let error = anyhow::Error::from(error);
                tracing::warn!(function, %key, "no snapshot was made, its cold starts boot: {error:#}");
                Err(why)
            }
        }
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        // Whole between any two statements.
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn making(&self) -> MutexGuard<'_, Option<SandboxName>> {
        // The same.
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        // The same.
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a task of its own: it outlives whoever wants it.
fn begin(
    host: &Arc<Host>,
    place: &Arc<Shelf>,
    of: SnapshotOf,
    (spec, version): (&VersionSpec, &Startable),
) -> JoinHandle<Result<(), NotMade>> {
    let (host, place) = (Arc::clone(host), Arc::clone(place));
    let (spec, version) = (spec.clone(), version.clone());
    tokio::spawn(async move {
        let (snapshots, key) = (&host.snapshots, of.key());
        let mut ended = snapshots.make(&host, &place, of, (&spec, &version)).await;
        if !snapshots.tries().end(key, ended.clone(), Instant::now()) {
            let _ = snapshots.forget(key).await;
            ended = Err(NotMade::NotNow("it was removed while it was made".to_owned()));
        }
        snapshots.ends.send_replace(());
        ended
    })
}

/// It was made of what is going to be called.
fn expect(host: &Host, what: (&VersionSpec, &Startable)) {
    let (spec, version) = what;
    if let Some(class) = Class::of(host, spec, version) {
        host.zygotes.expect(class);
    }
}
