//! Two images beside each other, page by page: what a diff on a base has to hold.
//!
//! ```text
//! base      new
//! zero      zero         nothing
//! zero      bytes        filled       in the diff's chunks
//! bytes     zero         zeroed       named by the diff, in no chunk
//! bytes     the same     same         nothing: the base says it
//! bytes     other bytes  replaced     in the diff's chunks
//! ```
//! Pages are compared by content, at the same place. That costs reading both; a dirty log costs nothing, where there is one,
//! and names pages too that were written with what they held.

use crate::{
    cut::{CutError, Source, cut_diff},
    image::{Image, Place},
    manifest::{ChunkRef, Malformed, Manifest},
    name::Name,
    pages::{ChunkSize, PAGE_BYTES, is_zero, pages_of},
    salt::Domain,
    seal::Sealed,
};
use std::{cell::RefCell, io};

/// What became of a page that is not zero in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Nothing: both hold the same.
    Same,
    /// It was zero.
    Filled,
    /// It is zero now.
    Zeroed,
    /// It holds something else.
    Replaced,
}

/// How many pages became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Equal, and not zero.
    pub same: u64,
    /// Zero in the base alone.
    pub filled: u64,
    /// Zero in the new one alone.
    pub zeroed: u64,
    /// Other bytes.
    pub replaced: u64,
}

impl Counts {
    /// Counts one more.
    pub const fn add(&mut self, change: Change) {
        let count = match change {
            Change::Same => &mut self.same,
            Change::Filled => &mut self.filled,
            Change::Zeroed => &mut self.zeroed,
            Change::Replaced => &mut self.replaced,
        };
        *count = count.saturating_add(1);
    }

    /// Pages of the new image that are not zero.
    #[must_use]
    pub const fn full(&self) -> u64 {
        self.same.saturating_add(self.filled).saturating_add(self.replaced)
    }
}

/// Tells of every page that is not zero in both images, in ascending order. What is past the end of one is zero there.
///
/// # Errors
/// What cannot be read; images of more pages than any has ([`io::ErrorKind::InvalidInput`]).
pub fn compare(
    base: &(impl Source + ?Sized),
    new: &(impl Source + ?Sized),
    mut tell: impl FnMut(u32, Change),
) -> io::Result<Counts> {
    let most = base.bytes().max(new.bytes());
    pages_of(most).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, Malformed::ImageTooLarge))?;
    let step = ChunkSize::DEFAULT.bytes();
    let [mut was, mut is] = [vec![0; step], vec![0; step]];
    let (mut counts, mut at) = (Counts::default(), 0);
    while let Some(data) = nearer(base.next_data(at)?, new.next_data(at)?) {
        let begin = data / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        base.read_at(begin, &mut was)?;
        new.read_at(begin, &mut is)?;
        let pages = was.as_chunks::<PAGE_BYTES>().0.iter().zip(is.as_chunks::<PAGE_BYTES>().0);
        for (page, (was, is)) in (begin / PAGE_BYTES as u64..).zip(pages) {
            if let (Some(change), Ok(page)) = (change(was, is), u32::try_from(page)) {
                counts.add(change);
                tell(page, change);
            }
        }
        at = begin.saturating_add(step as u64);
    }
    Ok(counts)
}

fn nearer(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn change(was: &[u8], is: &[u8]) -> Option<Change> {
    match (is_zero(was), is_zero(is)) {
        (true, true) => None,
        (true, false) => Some(Change::Filled),
        (false, true) => Some(Change::Zeroed),
        (false, false) if was == is => Some(Change::Same),
        (false, false) => Some(Change::Replaced),
    }
}

/// Cuts a new image as a diff on a base: the pages that are not the base's, and which became zero. One that is shorter than its
/// base is zero behind its end.
pub fn cut_against<E: std::error::Error + 'static>(
    (base_name, base): (Name, &Image),
    base_bytes: &(impl Source + ?Sized),
    new: &(impl Source + ?Sized),
    domain: &Domain,
    keep: impl FnMut(Sealed) -> Result<(), E>,
) -> Result<(Manifest, Counts), CutError<E>> {
    let mut changed = Vec::new();
    let counts = compare(base_bytes, new, |page, change| {
        if change != Change::Same {
            changed.push(page);
        }
    })
    .map_err(CutError::Source)?;
    let new = Padded { source: new, bytes: new.bytes().max(base.bytes()) };
    Ok((cut_diff((base_name, base), &new, changed, domain, keep)?, counts))
}

/// A source with zeros behind its end.
struct Padded<'a, S: ?Sized> {
    source: &'a S,
    bytes: u64,
}

impl<S: Source + ?Sized> Source for Padded<'_, S> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.source.read_at(at, out)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        self.source.next_data(from)
    }
}

/// An image's bytes, out of its chunks: what a base is compared with where nothing of it is kept but those.
pub struct Opened<'a, F> {
    image: &'a Image,
    open: F,
    /// The chunk that was opened last: neighbours are asked for one after the other.
    last: RefCell<Option<(Name, Vec<u8>)>>,
}

impl<'a, F: Fn(&ChunkRef, u32) -> io::Result<Vec<u8>>> Opened<'a, F> {
    /// `open` gives the plaintext of a chunk of so many pages.
    pub const fn new(image: &'a Image, open: F) -> Self {
        Self { image, open, last: RefCell::new(None) }
    }

    fn page(&self, page: u32, out: &mut [u8]) -> io::Result<()> {
        let Place::In { chunk, rank, of, .. } = self.image.place(page) else {
            out.fill(0);
            return Ok(());
        };
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(name, _)| *name != chunk.name) {
            *last = Some((chunk.name, (self.open)(chunk, of)?));
        }
        let held = last.as_ref().and_then(|(_, plain)| plain.as_chunks::<PAGE_BYTES>().0.get(rank as usize));
        let held = held.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a chunk is too short"))?;
        out.copy_from_slice(held.get(..out.len()).unwrap_or_default());
        Ok(())
    }
}

impl<F: Fn(&ChunkRef, u32) -> io::Result<Vec<u8>>> Source for Opened<'_, F> {
    fn bytes(&self) -> u64 {
        self.image.bytes()
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if !at.is_multiple_of(PAGE_BYTES as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "pages are read whole"));
        }
        for (page, slot) in (at / PAGE_BYTES as u64..).zip(out.chunks_mut(PAGE_BYTES)) {
            // Past the last page there are zeros, as past the end.
            self.page(u32::try_from(page).unwrap_or(u32::MAX), slot)?;
        }
        Ok(())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        let size = self.image.size();
        let first = u32::try_from(from / size.bytes() as u64).unwrap_or(u32::MAX);
        // Layers of one image may be cut differently: only those like the newest are skipped in.
        if self.image.layers().iter().any(|layer| layer.parts().size != size) {
            return Ok((from < self.bytes()).then_some(from));
        }
        let next = self.image.layers().iter().filter_map(|layer| {
            let entries = &layer.parts().entries;
            let at = entries.partition_point(|entry| entry.window < first);
            entries.get(at).map(|entry| entry.window)
        });
        Ok(next.min().map(|window| from.max(u64::from(window) * size.bytes() as u64)))
    }
}

#[cfg(test)]
mod tests;
