//! An image: a manifest with its bases, answering where each page is.

use crate::{
    cut::{CutError, pack},
    manifest::{AccessLog, ChunkRef, Manifest, Pack},
    name::Name,
    pages::{ChunkSize, PAGE_BYTES, PageRun, each, pages_of, runs},
    salt::Domain,
    seal::Sealed,
};
use std::{io, sync::Arc};

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Nowhere: it is zero.
    Zero,
    /// In a chunk.
    In {
        /// Which.
        chunk: &'a ChunkRef,
        /// The how many-th page of its plaintext.
        rank: u32,
        /// How many pages that has.
        of: u32,
        /// Which layer says so: 0 is the image's own, its base is 1.
        layer: usize,
    },
}

/// Why a manifest and what was found for its bases are no image.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError<E: std::error::Error + 'static> {
    /// A base could not be had.
    #[error("the manifest {name} of a base cannot be had")]
    Fetch {
        /// Which.
        name: Name,
        /// Why.
        #[source]
        source: E,
    },
    /// A base that has another number of bases than was said of it: one of the two is not what was made.
    #[error("the manifest {name} is not the base that was named")]
    OtherBase {
        /// Which.
        name: Name,
    },
    /// A base larger than what is on it.
    #[error("the manifest {name} is of a larger image than what is on it")]
    LargerBase {
        /// Which.
        name: Name,
    },
}

/// A manifest and its bases, the newest first.
#[derive(Clone, Debug)]
pub struct Image {
    layers: Vec<Arc<Manifest>>,
}

/// A pack of a loading set with what of it still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loading {
    /// The chunk.
    pub chunk: ChunkRef,
    /// How many pages it holds.
    pub of: u32,
    /// Place in the chunk and page of the image; what a newer layer replaced is not among them.
    pub pages: Vec<(u32, u32)>,
}

impl Image {
    /// Of a manifest without a base; `None` if it has one.
    #[must_use]
    pub fn whole(manifest: Manifest) -> Option<Self> {
        manifest.parts().base.is_none().then(|| Self { layers: vec![Arc::new(manifest)] })
    }

    /// Of a manifest whose bases `fetch` finds. At most as many are asked for as its depth says.
    pub fn resolve<E: std::error::Error + 'static>(
        manifest: Manifest,
        mut fetch: impl FnMut(Name) -> Result<Manifest, E>,
    ) -> Result<Self, ResolveError<E>> {
        let mut layers = Vec::new();
        let mut next = manifest;
        while let Some(base) = next.parts().base {
            let name = base.name;
            let found = fetch(name).map_err(|source| ResolveError::Fetch { name, source })?;
            // Depth falls by one each time, and is bounded where it begins: this ends.
            if found.depth() != base.depth {
                return Err(ResolveError::OtherBase { name });
            }
            if found.parts().bytes > next.parts().bytes {
                return Err(ResolveError::LargerBase { name });
            }
            layers.push(Arc::new(next));
            next = found;
        }
        layers.push(Arc::new(next));
        Ok(Self { layers })
    }

    /// The layers, the newest first.
    #[must_use]
    pub fn layers(&self) -> &[Arc<Manifest>] {
        &self.layers
    }

    /// Its own manifest's bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layers.first().map_or(0, |layer| layer.parts().bytes)
    }

    /// How many pages it has.
    #[must_use]
    pub fn pages(&self) -> u32 {
        pages_of(self.bytes()).unwrap_or(0)
    }

    /// Its own manifest's chunk size.
    #[must_use]
    pub fn size(&self) -> ChunkSize {
        self.layers.first().map_or(ChunkSize::DEFAULT, |layer| layer.parts().size)
    }

    /// How many bases it has.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.layers.first().map_or(0, |layer| layer.depth())
    }

    /// Where a page is.
    #[must_use]
    pub fn place(&self, page: u32) -> Place<'_> {
        for (layer, manifest) in self.layers.iter().enumerate() {
            let (window, place) = manifest.parts().size.window_of(page);
            let Some(entry) = manifest.entry(window) else { continue };
            if entry.zeroed.contains(place) {
                return Place::Zero;
            }
            if let Some(chunk) = entry.chunk.as_ref().filter(|_| entry.present.contains(place)) {
                return Place::In { chunk, rank: entry.present.rank(place), of: entry.present.len(), layer };
            }
        }
        Place::Zero
    }

    /// Whether a page is zero.
    #[must_use]
    pub fn is_zero(&self, page: u32) -> bool {
        self.place(page) == Place::Zero
    }

    /// Every loading set, the lowest base's first, without the pages that a newer layer replaced.
    #[must_use]
    pub fn loading(&self) -> Vec<Loading> {
        let mut all = Vec::new();
        for (layer, manifest) in self.layers.iter().enumerate().rev() {
            for pack in &manifest.parts().loading {
                let of = pack.pages.iter().map(|run| run.count).fold(0, u32::saturating_add);
                // A pack may hold pages of the bases below its own layer; only a newer layer makes them stale.
                let holds = |page| matches!(self.place(page), Place::In { layer: at, .. } if at >= layer);
                let pages = (0..).zip(each(&pack.pages)).filter(|(_, page)| holds(*page)).collect();
                all.push(Loading { chunk: pack.chunk.clone(), of, pages });
            }
        }
        all
    }

    /// Packs the pages of a log that no base's loading set brings already: those of bases first, under the base's salt, so
    /// that functions of one runtime share them; then the image's own.
    pub fn pack<E: std::error::Error + 'static>(
        &self,
        log: &AccessLog,
        (of_base, own): (&Domain, &Domain),
        mut read: impl FnMut(u32, &mut [u8]) -> io::Result<()>,
        mut keep: impl FnMut(Sealed) -> Result<(), E>,
    ) -> Result<Vec<Pack>, CutError<E>> {
        let bases = Self { layers: self.layers.get(1..).unwrap_or_default().to_vec() };
        let mut brought: Vec<u32> =
            bases.loading().iter().flat_map(|pack| pack.pages.iter().map(|at| at.1)).collect();
        brought.sort_unstable();
        let mut groups = [(of_base, Vec::new()), (own, Vec::new())];
        for page in each(log.runs()).filter(|&page| page < self.pages()) {
            match (self.place(page), &mut groups) {
                (Place::In { layer: 0, .. }, [_, (_, own)]) => own.push(page),
                (Place::In { .. }, [(_, shared), _]) if brought.binary_search(&page).is_err() => {
                    shared.push(page);
                }
                _ => {}
            }
        }
        let room = usize::try_from(self.size().pages()).unwrap_or(usize::MAX);
        let mut packs = Vec::new();
        for (domain, pages) in groups {
            for part in pages.chunks(room) {
                let mut plain = vec![0; part.len() * PAGE_BYTES];
                let (slots, _) = plain.as_chunks_mut::<PAGE_BYTES>();
                for (&page, slot) in part.iter().zip(slots.iter_mut()) {
                    read(page, slot).map_err(CutError::Source)?;
                }
                let places = (0..).zip(slots.iter().map(|slot| &slot[..]));
                if let Some((chunk, _)) = pack(places, domain, &mut keep)? {
                    let pages: Vec<PageRun> = runs(part.iter().copied());
                    packs.push(Pack { chunk, pages });
                }
            }
        }
        Ok(packs)
    }
}
