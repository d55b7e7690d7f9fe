//! From a snapshot that this host keeps to one that the fleet has.
//!
//! ```text
//! entry there and good ─▶ there
//! else: memory cut, as a diff where one of its runtime is there ─▶ chunks put, four at once ─▶ manifest ─▶ the same of the disk ─▶ entry, if there is none ─▶ there
//!                                                                                    └─ somebody was first: theirs stands
//! ```
//! The base of a diff is, of a Linux function, its runtime's own; of a Wasm function the first whole one of its runtime that this host
//! knows the fleet to have. Either only if this host keeps it itself: what is in common is in the origin once, and a host that has the one reads little for the other. A diff is no base, so a chain is one link long.
//! A chunk that is put twice is there once, so whatever ended in the middle is begun again.

use super::{
    Entry, Fleet, Stored, add,
    book::Refusal,
    entry::{self, Facts},
    image, named,
};
use crate::snapshot::{SealedSnapshot, runs::pairs};
use futures::{StreamExt as _, TryStreamExt as _};
use std::{
    io,
    sync::Arc,
    time::{Instant, SystemTime},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use warren_artefact::SnapshotHead;
use warren_chunks::{
    ChunkSize, Image, Manifest, Name, Store,
    cut::{CutError, Source, cut},
    diff::{compare, cut_against},
    l2::MAX_OBJECT_BYTES,
    l3::{Area, OriginError},
    salt::Domain,
    seal::Sealed,
    store::{PublishError, PutError},
};
use warren_identity::IdentityError;
use warren_state::StateError;

/// Chunks on their way at once; as many wait.
const AT_ONCE: usize = 4;

/// Why the fleet has no copy. This host goes on with its own.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum ShareError {
    /// The origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A chunk is not kept.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A manifest is not acknowledged.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// It cannot be cut.
    #[error(transparent)]
    Cut(#[from] CutError<Left>),
    /// Its state is not one that this release reads.
    #[error("its state says no runs")]
    State(#[from] StateError),
    /// Its memory is not what its state says.
    #[error("its memory is not what its state says")]
    Runs,
    /// The host.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] IdentityError),
    /// It was replaced by one that is no good while it was published.
    #[error("an entry that is no good took its place")]
    Replaced,
    /// A task of this agent ended.
    #[error("a task of the agent's ended")]
    Internal,
}

/// Whoever took chunks has gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nobody takes chunks any more")]
pub(in super::super) struct Left;

impl Fleet {
    /// Gives the fleet a copy, unless it has one. `base`: what [`super::book::Book::base`] named, if this host keeps it.
    pub(in super::super) async fn publish(
        &self,
        snapshot: &SealedSnapshot,
        base: Option<Arc<SealedSnapshot>>,
    ) -> Result<Stored, ShareError> {
        let of = snapshot.head.of();
        let store = self.store().await?;
        // Of one that could not be fetched whole, what is there is not taken for what it is called.
        let (replaces, mends) = match self.read(of).await? {
            Entry::Good(found) if self.book().refusal(&found) != Some(Refusal::Broken) => {
                return Ok(found.stored);
            }
            Entry::None => (false, false),
            Entry::Refused => (true, false),
            Entry::Good(_) => (true, true),
        };
        let put = Put { store: &store, mends };
        let began = Instant::now();
        let domain = self.keys.domain(of);
        let mut stored = Stored::default();
        // Where chunks were found damaged, a base's may be as well: all of this one's are put, and looked at.
        let diff = match base.filter(|_| !mends) {
            Some(base) => {
                let diff = self.diff(put, (snapshot, &base), &mut stored).await?;
                if diff.is_none() {
                    self.book().not_whole(base.head.of());
                }
                diff
            }
            None => None,
        };
        let is_diff = diff.is_some();
        let memory = if let Some(memory) = diff {
            memory
        } else {
            let manifest = whole(put, memory_of(snapshot)?, domain.clone(), &mut stored).await?;
            self.manifest(&store, &manifest).await?
        };
        let mut disk = None;
        if let Some(file) = snapshot.disk.clone() {
            let source = tokio::task::spawn_blocking(move || image::disk(&file));
            let source = source.await.map_err(|_| ShareError::Internal)??;
            let manifest = whole(put, source, domain, &mut stored).await?;
            disk = Some(self.manifest(&store, &manifest).await?);
        }
        let entry = self.entry(&snapshot.head, memory, disk, 0, stored)?;
        let is_ours = if replaces {
            store.origin().replace_entry(named(of.key()), entry).await.map(|()| true)?
        } else {
            store.origin().put_new_entry(named(of.key()), entry).await?
        };
        let Entry::Good(standing) = self.read(of).await? else { return Err(ShareError::Replaced) };
        if is_ours && !is_diff {
            self.book().is_whole(of);
        }
        let Stored { new_bytes, shared_bytes } = stored;
        add(&self.counts.published, u64::from(is_ours));
        add(&self.counts.new_bytes, new_bytes);
        add(&self.counts.shared_bytes, shared_bytes);
        let (function, key, ms) = (&of.function, of.key(), began.elapsed().as_millis());
        tracing::info!(function, %key, new_bytes, shared_bytes, is_diff, is_ours, ms, "the fleet has a snapshot");
        Ok(standing.stored)
    }

    /// Its memory as a diff on another's, where a quarter of its pages and more are the same: its manifest. `None`: that one is not there
    /// any more, or nothing is saved.
    async fn diff(
        &self,
        put: Put<'_>,
        (snapshot, base): (&SealedSnapshot, &SealedSnapshot),
        stored: &mut Stored,
    ) -> Result<Option<Name>, ShareError> {
        let Entry::Good(found) = self.read(base.head.of()).await? else { return Ok(None) };
        if found.head.memory() != base.head.memory() {
            return Ok(None);
        }
        let Ok(manifest) = put.store.manifest(found.memory, &found.key).await else { return Ok(None) };
        let Some(image) = Image::whole(manifest) else { return Ok(None) };
        let (was, is) = (Arc::new(memory_of(base)?), Arc::new(memory_of(snapshot)?));
        let counting = (Arc::clone(&was), Arc::clone(&is));
        let counted = tokio::task::spawn_blocking(move || compare(&*counting.0, &*counting.1, |_, _| {}));
        let counts = counted.await.map_err(|_| ShareError::Internal)??;
        if counts.same.saturating_mul(4) < counts.full() {
            return Ok(None);
        }
        let (name, domain) = (found.memory, self.keys.domain(snapshot.head.of()));
        let cut = move |keep: &mut dyn FnMut(Sealed) -> Result<(), Left>| {
            cut_against((name, &image), &*was, &*is, &domain, keep).map(|(manifest, _)| manifest)
        };
        let manifest = upload(put, cut, stored).await?;
        match put.store.publish(&manifest, &self.keys.tenant()).await {
            Ok(name) => Ok(Some(name)),
            // This host has it still, the origin has not.
            Err(PublishError::Missing(gone)) if gone == name => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs an entry.
    pub(super) fn entry(
        &self,
        head: &SnapshotHead,
        memory: Name,
        disk: Option<Name>,
        sequence: u32,
        stored: Stored,
    ) -> Result<bytes::Bytes, IdentityError> {
        let facts = Facts { head, memory, disk, sequence, stored };
        entry::sign(&self.credentials.signer(), facts, SystemTime::now(), self.generation)
            .map(bytes::Bytes::from)
    }

    async fn manifest(&self, store: &Store, manifest: &Manifest) -> Result<Name, ShareError> {
        Ok(store.publish(manifest, &self.keys.tenant()).await?)
    }
}

/// How chunks are put.
#[derive(Clone, Copy)]
struct Put<'a> {
    store: &'a Store,
    /// What is there already is read again, and put in place of what is not of its name.
    mends: bool,
}

impl Put<'_> {
    /// Whether it is new.
    async fn put(self, name: Name, bytes: bytes::Bytes) -> Result<bool, PutError> {
        let is_new = self.store.put(name, bytes.clone()).await?;
        if !is_new && self.mends {
            let origin = self.store.origin();
            match origin.get(Area::Live, name, MAX_OBJECT_BYTES).await {
                Err(OriginError::Damaged | OriginError::Absent) => origin.replace(name, bytes).await?,
                read => drop(read?),
            }
        }
        Ok(is_new)
    }
}

fn memory_of(snapshot: &SealedSnapshot) -> Result<impl Source + Send + Sync + use<>, ShareError> {
    let runs = pairs(&snapshot.head)?;
    image::memory(&snapshot.memory, runs)?.ok_or(ShareError::Runs)
}

/// All of an image.
async fn whole(
    put: Put<'_>,
    source: impl Source + Send + 'static,
    domain: Domain,
    stored: &mut Stored,
) -> Result<Manifest, ShareError> {
    let all = move |keep: &mut dyn FnMut(Sealed) -> Result<(), Left>| {
        cut(&source, ChunkSize::DEFAULT, &domain, keep)
    };
    upload(put, all, stored).await
}

/// Cuts, and puts the chunks as they come.
async fn upload(
    put: Put<'_>,
    cut: impl FnOnce(&mut dyn FnMut(Sealed) -> Result<(), Left>) -> Result<Manifest, CutError<Left>>
    + Send
    + 'static,
    stored: &mut Stored,
) -> Result<Manifest, ShareError> {
    let (give, take) = mpsc::channel::<Sealed>(AT_ONCE);
    let cutting =
        tokio::task::spawn_blocking(move || cut(&mut |sealed| give.blocking_send(sealed).map_err(|_| Left)));
    let puts = ReceiverStream::new(take).map(|Sealed { name, bytes, .. }| async move {
        let len = bytes.len() as u64;
        put.put(name, bytes).await.map(|is_new| (is_new, len))
    });
    // An error lets go of the other end, which ends the cutting.
    let add = |(is_new, len): (bool, u64)| {
        let bytes = if is_new { &mut stored.new_bytes } else { &mut stored.shared_bytes };
        *bytes = bytes.saturating_add(len);
        futures::future::ready(Ok(()))
    };
    puts.buffer_unordered(AT_ONCE).try_for_each(add).await?;
    Ok(cutting.await.map_err(|_| ShareError::Internal)??)
}
