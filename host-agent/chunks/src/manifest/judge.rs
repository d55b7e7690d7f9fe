//! Every rule a manifest keeps.

use super::{Entry, MAX_DEPTH, MAX_IMAGE_BYTES, Parts};
use crate::pages::{PageRun, pages_of};

/// Which rule a manifest breaks: its maker's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not the encoding of one.
    #[error("its body is not the encoding of a manifest")]
    Encoding,
    /// A chunk size that none has.
    #[error("its chunk size is none")]
    ChunkSize,
    /// An image larger than any.
    #[error("its image is larger than any")]
    ImageTooLarge,
    /// Too many bases.
    #[error("it has more than {MAX_DEPTH} bases below it")]
    TooDeep,
    /// Windows out of order, twice or past the end.
    #[error("its windows are out of order or past its end")]
    Windows,
    /// A page set past its window, or not written the one way.
    #[error("a page set reaches past its window")]
    Pages,
    /// An entry that says nothing, or says of one page two things.
    #[error("an entry says nothing, or two things of one page")]
    Contradiction,
    /// Pages without a chunk or a chunk without pages.
    #[error("an entry has pages without a chunk, or a chunk without pages")]
    ChunkWithoutPages,
    /// Zeroed pages where there is no base.
    #[error("it zeroes pages of a base it does not have")]
    ZeroedWithoutBase,
    /// A loading set with pages twice, past the end, or more than a chunk holds.
    #[error("its loading set has a page twice, past the end, or one too many")]
    Loading,
    /// An access log with pages twice or past the end.
    #[error("its access log has a page twice or past the end")]
    Log,
    /// The names outside the seal are not those inside.
    #[error("its names are not those of its chunks")]
    Names,
}

pub(super) fn judge(parts: &Parts) -> Result<(), Malformed> {
    if parts.bytes > MAX_IMAGE_BYTES {
        return Err(Malformed::ImageTooLarge);
    }
    let pages = pages_of(parts.bytes).ok_or(Malformed::ImageTooLarge)?;
    if parts.base.is_some_and(|base| base.depth >= MAX_DEPTH) {
        return Err(Malformed::TooDeep);
    }
    let mut next = 0;
    for entry in &parts.entries {
        if entry.window < next {
            return Err(Malformed::Windows);
        }
        next = entry.window.checked_add(1).ok_or(Malformed::Windows)?;
        judge_entry(entry, parts, pages)?;
    }
    let room = parts.size.pages();
    for pack in &parts.loading {
        let held: u64 = pack.pages.iter().map(|run| u64::from(run.count)).sum();
        if held == 0 || held > u64::from(room) {
            return Err(Malformed::Loading);
        }
    }
    let loaded = parts.loading.iter().flat_map(|pack| pack.pages.iter().copied());
    if !is_each_once(loaded, pages) {
        return Err(Malformed::Loading);
    }
    match &parts.log {
        Some(log) if log.resumes() == 0 || !is_each_once(log.runs().iter().copied(), pages) => {
            Err(Malformed::Log)
        }
        _ => Ok(()),
    }
}

fn judge_entry(entry: &Entry, parts: &Parts, pages: u32) -> Result<(), Malformed> {
    let first = entry.window.checked_mul(parts.size.pages()).ok_or(Malformed::Windows)?;
    let left = pages.checked_sub(first).filter(|&left| left > 0).ok_or(Malformed::Windows)?;
    let room = left.min(parts.size.pages());
    if !entry.present.is_sound(room) || !entry.zeroed.is_sound(room) {
        return Err(Malformed::Pages);
    }
    if entry.present.is_empty() != entry.chunk.is_none() {
        return Err(Malformed::ChunkWithoutPages);
    }
    if entry.present.meets(&entry.zeroed) || (entry.present.is_empty() && entry.zeroed.is_empty()) {
        return Err(Malformed::Contradiction);
    }
    if parts.base.is_none() && !entry.zeroed.is_empty() {
        return Err(Malformed::ZeroedWithoutBase);
    }
    Ok(())
}

/// Whether no page is there twice or past the end. What it costs follows the number of runs, not what they claim.
fn is_each_once(runs: impl Iterator<Item = PageRun>, pages: u32) -> bool {
    let mut runs: Vec<PageRun> = runs.collect();
    runs.sort_unstable_by_key(|run| run.first);
    let mut free = 0;
    runs.iter().all(|run| {
        let end = run.first.checked_add(run.count);
        let sound = run.count > 0 && run.first >= free && end.is_some_and(|end| end <= pages);
        free = end.unwrap_or(u32::MAX);
        sound
    })
}
