//! From the fleet's copy to one of this host's own: every chunk, several at once, and the digests that were signed.

use super::{Fleet, FleetSnapshot, add, book::Refusal, image};
use crate::{
    memfd::{SealedFile, unsealed},
    snapshot::SealedSnapshot,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};
use warren_artefact::{Part, snapshot::copy};
use warren_chunks::{
    Manifest, Name, Store,
    l3::{Area, OriginError},
    manifest::ChunkRef,
    pages::{PAGE_BYTES, PageSet},
    store::ReadError,
};
use warren_image::sparse::Sparse;
use warren_state::StateError;

/// Chunks on their way at once.
const AT_ONCE: usize = 8;
/// A page, as addresses count.
const PAGE: u64 = PAGE_BYTES as u64;

/// Why a copy was not fetched. The start boots.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The origin, before anything was asked of it.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A manifest, or a chunk.
    #[error("the object {name} cannot be read")]
    Read {
        /// Which.
        name: Name,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// Its state is not one that this release reads.
    #[error("its state says no runs")]
    State(#[from] StateError),
    /// The manifest is of another image than was signed.
    #[error("its {0} is not what was signed")]
    Other(&'static str),
    /// The host.
    #[error("it cannot be kept")]
    Io(#[from] io::Error),
    /// A task of this agent ended.
    #[error("a task of the agent's ended")]
    Internal,
}

impl FetchError {
    /// Whether the copy itself is at fault: the next try would end the same, and another copy may take its place.
    fn is_broken(&self) -> bool {
        match self {
            Self::Read { source, .. } => match source {
                ReadError::Absent | ReadError::Chunk(_) | ReadError::Manifest(_) => true,
                ReadError::Origin(error) => matches!(**error, OriginError::Damaged),
                ReadError::Stopped => false,
            },
            Self::State(_) | Self::Other(_) => true,
            Self::Origin(_) | Self::Io(_) | Self::Internal => false,
        }
    }
}

impl Fleet {
    /// Fetches one whole. What comes back has the digests that its maker signed.
    pub(in super::super) async fn fetch(&self, from: &FleetSnapshot) -> Result<SealedSnapshot, FetchError> {
        let fetched = self.whole(from).await;
        match &fetched {
            Ok(_) => add(&self.counts.fetched, 1),
            Err(error) => {
                add(&self.counts.not_fetched, 1);
                if error.is_broken() {
                    self.book().refuse(from.head.of().key(), from.head.memory(), Refusal::Broken);
                    self.put_aside(error).await;
                }
            }
        }
        fetched
    }

    async fn whole(&self, from: &FleetSnapshot) -> Result<SealedSnapshot, FetchError> {
        let store = self.store().await?;
        let runs = image::runs(&from.head)?;
        let packed = image::Packed::new(&runs);
        let memory = unsealed("snapshot")?;
        memory.set_len(from.head.memory_len())?;
        let manifest = read_manifest(&store, from.memory, from).await?;
        if manifest.parts().base.is_some()
            || manifest.stored_pages().saturating_mul(PAGE) > from.head.memory_len()
        {
            return Err(FetchError::Other("memory"));
        }
        fill(&store, &manifest, &memory, |page| packed.offset(page)).await?;
        let head = from.head.clone();
        let sealed = tokio::task::spawn_blocking(move || proven(memory, head.memory_part(), "memory"));
        let memory = sealed.await.map_err(|_| FetchError::Internal)??;
        let mut disk = None;
        if let Some(name) = from.disk {
            let manifest = read_manifest(&store, name, from).await?;
            let whole = unsealed("disk")?;
            whole.set_len(manifest.parts().bytes)?;
            let most = from.head.disk_len().saturating_add(PAGE);
            if manifest.parts().base.is_some() || manifest.stored_pages().saturating_mul(PAGE) > most {
                return Err(FetchError::Other("disk"));
            }
            fill(&store, &manifest, &whole, Some).await?;
            let part = from.head.disk_part();
            let kept = tokio::task::spawn_blocking(move || {
                let bytes = Sparse::of_file(&whole)?.to_bytes();
                if Part::of(&bytes) != part {
                    return Err(FetchError::Other("disk"));
                }
                Ok(SealedFile::new("disk", &bytes)?)
            });
            disk = Some(Arc::new(kept.await.map_err(|_| FetchError::Internal)??));
        }
        Ok(SealedSnapshot { head: from.head.clone(), memory, disk })
    }

    /// What is not of its name is of no use to anybody, and keeps a good one from being put there.
    async fn put_aside(&self, error: &FetchError) {
        let FetchError::Read { name, source: ReadError::Origin(cause) } = error else { return };
        let Ok(store) = self.store().await else { return };
        if matches!(**cause, OriginError::Damaged)
            && let Err(error) = store.origin().shift(*name, Area::Live, Area::Damaged).await
        {
            tracing::warn!(%name, %error, "a damaged chunk cannot be put aside");
        }
    }
}

async fn read_manifest(store: &Store, name: Name, from: &FleetSnapshot) -> Result<Manifest, FetchError> {
    store.manifest(name, &from.key).await.map_err(|source| FetchError::Read { name, source })
}

/// Writes every page of an image to where it belongs; a page that belongs nowhere is one too many.
async fn fill(
    store: &Store,
    manifest: &Manifest,
    into: &File,
    place: impl Fn(u64) -> Option<u64>,
) -> Result<(), FetchError> {
    let pages = u64::from(manifest.parts().size.pages());
    let held = manifest.parts().entries.iter().filter_map(|entry| {
        let first = u64::from(entry.window) * pages;
        Some((first, entry.present.clone(), entry.chunk.clone()?))
    });
    let held: Vec<(u64, PageSet, ChunkRef)> = held.collect();
    let reads = stream::iter(held).map(|(first, present, chunk)| {
        let store = store.clone();
        async move {
            let plain = store.chunk(&chunk, present.len()).await;
            let name = chunk.name;
            plain.map(|plain| (first, present, plain)).map_err(|source| FetchError::Read { name, source })
        }
    });
    let mut reads = std::pin::pin!(reads.buffer_unordered(AT_ONCE));
    while let Some((first, present, plain)) = reads.try_next().await? {
        for (at, page) in present.iter().zip(plain.chunks(PAGE_BYTES)) {
            let offset = place((first + u64::from(at)) * PAGE).ok_or(FetchError::Other("memory"))?;
            into.write_all_at(page, offset)?;
        }
    }
    Ok(())
}

/// Seals a file that holds what was signed; any other is refused.
fn proven(file: File, signed: Part, what: &'static str) -> Result<SealedFile, FetchError> {
    let sealed = SealedFile::sealed(file)?;
    if copy(&mut sealed.reader(), &mut io::sink())? == signed {
        Ok(sealed)
    } else {
        Err(FetchError::Other(what))
    }
}
