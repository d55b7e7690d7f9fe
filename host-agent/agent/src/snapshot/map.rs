//! Where a kept snapshot's memory lies, and what of it differs from another's: for people, page by page.
//!
//! ```text
//! key -> file whose head is signed -> all of its memory hashed, as signed -> runs of its state -> pages at the guest's addresses
//!        anything else: an error that says what, and nothing of it is shown
//! ```
//! The file is read where it lies: no second copy of a memory is made for whoever looks.

use super::{LookError, Shelf, Snapshots, runs::pairs, view};
use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};
use warren_artefact::{SnapshotHead, SnapshotKey, SnapshotOf, VerifyingKey};
use warren_chunks::{
    cut::{FileSource, Source},
    diff::{Counts, compare},
    flatten::Within,
    linear::Linear,
    manifest::AccessLog,
};

/// Pages of a window: 64 KiB, the smallest of chunks.
pub const WINDOW_PAGES: u32 = 16;

/// What there is of one window of memory. None is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The how many-th of the guest's memory.
    pub number: u32,
    /// Its pages, beside the base's; without a base all are filled.
    pub pages: Counts,
}

/// A snapshot's memory, and how long it took to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Ascending.
    pub windows: Vec<Window>,
    /// Hashing and comparing.
    pub took: Duration,
    /// What starts touch of it, if that is asked for and known.
    pub touches: Option<Touches>,
}

/// The working set that the fleet learned of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touches {
    /// Starts that were recorded.
    pub starts: u32,
    /// Pages that any of them touched.
    pub pages: u32,
    /// Each window's pages, and the how many-th of all its first one was; ascending.
    pub windows: BTreeMap<u32, (u32, u32)>,
}

impl Touches {
    fn of(log: &AccessLog) -> Self {
        let (mut windows, mut rank) = (BTreeMap::new(), 0_u32);
        for run in log.runs() {
            for page in run.first..run.first.saturating_add(run.count) {
                let (pages, _) = windows.entry(page / WINDOW_PAGES).or_insert((0_u32, rank));
                *pages += 1;
                rank += 1;
            }
        }
        Self { starts: log.resumes(), pages: rank, windows }
    }
}

/// Memory that is as it was signed, at the guest's addresses.
type Memory = Linear<Within<FileSource>>;

impl Snapshots {
    /// One's pages, beside another's if `base` is not empty. Both are kept by this host.
    pub async fn map(&self, key: &str, base: &str) -> Result<Map, LookError> {
        let named = |key: &str| SnapshotKey::from_hex(key).ok_or_else(|| LookError::None(key.to_owned()));
        let of = named(key)?;
        let is_alone = base.is_empty();
        let base = if base.is_empty() { None } else { Some(named(base)?) };
        let place = self.shelf.clone().ok_or_else(|| LookError::None(key.to_owned()))?;
        // As of those that are verified, one at a time: requests have the cores and the disk.
        let _turn = self.verifying.acquire().await.map_err(io::Error::other)?;
        let (trusted, began) = ([self.compiler.builder_key()], Instant::now());
        let read = tokio::task::spawn_blocking(move || {
            let (head, memory) = open(&place, of, &trusted)?;
            let subject = head.of().clone();
            let base = base.map(|base| open(&place, base, &trusted)).transpose()?.map(|(_, memory)| memory);
            let nothing: &[u8] = &[];
            let windows = match &base {
                Some(base) => windows(base, &memory)?,
                None => windows(nothing, &memory)?,
            };
            Ok::<_, LookError>((subject, windows))
        });
        let (subject, windows) = read.await.map_err(io::Error::from)??;
        let took = began.elapsed();
        let touches = if is_alone { self.touches(&subject).await } else { None };
        Ok(Map { windows, took, touches })
    }

    /// What starts touched, as the fleet's copy says; nothing if there is none, or it cannot be had now.
    async fn touches(&self, of: &SnapshotOf) -> Option<Touches> {
        self.fleet.as_ref()?.log(of).await.map(|log| Touches::of(&log))
    }
}

fn open(
    place: &Shelf,
    key: SnapshotKey,
    trusted: &[VerifyingKey],
) -> Result<(SnapshotHead, Memory), LookError> {
    let damaged = |reason: String| LookError::Damaged { key: key.to_string(), reason };
    let kept = place.open_memory(key, trusted).map_err(|wrong| damaged(view::words(wrong)))?;
    let (head, memory) = kept.ok_or_else(|| LookError::None(key.to_string()))?;
    let runs = pairs(&head).map_err(|wrong| damaged(wrong.to_string()))?;
    let memory = Linear::new(memory, runs)
        .ok_or_else(|| damaged("its runs are not those of its memory".to_owned()))?;
    Ok((head, memory))
}

fn windows(base: &(impl Source + ?Sized), memory: &(impl Source + ?Sized)) -> io::Result<Vec<Window>> {
    let mut windows: Vec<Window> = Vec::new();
    compare(base, memory, |page, change| {
        let number = page / WINDOW_PAGES;
        let mut window = match windows.pop() {
            Some(last) if last.number == number => last,
            before => {
                windows.extend(before);
                Window { number, pages: Counts::default() }
            }
        };
        window.pages.add(change);
        windows.push(window);
    })?;
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_chunks::pages::PAGE_BYTES;

    fn memory(pages: &[(u64, u8)]) -> Linear<Vec<u8>> {
        let bytes: Vec<u8> = pages.iter().flat_map(|(_, value)| [*value; PAGE_BYTES]).collect();
        let page = PAGE_BYTES as u64;
        Linear::new(bytes, pages.iter().map(|(at, _)| (at * page, page))).unwrap()
    }

    #[track_caller]
    fn check(base: &[(u64, u8)], of: &[(u64, u8)], wanted: &[(u32, [u64; 4])]) {
        let found = windows(&memory(base), &memory(of)).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|one| {
                let Counts { same, filled, zeroed, replaced } = one.pages;
                (one.number, [same, filled, zeroed, replaced])
            })
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_window_is_as_early_as_its_first_page() {
        let touches = Touches::of(&AccessLog::of_resume([33, 34, 1, 40, 0, 33, 600]));
        assert_eq!((touches.starts, touches.pages), (1, 6));
        let windows: Vec<_> = touches.windows.into_iter().collect();
        assert_eq!(windows, [(0, (2, 2)), (2, (3, 0)), (37, (1, 5))]);
    }

    #[test]
    fn pages_are_counted_where_the_guest_has_them() {
        check(
            &[],
            &[(0, 1), (15, 1), (16, 1), (1_000_000, 2)],
            &[(0, [0, 2, 0, 0]), (1, [0, 1, 0, 0]), (62_500, [0, 1, 0, 0])],
        );
        check(
            &[(0, 1), (1, 1), (2, 1), (40, 9)],
            &[(0, 1), (1, 2), (3, 1), (50, 9)],
            &[(0, [1, 1, 1, 1]), (2, [0, 0, 1, 0]), (3, [0, 1, 0, 0])],
        );
        check(&[], &[], &[]);
    }
}
