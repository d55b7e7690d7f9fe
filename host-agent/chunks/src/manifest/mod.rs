//! Manifests: what an image is made of.
//!
//! ```text
//! image    pages 0..n of 4 KiB      | window 0 | window 1 | window 2 | ...      a window is one chunk's worth of pages
//! entry    of a window              present: pages in its chunk, packed in order; zeroed: pages that became zero (diffs)
//! page     in an entry's `present`  -> that chunk, at its rank
//!          in an entry's `zeroed`   -> zero
//!          in neither               -> the base says; without a base, zero
//! ```
//! Zero pages are in no chunk, windows of zeros have no entry. A diff names its base and holds what is dirty alone;
//! `depth` counts the bases below, so a chain ends and cannot meet itself.
//!
//! [`Parts`] is what somebody says; [`Manifest`] is what [`Manifest::judge`] let through. [`sealed`]
//! carries it, [`image`](crate::image) answers from it.

mod judge;
pub mod loading;
pub mod sealed;

#[cfg(test)]
mod tests;

use crate::{
    name::{ChunkKey, Name},
    pages::{ChunkSize, PageSet},
    salt::SaltId,
};
pub use judge::Malformed;
pub use loading::{AccessLog, Pack};

/// Most bases below a diff.
pub const MAX_DEPTH: u8 = 8;
/// Most bytes of an image.
pub const MAX_IMAGE_BYTES: u64 = 64 << 30;

/// Where a chunk is, what opens it, and which salt it was sealed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// What it is called.
    pub name: Name,
    /// What opens it.
    pub key: ChunkKey,
    /// Whom it is shared with.
    pub salt: SaltId,
}

/// The base of a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The name of its sealed manifest.
    pub name: Name,
    /// How many bases it has itself.
    pub depth: u8,
}

/// What is known of one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub window: u32,
    /// What holds its pages; `None` if it only zeroes some.
    pub chunk: Option<ChunkRef>,
    /// The pages in that chunk.
    pub present: PageSet,
    /// The pages that are zero here and were not in the base.
    pub zeroed: PageSet,
}

/// What a manifest says, before anybody judged it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Of a diff, what it is on.
    pub base: Option<Base>,
    /// Bytes of the image.
    pub bytes: u64,
    /// How much of it a chunk covers.
    pub size: ChunkSize,
    /// Windows with something to say, in ascending order.
    pub entries: Vec<Entry>,
    /// The loading set: pages once more, packed in the order they are needed.
    pub loading: Vec<Pack>,
    /// In which order pages were touched.
    pub log: Option<AccessLog>,
}

/// A manifest that keeps every rule. What it does not prove: that its chunks exist, or that its base is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest(Parts);

impl Manifest {
    /// The one door: every rule is checked here, for what is built and for what is read.
    pub fn judge(parts: Parts) -> Result<Self, Malformed> {
        judge::judge(&parts)?;
        Ok(Self(parts))
    }

    /// What it says.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.0
    }

    /// How many bases it has below it.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.0.base.map_or(0, |base| base.depth.saturating_add(1))
    }

    /// The entry of a window.
    #[must_use]
    pub fn entry(&self, window: u32) -> Option<&Entry> {
        let at = self.0.entries.binary_search_by_key(&window, |entry| entry.window).ok()?;
        self.0.entries.get(at)
    }

    /// Every chunk it names, those of its loading set too, each once.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        let image = self.0.entries.iter().filter_map(|entry| entry.chunk.as_ref());
        let mut names: Vec<Name> =
            image.chain(self.0.loading.iter().map(|pack| &pack.chunk)).map(|chunk| chunk.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The same with another loading set and access log.
    pub fn with_loading(&self, loading: Vec<Pack>, log: Option<AccessLog>) -> Result<Self, Malformed> {
        Self::judge(Parts { loading, log, ..self.0.clone() })
    }

    /// How many pages its chunks hold, without the loading set.
    #[must_use]
    pub fn stored_pages(&self) -> u64 {
        self.0.entries.iter().map(|entry| u64::from(entry.present.len())).sum()
    }
}
