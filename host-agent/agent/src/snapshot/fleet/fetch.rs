//! From the fleet's copy to one of this host's own: every chunk, several at once, and the digests that were signed.

use super::{Fleet, FleetSnapshot, add, book::Refusal, image};
use crate::{
    memfd::{SealedFile, unsealed},
    snapshot::{KeptDisk, SealedSnapshot, nameless, runs::pairs},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _, path::Path, sync::Arc};
use warren_artefact::{Part, snapshot::copy};
use warren_chunks::{
    Image, Manifest, Name, Store,
    image::Place,
    l3::{Area, OriginError},
    manifest::ChunkRef,
    pages::PAGE_BYTES,
    store::ReadError,
};
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
    /// Fetches one whole, its disk into the file system of this folder. What comes back has the digests that its maker signed.
    pub(in super::super) async fn fetch(
        &self,
        from: &FleetSnapshot,
        folder: &Path,
    ) -> Result<SealedSnapshot, FetchError> {
        let fetched = self.whole(from, folder).await;
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

    async fn whole(&self, from: &FleetSnapshot, folder: &Path) -> Result<SealedSnapshot, FetchError> {
        let store = self.store().await?;
        let runs = pairs(&from.head)?;
        let packed = image::Packed::new(&runs);
        let memory = unsealed("snapshot")?;
        memory.set_len(from.head.memory_len())?;
        let image = read_image(&store, from.memory, from).await?;
        fill(&store, &image, &memory, from.head.memory_len(), "memory", |page| packed.offset(page)).await?;
        if image.depth() == 0 {
            self.book().is_whole(from.head.of());
        }
        let head = from.head.clone();
        let sealed = tokio::task::spawn_blocking(move || proven(memory, head.memory_part(), "memory"));
        let memory = sealed.await.map_err(|_| FetchError::Internal)??;
        let mut disk = None;
        if let Some(name) = from.disk {
            let image = read_image(&store, name, from).await?;
            let whole = nameless(folder)?;
            whole.set_len(image.bytes())?;
            let most = from.head.disk_len().saturating_add(PAGE);
            fill(&store, &image, &whole, most, "disk", Some).await?;
            let part = from.head.disk_part();
            let kept = tokio::task::spawn_blocking(move || {
                let kept = KeptDisk::of(&whole)?;
                if kept.part()? == part { Ok(kept) } else { Err(FetchError::Other("disk")) }
            });
            disk = Some(Arc::new(kept.await.map_err(|_| FetchError::Internal)??));
        }
        let snapshot = SealedSnapshot { head: from.head.clone(), memory, disk };
        let gathered = tokio::task::spawn_blocking(move || snapshot.in_large_pages());
        gathered.await.map_err(|_| FetchError::Internal)
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

/// A manifest with its bases.
async fn read_image(store: &Store, name: Name, from: &FleetSnapshot) -> Result<Image, FetchError> {
    let manifest = read_manifest(store, name, from).await?;
    let (mut bases, mut next) = (HashMap::new(), manifest.parts().base);
    while let Some(base) = next.filter(|base| !bases.contains_key(&base.name)) {
        if bases.len() >= usize::from(manifest.depth()) {
            return Err(FetchError::Other("base"));
        }
        let found = read_manifest(store, base.name, from).await?;
        next = found.parts().base;
        bases.insert(base.name, found);
    }
    Image::resolve(manifest, |name| bases.remove(&name).ok_or(ReadError::Absent))
        .map_err(|_| FetchError::Other("base"))
}

/// A chunk, and where its pages belong that no newer layer has: place in it, page of the image.
type Needed = (ChunkRef, u32, Vec<(u32, u32)>);

/// Writes every page of an image, at most so many bytes, to where it belongs; a page that belongs nowhere is one too many.
async fn fill(
    store: &Store,
    image: &Image,
    into: &File,
    most: u64,
    what: &'static str,
    place: impl Fn(u64) -> Option<u64>,
) -> Result<(), FetchError> {
    let (mut needed, mut left): (Vec<Needed>, u64) = (Vec::new(), most / PAGE);
    for (depth, layer) in image.layers().iter().enumerate() {
        for entry in &layer.parts().entries {
            let Some(chunk) = &entry.chunk else { continue };
            let first = entry.window.saturating_mul(layer.parts().size.pages());
            let pages = (0..).zip(entry.present.iter()).filter_map(|(rank, at)| {
                let page = first.saturating_add(at);
                matches!(image.place(page), Place::In { layer, .. } if layer == depth).then_some((rank, page))
            });
            let pages: Vec<_> = pages.collect();
            left = left.checked_sub(pages.len() as u64).ok_or(FetchError::Other(what))?;
            if !pages.is_empty() {
                needed.push((chunk.clone(), entry.present.len(), pages));
            }
        }
    }
    let reads = stream::iter(needed).map(|(chunk, of, pages)| {
        let store = store.clone();
        async move {
            let plain = store.chunk(&chunk, of).await;
            plain.map(|plain| (pages, plain)).map_err(|source| FetchError::Read { name: chunk.name, source })
        }
    });
    let mut reads = std::pin::pin!(reads.buffer_unordered(AT_ONCE));
    while let Some((pages, plain)) = reads.try_next().await? {
        for (rank, page) in pages {
            let offset = place(u64::from(page) * PAGE).ok_or(FetchError::Other(what))?;
            let bytes =
                plain.as_chunks::<PAGE_BYTES>().0.get(rank as usize).ok_or(FetchError::Other(what))?;
            into.write_all_at(bytes, offset)?;
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
