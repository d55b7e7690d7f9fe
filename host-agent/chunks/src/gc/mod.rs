//! Garbage collection of the origin, by generations of roots.
//!
//! ```text
//!            not reached, older than min_age            not reached, retired an earlier collection and min_age ago
//!   live ───────────────────────────────────▶ retired ──────────────────────────────────────────────────────▶ deleted
//!    ▲                                           │
//!    ╰── reached, read (with an alarm), published ┘        a put of what is retired stores it anew
//! ```
//! A generation is a set of roots: the sealed manifests that somebody may restore. What is reached from them (their chunks,
//! their bases, the bases' chunks) stays. What is not is taken out of service first and deleted by a later collection,
//! so a root that was forgotten shows as an alarm, not as a loss. `min_age` is longer than any upload: a manifest becomes
//! a root within it, and what was put or put again in it is never retired.
//!
//! A collection that stops in the middle has deleted nothing it should not have: the next begins anew. Two at once are
//! the caller's to prevent (one leader collects); they would do each other's work, not harm.

pub mod plan;

pub use plan::{Plan, plan};

use crate::{
    l3::{Area, Origin, OriginError},
    manifest::sealed::{MAX_MANIFEST_BYTES, ManifestError, references},
    name::Name,
};
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

/// What is to be collected.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Every manifest that somebody may restore.
    pub roots: Vec<Name>,
    /// What is younger is left alone.
    pub min_age: Duration,
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects that the roots reach.
    pub reached: usize,
    /// Put back into service: something reached them again.
    pub restored: Vec<Name>,
    /// Taken out of service.
    pub retired: Vec<Name>,
    /// Gone.
    pub deleted: Vec<Name>,
    /// Bytes that are gone.
    pub bytes: u64,
}

/// Why a collection stopped. Nothing was retired or deleted unless it says `Origin`.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A root, or a base of one, cannot be read: without it nobody knows what it reaches.
    #[error("the manifest {name} cannot be read")]
    Unreadable {
        /// Which.
        name: Name,
        /// A root that reaches it: itself, or what is on it.
        root: Name,
        /// Why.
        #[source]
        source: OriginError,
    },
    /// A root, or a base of one, is no manifest.
    #[error("the root {name} is no manifest")]
    NotAManifest {
        /// Which.
        name: Name,
        /// A root that reaches it.
        root: Name,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The origin failed.
    #[error(transparent)]
    Origin(#[from] OriginError),
}

/// Collects once.
pub async fn collect(origin: &Origin, generation: &Generation) -> Result<Collected, CollectError> {
    // Marked before anything is listed: what is put after this is young in the list.
    let reached = mark(origin, &generation.roots).await?;
    let (live, retired) = (origin.list(Area::Live).await?, origin.list(Area::Retired).await?);
    let now = SystemTime::now();
    let plan = plan(&reached, &live, &retired, now, generation.min_age);
    let mut done = Collected { reached: reached.len(), ..Collected::default() };
    for name in plan.restore {
        if moved(origin.shift(name, Area::Retired, Area::Live).await)? {
            done.restored.push(name);
        }
    }
    for held in plan.delete {
        origin.remove(Area::Retired, held.name).await?;
        done.bytes += held.bytes;
        done.deleted.push(held.name);
    }
    for held in plan.retire {
        // Put again since it was listed: young.
        if origin.held(Area::Live, held.name).await.is_ok_and(|again| again.since == held.since)
            && moved(origin.shift(held.name, Area::Live, Area::Retired).await)?
        {
            done.retired.push(held.name);
        }
    }
    Ok(done)
}

/// Whether it was there to be moved: a reader or a put may have been faster.
fn moved(done: Result<(), OriginError>) -> Result<bool, OriginError> {
    match done {
        Ok(()) => Ok(true),
        Err(OriginError::Absent) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Everything the roots reach, themselves too.
async fn mark(origin: &Origin, roots: &[Name]) -> Result<HashSet<Name>, CollectError> {
    let mut reached: HashSet<Name> = HashSet::new();
    let mut open: HashSet<Name> = HashSet::new();
    let mut todo: Vec<(Name, Name)> = roots.iter().map(|root| (*root, *root)).collect();
    while let Some((name, root)) = todo.pop() {
        // A chunk's name says nothing of what it is: a manifest that another names as a chunk is opened all the same.
        if !open.insert(name) {
            continue;
        }
        let live = origin.get(Area::Live, name, MAX_MANIFEST_BYTES).await;
        let sealed = match live {
            Err(OriginError::Absent) => origin.get(Area::Retired, name, MAX_MANIFEST_BYTES).await,
            read => read,
        };
        let sealed = sealed.map_err(|source| CollectError::Unreadable { name, root, source })?;
        let named =
            references(&sealed).map_err(|source| CollectError::NotAManifest { name, root, source })?;
        reached.insert(name);
        reached.extend(named.chunks);
        todo.extend(named.base.map(|base| (base, root)));
    }
    Ok(reached)
}
