//! The origin: what every worker can fetch from, and the one place a put is acknowledged by.
//!
//! ```text
//! a call ── too many wait ──▶ Overloaded
//!    │ waits for one of `at_once` places
//!    ▼
//!  a try ── deadline ──▶ Slow ──┐
//!    │ ╰─── failed ──▶ Unavailable ─┴─ tries left ──▶ a random pause, another try
//!    ▼                                └ none left ──▶ that error
//! answer, or Absent, Forbidden, Full, Damaged: trying again would not help
//! ```
//! Trying again is safe for every call: a put leaves what is there, and what is there has its content for a name.

use super::{
    error::OriginError,
    folder::{Directory, Reading},
    retry::Retry,
    s3::{Bucket, S3},
};
use crate::{
    files::{FileError, Taken},
    name::Name,
};
use bytes::Bytes;
use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::{sleep, timeout},
};

/// Where in the origin an object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// What is served.
    Live,
    /// What garbage collection took out of service, and will delete.
    Retired,
    /// What a scrub found not to be of its name.
    Damaged,
    /// What is called by what it is about, and so can be replaced: see [`entries`](super::entries).
    Entries,
}

impl Area {
    pub(super) const ALL: [Self; 4] = [Self::Live, Self::Retired, Self::Damaged, Self::Entries];

    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Live => "chunks",
            Self::Retired => "retired",
            Self::Damaged => "damaged",
            Self::Entries => "entries",
        }
    }
}

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it is called.
    pub name: Name,
    /// How much it holds.
    pub bytes: u64,
    /// When it came to where it lies, or was put again.
    pub since: SystemTime,
}

/// How much of the origin one worker may take.
#[derive(Clone, Copy, Debug)]
pub struct OriginLimits {
    /// Calls at once.
    pub at_once: usize,
    /// Calls that wait for a place; more are refused, so that an empty cache does not become a queue without end.
    pub waiting: usize,
    /// Of one try.
    pub deadline: Duration,
    /// How often, how long between.
    pub retry: Retry,
    /// A put of what was put this long ago makes it young again, so that no collection takes it. A collection's `min_age` is
    /// longer than this and an upload together.
    pub refresh_after: Duration,
}

impl Default for OriginLimits {
    fn default() -> Self {
        Self {
            at_once: 16,
            waiting: 4096,
            deadline: Duration::from_secs(10),
            retry: Retry::default(),
            refresh_after: Duration::from_hours(1),
        }
    }
}

#[derive(Clone, Debug)]
enum Backend {
    Folder(Arc<Directory>),
    S3(Arc<Bucket>),
}

/// The third tier.
#[derive(Debug)]
pub struct Origin {
    backend: Backend,
    limits: OriginLimits,
    places: Semaphore,
    waiting: AtomicUsize,
}

impl Origin {
    /// A folder.
    pub fn folder(root: &Path, limits: OriginLimits) -> Result<Self, OriginError> {
        Ok(Self::new(Backend::Folder(Arc::new(Directory::open(root)?)), limits))
    }

    /// A folder of somebody else's, whose chunks are read by descriptors of it: nothing is written there.
    #[must_use]
    pub fn reading(folders: Reading, limits: OriginLimits) -> Self {
        Self::new(Backend::Folder(Arc::new(Directory::reading(folders))), limits)
    }

    /// Whether nothing can be changed in it from here.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(&self.backend, Backend::Folder(folder) if folder.is_read_only())
    }

    /// A bucket.
    pub fn s3(config: S3, limits: OriginLimits) -> Result<Self, OriginError> {
        Ok(Self::new(Backend::S3(Arc::new(Bucket::open(config)?)), limits))
    }

    fn new(backend: Backend, limits: OriginLimits) -> Self {
        Self { backend, places: Semaphore::new(limits.at_once.max(1)), waiting: AtomicUsize::new(0), limits }
    }

    /// Keeps an object; durable when this returns. What is there already is left, and young again. `false` if it was.
    pub async fn put(&self, name: Name, sealed: Bytes) -> Result<bool, OriginError> {
        if self.write(Area::Live, name, sealed.clone(), Taken::Leave).await? {
            return Ok(true);
        }
        let there = self.held(Area::Live, name).await;
        let sound = there.as_ref().is_ok_and(|held| held.bytes == sealed.len() as u64);
        let young = there.as_ref().is_ok_and(|held| self.is_young(held));
        match there {
            Ok(_) if sound && young => Ok(false),
            Ok(_) if sound => self.refresh(name, sealed).await.map(|()| false),
            // A collection took it between the two calls, or it is of another length than its name allows.
            Ok(_) | Err(OriginError::Absent) => self.replace(name, sealed).await.map(|()| true),
            Err(error) => Err(error),
        }
    }

    /// Whether it was put so lately that no collection looks at it.
    #[must_use]
    pub fn is_young(&self, held: &Held) -> bool {
        SystemTime::now().duration_since(held.since).is_ok_and(|age| age < self.limits.refresh_after)
    }

    /// Keeps an object in place of what is there.
    pub async fn replace(&self, name: Name, sealed: Bytes) -> Result<(), OriginError> {
        self.write(Area::Live, name, sealed, Taken::Replace).await.map(drop)
    }

    /// Begins its age anew: a folder can say so, a bucket knows only when it was last written.
    async fn refresh(&self, name: Name, sealed: Bytes) -> Result<(), OriginError> {
        if let Backend::Folder(folder) = self.backend.clone()
            && blocking(move || folder.refresh(name)).await?
        {
            return Ok(());
        }
        self.replace(name, sealed).await
    }

    pub(super) async fn write(
        &self,
        area: Area,
        name: Name,
        sealed: Bytes,
        taken: Taken,
    ) -> Result<bool, OriginError> {
        self.tried(|backend| {
            let sealed = sealed.clone();
            async move {
                match backend {
                    Backend::Folder(folder) => blocking(move || folder.put(area, name, &sealed, taken)).await,
                    Backend::S3(bucket) => bucket.put(area, name, sealed, taken).await,
                }
            }
        })
        .await
    }

    /// Reads an object of at most `most` bytes, held against its name.
    pub async fn get(&self, area: Area, name: Name, most: usize) -> Result<Bytes, OriginError> {
        let sealed = self.read(area, name, most).await?;
        if sealed.len() <= most && name.is_of(&sealed) { Ok(sealed) } else { Err(OriginError::Damaged) }
    }

    /// Reads what lies under a name, whatever it is; one byte more than `most` at most.
    pub(super) async fn read(&self, area: Area, name: Name, most: usize) -> Result<Bytes, OriginError> {
        self.tried(move |backend| async move {
            match backend {
                Backend::Folder(folder) => {
                    blocking(move || folder.get(area, name, most)).await?.ok_or(OriginError::Absent)
                }
                Backend::S3(bucket) => bucket.get(area, name, most).await,
            }
        })
        .await
    }

    /// What is known of an object.
    pub async fn held(&self, area: Area, name: Name) -> Result<Held, OriginError> {
        self.tried(move |backend| async move {
            match backend {
                Backend::Folder(folder) => {
                    blocking(move || folder.held(area, name)).await?.ok_or(OriginError::Absent)
                }
                Backend::S3(bucket) => bucket.held(area, name).await,
            }
        })
        .await
    }

    /// Moves an object to another area, where its age begins anew.
    pub async fn shift(&self, name: Name, from: Area, to: Area) -> Result<(), OriginError> {
        self.tried(move |backend| async move {
            match backend {
                Backend::Folder(folder) => match blocking(move || folder.shift(name, from, to)).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(OriginError::Absent),
                    Err(error) => Err(error),
                },
                Backend::S3(bucket) => bucket.shift(name, from, to).await,
            }
        })
        .await
    }

    /// Removes an object; that it is not there is as good.
    pub async fn remove(&self, area: Area, name: Name) -> Result<(), OriginError> {
        self.tried(move |backend| async move {
            match backend {
                Backend::Folder(folder) => blocking(move || folder.remove(area, name)).await,
                Backend::S3(bucket) => bucket.remove(area, name).await,
            }
        })
        .await
    }

    /// Everything in an area. No deadline but each answer's: a large bucket is a long list.
    pub async fn list(&self, area: Area) -> Result<Vec<Held>, OriginError> {
        let _place = self.place().await?;
        match self.backend.clone() {
            Backend::Folder(folder) => blocking(move || folder.list(area)).await,
            Backend::S3(bucket) => bucket.list(area, self.limits.deadline).await,
        }
    }

    async fn tried<T, F>(&self, call: impl Fn(Backend) -> F) -> Result<T, OriginError>
    where
        F: Future<Output = Result<T, OriginError>>,
    {
        let _place = self.place().await?;
        let mut failures = 0;
        loop {
            let answer = timeout(self.limits.deadline, call(self.backend.clone())).await;
            let error = match answer.unwrap_or(Err(OriginError::Slow)) {
                Err(error) if error.is_worth_another_try() => error,
                done => return done,
            };
            failures += 1;
            // Without a random number, the whole pause.
            let drawn = getrandom::u32().unwrap_or(u32::MAX);
            match self.limits.retry.pause(failures, drawn) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>, OriginError> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let waiter = Waiter(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limits.waiting {
            return Err(OriginError::Overloaded);
        }
        let place = self.places.acquire().await.map_err(|_| OriginError::Overloaded);
        drop(waiter);
        place
    }
}

/// Counts one less when it is gone, also with a caller that left.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, OriginError> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(OriginError::from),
        Err(error) => Err(OriginError::Unavailable(Arc::new(error))),
    }
}
