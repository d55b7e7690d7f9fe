//! Layers side by side in one image: a runtime's file system and a function's files as one manifest.
//!
//! ```text
//! image    | os ...      | runtime ...        | function's files |
//!          0             a window             a window                each layer begins at a window, the stable ones first
//! salts      os            runtime              function
//! ```
//! No chunk holds bytes of two layers, and each is sealed under the salt of its layer's kind. So a layer's chunks are the same
//! whatever lies beside it, and a changed layer brings none but its own. The same layers give the same manifest, in whichever order
//! they are handed in. Nothing is stored between them: what fills a window up is zero.
//!
//! It deliberately knows no file system: a layer is the bytes of a disk, which [`Within`] gives again.

use crate::{
    cut::{CutError, Source, cut},
    manifest::{Entry, Malformed, Manifest, Parts},
    pages::ChunkSize,
    salt::{LayerKind, Salts},
    seal::Sealed,
};
use std::io;

/// One layer.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// What it is of, which says where it lies and whose salt it has.
    pub kind: LayerKind,
    /// Its bytes.
    pub source: &'a dyn Source,
}

/// Where a layer lies in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What it is of.
    pub kind: LayerKind,
    /// Its first byte, at the beginning of a window.
    pub at: u64,
    /// How many it has.
    pub bytes: u64,
}

/// Layers as one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// The image.
    pub manifest: Manifest,
    /// Its layers, lowest first.
    pub extents: Vec<Extent>,
}

/// Where layers of these lengths lie: by kind, those of one kind in the order that they are given in. `None` past what an image
/// can have.
#[must_use]
pub fn place(layers: &[(LayerKind, u64)], size: ChunkSize) -> Option<Vec<Extent>> {
    let mut sorted = layers.to_vec();
    sorted.sort_by_key(|(kind, _)| *kind);
    let mut at = 0_u64;
    let extents = sorted.into_iter().map(|(kind, bytes)| {
        let begin = at;
        at = at.checked_add(bytes)?.checked_next_multiple_of(size.bytes() as u64)?;
        Some(Extent { kind, at: begin, bytes })
    });
    extents.collect()
}

/// Cuts layers as one image; each chunk goes to `keep` as it is made.
pub fn flatten<E: std::error::Error + 'static>(
    layers: &[Layer<'_>],
    size: ChunkSize,
    salts: &Salts,
    mut keep: impl FnMut(Sealed) -> Result<(), E>,
) -> Result<Flat, CutError<E>> {
    let lengths: Vec<_> = layers.iter().map(|layer| (layer.kind, layer.source.bytes())).collect();
    let extents = place(&lengths, size).ok_or(Malformed::ImageTooLarge)?;
    let mut sorted = layers.to_vec();
    sorted.sort_by_key(|layer| layer.kind);
    let mut entries: Vec<Entry> = Vec::new();
    for (layer, extent) in sorted.iter().zip(&extents) {
        let alone = cut(layer.source, size, &salts.newest(layer.kind), &mut keep)?;
        let first = u32::try_from(extent.at / size.bytes() as u64).map_err(|_| Malformed::ImageTooLarge)?;
        for entry in &alone.parts().entries {
            let window = entry.window.checked_add(first).ok_or(Malformed::ImageTooLarge)?;
            entries.push(Entry { window, ..entry.clone() });
        }
    }
    let bytes = extents.last().map_or(0, |last| last.at.saturating_add(last.bytes));
    let manifest = Manifest::judge(Parts { bytes, size, entries, ..Parts::default() })?;
    Ok(Flat { manifest, extents })
}

/// A part of a source as a source of its own.
#[derive(Debug)]
pub struct Within<S> {
    source: S,
    at: u64,
    bytes: u64,
}

impl<S: Source> Within<S> {
    /// So many bytes from `at`; `None` if the source does not have them.
    #[must_use]
    pub fn new(source: S, at: u64, bytes: u64) -> Option<Self> {
        (at.checked_add(bytes)? <= source.bytes()).then_some(Self { source, at, bytes })
    }
}

impl<S: Source> Source for Within<S> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let within = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX).min(out.len());
        let (filled, zero) = out.split_at_mut(within);
        zero.fill(0);
        if filled.is_empty() { Ok(()) } else { self.source.read_at(self.at.saturating_add(at), filled) }
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        let next = self.source.next_data(self.at.saturating_add(from))?;
        Ok(next.map(|at| at.saturating_sub(self.at)).filter(|at| *at < self.bytes))
    }
}

#[cfg(test)]
mod tests;
