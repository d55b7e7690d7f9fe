//! A loading set of what resumes touched: pages packed once more in that order, and a manifest that names them.
//!
//! ```text
//! manifest ─ image ─╮
//! log of a resume ──┴─ merged with the manifest's own ─▶ packs ─▶ store ─▶ the same manifest with loading set and log
//! ```
//! It writes to the origin and needs salts, so it is whoever makes snapshots that does this, not the pager.

use crate::{
    Image, LayerKind, Manifest, Name, Salts, Store, TenantKey,
    cut::CutError,
    image::{Place, ResolveError},
    manifest::{AccessLog, ChunkRef, Malformed},
    pages::{PAGE_BYTES, each},
    seal::Sealed,
    store::{PublishError, PutError, ReadError},
};
use std::{collections::HashMap, io};

/// Why there is no new manifest. The one that there is stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The manifest, a base or a chunk cannot be had.
    #[error("the image cannot be read")]
    Read(#[from] ReadError),
    /// Its bases are none.
    #[error(transparent)]
    Resolve(#[from] ResolveError<ReadError>),
    /// It cannot be packed.
    #[error(transparent)]
    Cut(#[from] CutError<std::convert::Infallible>),
    /// The log is not one of this image.
    #[error("the access log is not one of this image")]
    Malformed(#[from] Malformed),
    /// A pack cannot be kept.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The manifest is not acknowledged.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Publishes the manifest again with what one more resume touched. Its name, and what the manifest says.
pub async fn learn(
    store: &Store,
    (name, key): (Name, &TenantKey),
    log: &AccessLog,
    salts: &Salts,
) -> Result<(Name, Manifest), LearnError> {
    let manifest = store.manifest(name, key).await?;
    let mut bases = HashMap::new();
    let mut next = manifest.parts().base;
    while let Some(base) = next.filter(|base| !bases.contains_key(&base.name)) {
        let found = store.manifest(base.name, key).await?;
        next = found.parts().base;
        bases.insert(base.name, found);
    }
    let image = Image::resolve(manifest.clone(), |name| bases.get(&name).cloned().ok_or(ReadError::Absent))?;
    let merged = manifest.parts().log.as_ref().map_or_else(|| log.clone(), |known| known.merged(log));
    let pages = read(store, &image, &merged).await?;
    let (of_base, own) = (salts.newest(LayerKind::Runtime), salts.newest(LayerKind::Function));
    let mut packs: Vec<Sealed> = Vec::new();
    let fill = |page: u32, slot: &mut [u8]| {
        let bytes = pages.get(&page).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        slot.copy_from_slice(bytes);
        Ok(())
    };
    let loading = image.pack(&merged, (&of_base, &own), fill, |sealed| {
        packs.push(sealed);
        Ok::<(), std::convert::Infallible>(())
    })?;
    for sealed in packs {
        store.put(sealed.name, sealed.bytes).await?;
    }
    let learned = manifest.with_loading(loading, Some(merged))?;
    Ok((store.publish(&learned, key).await?, learned))
}

/// Pages of one chunk.
struct Wanted<'a> {
    chunk: &'a ChunkRef,
    of: u32,
    /// Place in the chunk, page of the image.
    places: Vec<(u32, u32)>,
}

/// The pages of a log that are not zero. Each chunk is read once.
async fn read(store: &Store, image: &Image, log: &AccessLog) -> Result<HashMap<u32, Vec<u8>>, LearnError> {
    let mut wanted: HashMap<Name, Wanted<'_>> = HashMap::new();
    for page in each(log.runs()).filter(|page| *page < image.pages()) {
        if let Place::In { chunk, rank, of, .. } = image.place(page) {
            let new = || Wanted { chunk, of, places: Vec::new() };
            wanted.entry(chunk.name).or_insert_with(new).places.push((rank, page));
        }
    }
    let mut pages = HashMap::new();
    for Wanted { chunk, of, places } in wanted.into_values() {
        let plain = store.chunk(chunk, of).await?;
        for (rank, page) in places {
            let from = rank as usize * PAGE_BYTES;
            let bytes = plain.get(from..from + PAGE_BYTES).unwrap_or_default();
            pages.insert(page, bytes.to_vec());
        }
    }
    Ok(pages)
}
