//! Pages: the grain of an image, sets of them inside one chunk's window, and runs of them in an image.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// Most bytes of a chunk's plaintext.
pub const MAX_CHUNK_BYTES: usize = 4 << 20;
/// Most pages of a chunk.
pub const MAX_CHUNK_PAGES: u32 = 1024;
const MIN_CHUNK_PAGES: u32 = 16;

/// How much of an image one chunk covers: a power of two from 64 KiB to 4 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkSize(u32);

impl ChunkSize {
    /// 512 KiB.
    pub const DEFAULT: Self = Self(128);

    /// So many pages a chunk; `None` when that is no size for one.
    #[must_use]
    pub const fn of_pages(pages: u32) -> Option<Self> {
        if pages.is_power_of_two() && pages >= MIN_CHUNK_PAGES && pages <= MAX_CHUNK_PAGES {
            Some(Self(pages))
        } else {
            None
        }
    }

    /// Pages a chunk.
    #[must_use]
    pub const fn pages(self) -> u32 {
        self.0
    }

    /// Bytes a chunk.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0 as usize * PAGE_BYTES
    }

    /// The window a page lies in, and its place there.
    #[must_use]
    pub const fn window_of(self, page: u32) -> (u32, u32) {
        (page / self.0, page % self.0)
    }
}

impl Default for ChunkSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Pages of an image of so many bytes; the last may be filled with zeros. `None` past 16 TiB.
#[must_use]
pub fn pages_of(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).ok()
}

/// Whether there is nothing in it.
#[must_use]
pub fn is_zero(page: &[u8]) -> bool {
    // A word at a time; the compiler makes vectors of it.
    let (words, rest) = page.as_chunks::<8>();
    words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0
        && rest.iter().all(|&byte| byte == 0)
}

/// A set of the pages of one window.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageSet(Vec<u64>);

impl PageSet {
    /// None of them.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Adds a page. Pages that no window has are not added.
    pub fn insert(&mut self, page: u32) {
        if page >= MAX_CHUNK_PAGES {
            return;
        }
        let word = page as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (page % 64);
        }
    }

    /// Whether it is among them.
    #[must_use]
    pub fn contains(&self, page: u32) -> bool {
        self.0.get(page as usize / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// How many come before this one: its place among the pages that are packed.
    #[must_use]
    pub fn rank(&self, page: u32) -> u32 {
        let whole = page as usize / 64;
        let before: u32 = self.0.iter().take(whole).map(|word| word.count_ones()).sum();
        let part = self.0.get(whole).map_or(0, |word| word & ((1 << (page % 64)) - 1));
        before + part.count_ones()
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.0).flat_map(|(place, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| place * 64 + bit)
        })
    }

    /// Whether the two have a page in common.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(one, two)| one & two != 0)
    }

    /// Whether it is written in the one way there is, and holds pages below `pages` alone.
    pub(crate) fn is_sound(&self, pages: u32) -> bool {
        self.0.len() <= MAX_CHUNK_PAGES as usize / 64
            && self.0.last() != Some(&0)
            && self.iter().last().is_none_or(|last| last < pages)
    }
}

impl FromIterator<u32> for PageSet {
    fn from_iter<I: IntoIterator<Item = u32>>(pages: I) -> Self {
        let mut set = Self::empty();
        pages.into_iter().for_each(|page| set.insert(page));
        set
    }
}

impl fmt::Debug for PageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Pages in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRun {
    /// The first.
    pub first: u32,
    /// How many, at least one.
    pub count: u32,
}

impl PageRun {
    /// Each of them.
    #[must_use]
    pub const fn pages(self) -> std::ops::Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// The same pages as runs, in the same order.
pub fn runs(pages: impl IntoIterator<Item = u32>) -> Vec<PageRun> {
    let mut runs: Vec<PageRun> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.pages().end == page => run.count += 1,
            _ => runs.push(PageRun { first: page, count: 1 }),
        }
    }
    runs
}

/// Each page of these runs, in order.
pub fn each(runs: &[PageRun]) -> impl Iterator<Item = u32> + '_ {
    runs.iter().flat_map(|run| run.pages())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn sizes_are_powers_of_two_in_bounds() {
        for (pages, fits) in
            [(0, false), (8, false), (16, true), (100, false), (128, true), (1024, true), (2048, false)]
        {
            assert_eq!(ChunkSize::of_pages(pages).is_some(), fits, "{pages}");
        }
        assert_eq!(ChunkSize::DEFAULT.bytes(), 512 << 10);
        assert_eq!(ChunkSize::DEFAULT.window_of(130), (1, 2));
        assert_eq!([0, 1, 4096, 4097].map(pages_of), [Some(0), Some(1), Some(1), Some(2)]);
        assert_eq!(pages_of(u64::MAX), None);
    }

    #[test]
    fn a_page_is_zero_to_its_last_byte() {
        let mut page = [0; PAGE_BYTES];
        assert!(is_zero(&page) && is_zero(&[]));
        page[PAGE_BYTES - 1] = 1;
        assert!(!is_zero(&page) && !is_zero(&[0, 0, 1]));
    }

    proptest! {
        #[test]
        fn a_set_is_a_set(pages in prop::collection::btree_set(0..MAX_CHUNK_PAGES, 0..60), probe in 0..MAX_CHUNK_PAGES) {
            let set: PageSet = pages.iter().copied().collect();
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), pages.clone());
            prop_assert_eq!(set.len() as usize, pages.len());
            prop_assert_eq!(set.contains(probe), pages.contains(&probe));
            prop_assert_eq!(set.rank(probe) as usize, pages.range(..probe).count());
            prop_assert!(set.is_sound(MAX_CHUNK_PAGES));
            prop_assert_eq!(set.is_sound(probe), pages.range(probe..).next().is_none());
        }

        #[test]
        fn runs_say_the_same_pages(pages in prop::collection::vec(0..100u32, 0..60)) {
            prop_assert_eq!(each(&runs(pages.clone())).collect::<Vec<_>>(), pages);
        }
    }
}
