//! Cutting an image into chunks.
//!
//! Cutting looks at pages alone: the same bytes under the same salt give the same chunks and the same manifest, whoever
//! cuts them and wherever they lie.

use crate::{
    image::Image,
    manifest::{Base, ChunkRef, Entry, Malformed, Manifest, Parts},
    name::Name,
    pages::{ChunkSize, PAGE_BYTES, PageSet, is_zero, pages_of},
    salt::Domain,
    seal::{Sealed, TooLong, seal},
};
use rustix::fs::SeekFrom;
use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt as _};

/// Where an image's bytes come from.
pub trait Source {
    /// How many it has.
    fn bytes(&self) -> u64;

    /// Fills `out` from `at`; what is past the end is zero.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()>;

    /// The next byte that may be other than zero, at `from` or behind it. `None` if there is none.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok((from < self.bytes()).then_some(from))
    }
}

impl Source for [u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let (filled, zero) = out.split_at_mut(rest.len().min(out.len()));
        filled.copy_from_slice(rest.get(..filled.len()).unwrap_or_default());
        zero.fill(0);
        Ok(())
    }
}

impl Source for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.as_slice().bytes()
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(at, out)
    }
}

/// A file; its holes are not read.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    bytes: u64,
}

impl FileSource {
    /// Of a file as long as it is now.
    pub fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }
}

impl Source for FileSource {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let within = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX).min(out.len());
        let (filled, zero) = out.split_at_mut(within);
        zero.fill(0);
        self.file.read_exact_at(filled, at)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(at) => Ok((at < self.bytes).then_some(at)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that knows no holes: everything is data.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
                Ok((from < self.bytes).then_some(from))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Why an image was not cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError<E: std::error::Error + 'static> {
    /// The image could not be read.
    #[error("the image cannot be read")]
    Source(#[source] io::Error),
    /// A chunk could not be kept.
    #[error("a chunk could not be kept")]
    Sink(#[source] E),
    /// The image is no image, or its base no base for it.
    #[error("the image cannot be described")]
    Malformed(#[from] Malformed),
    /// More in a chunk than one holds: a mistake of this crate.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// Cuts a whole image; each chunk goes to `keep` as it is made.
pub fn cut<E: std::error::Error + 'static>(
    source: &(impl Source + ?Sized),
    size: ChunkSize,
    domain: &Domain,
    mut keep: impl FnMut(Sealed) -> Result<(), E>,
) -> Result<Manifest, CutError<E>> {
    let window_bytes = size.bytes() as u64;
    let mut window = vec![0; size.bytes()];
    let mut entries = Vec::new();
    let mut at = 0;
    while let Some(data) = source.next_data(at).map_err(CutError::Source)? {
        let begin = data / window_bytes * window_bytes;
        source.read_at(begin, &mut window).map_err(CutError::Source)?;
        let number = u32::try_from(begin / window_bytes).map_err(|_| Malformed::ImageTooLarge)?;
        let (pages, _) = window.as_chunks::<PAGE_BYTES>();
        let full =
            (0..).zip(pages).filter(|(_, page)| !is_zero(*page)).map(|(place, page)| (place, &page[..]));
        if let Some((chunk, present)) = pack(full, domain, &mut keep)? {
            entries.push(Entry { window: number, chunk: Some(chunk), present, zeroed: PageSet::empty() });
        }
        at = begin.saturating_add(window_bytes);
    }
    Ok(Manifest::judge(Parts { bytes: source.bytes(), size, entries, ..Parts::default() })?)
}

/// Cuts what changed against a base: the dirty pages alone. Those that are zero now say so, where the base is not.
pub fn cut_diff<E: std::error::Error + 'static>(
    (base_name, base): (Name, &Image),
    source: &(impl Source + ?Sized),
    dirty: impl IntoIterator<Item = u32>,
    domain: &Domain,
    mut keep: impl FnMut(Sealed) -> Result<(), E>,
) -> Result<Manifest, CutError<E>> {
    let size = base.size();
    let pages = pages_of(source.bytes()).ok_or(Malformed::ImageTooLarge)?;
    if source.bytes() < base.bytes() {
        return Err(Malformed::ImageTooLarge.into());
    }
    let mut windows: BTreeMap<u32, PageSet> = BTreeMap::new();
    for page in dirty.into_iter().filter(|&page| page < pages) {
        let (window, place) = size.window_of(page);
        windows.entry(window).or_default().insert(place);
    }
    let mut entries = Vec::new();
    let mut buffer = vec![0; size.bytes()];
    for (window, places) in windows {
        let mut zeroed = PageSet::empty();
        let mut full = Vec::new();
        let (slots, _) = buffer.as_chunks_mut::<PAGE_BYTES>();
        for (place, slot) in places.iter().zip(slots) {
            let page = window.saturating_mul(size.pages()).saturating_add(place);
            source.read_at(u64::from(page) * PAGE_BYTES as u64, slot).map_err(CutError::Source)?;
            if !is_zero(slot) {
                full.push((place, &slot[..]));
            } else if !base.is_zero(page) {
                zeroed.insert(place);
            }
        }
        let packed = pack(full.into_iter(), domain, &mut keep)?;
        let (chunk, present) = packed.map_or((None, PageSet::empty()), |(chunk, pages)| (Some(chunk), pages));
        if chunk.is_some() || !zeroed.is_empty() {
            entries.push(Entry { window, chunk, present, zeroed });
        }
    }
    let base = Some(Base { name: base_name, depth: base.depth() });
    Ok(Manifest::judge(Parts { base, bytes: source.bytes(), size, entries, ..Parts::default() })?)
}

/// Seals pages side by side; `None` if there are none.
pub(crate) fn pack<'a, E: std::error::Error + 'static>(
    pages: impl Iterator<Item = (u32, &'a [u8])>,
    domain: &Domain,
    keep: &mut impl FnMut(Sealed) -> Result<(), E>,
) -> Result<Option<(ChunkRef, PageSet)>, CutError<E>> {
    let mut plain = Vec::new();
    let mut set = PageSet::empty();
    for (place, page) in pages {
        set.insert(place);
        plain.extend_from_slice(page);
    }
    if plain.is_empty() {
        return Ok(None);
    }
    let sealed = seal(&domain.salt, &plain)?;
    let chunk = ChunkRef { name: sealed.name, key: sealed.key.clone(), salt: domain.id };
    keep(sealed).map_err(CutError::Sink)?;
    Ok(Some((chunk, set)))
}
