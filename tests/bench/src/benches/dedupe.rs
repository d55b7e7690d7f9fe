//! `dedupe`: what a store keeps of a family of twenty functions on one runtime, beside what the family's images and memories hold.
//!
//! | metric | what is stored | compared with |
//! |---|---|---|
//! | `images-*-baked` | one file system a function: the runtime's files and the function's, made by mke2fs as runtimes are | pages of those that are not zero |
//! | `images-*-layers` | the runtime's image and the function's archive as layers of one image | pages of both that are not zero |
//! | `again-*` | the same two, a version with a changed handler: chunks that no store of the family has | chunks that version names |
//! | `jq-*`, `component-*` | memory of Wasm guests that real VMMs wrote down when they were ready | its pages that are not zero |
//!
//! `*-whole` is each snapshot for itself, `*-layers` a diff on the snapshot of the runtime with a neutral handler, which is stored
//! too. Stored is sealed chunks, each once, and sealed manifests. `*-seconds` is what cutting and sealing the family took, on one
//! thread, with reading; comparing with the base is in it. Every image that is cut is opened again and held against what it was cut of.
//!
//! `jq` is one module with twenty programs in files, `component` twenty modules that differ in one word of their data. Memory of
//! Linux guests is not measured here.

mod images;
mod memory;

use crate::{Places, report::Report};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    time::{Duration, Instant},
};
use warren_chunks::{
    ChunkSize, Name, Salts, TenantKey,
    cut::Source,
    diff::{Opened, compare},
    image::Image,
    manifest::{ChunkRef, Manifest, sealed::seal_manifest},
    pages::PAGE_BYTES,
    seal::{Sealed, open},
};

const BENCH: &str = "dedupe";
/// Functions of a family.
const FAMILY: usize = 20;
/// Pages of a chunk, and their name in a metric.
const SIZES: [(u32, &str); 3] = [(16, "64k"), (128, "512k"), (1024, "4m")];

/// Images, what is brought by a changed handler, and memory of two families.
pub(crate) fn dedupe(places: &Places, report: &mut Report) -> Result<()> {
    memory::measure(places, report)?;
    images::measure(places, report)
}

fn key() -> TenantKey {
    TenantKey::new([5; 32])
}

fn salts() -> Salts {
    Salts::new([1; 32], [0; 3])
}

fn size(pages: u32) -> Result<ChunkSize> {
    ChunkSize::of_pages(pages).context("no size for a chunk")
}

/// What a store would have: each chunk once, and manifests.
#[derive(Clone, Default)]
struct Shelf {
    /// Sealed bytes of each.
    chunks: HashMap<Name, u64>,
    /// Those of the images that are looked at now: a family's are too many for memory.
    recent: HashMap<Name, Bytes>,
    manifests: u64,
    took: Duration,
}

impl Shelf {
    #[expect(clippy::unnecessary_wraps, reason = "what cutting asks for")]
    fn keep(&mut self, sealed: Sealed) -> Result<(), Infallible> {
        self.chunks.insert(sealed.name, sealed.bytes.len() as u64);
        self.recent.insert(sealed.name, sealed.bytes);
        Ok(())
    }

    /// Adds a manifest as a store has it, and gives its name.
    fn name(&mut self, manifest: &Manifest) -> Result<Name> {
        let sealed = seal_manifest(manifest, &key())?;
        self.manifests += sealed.len() as u64;
        Ok(Name::of(&sealed))
    }

    /// Bytes of all of it.
    fn bytes(&self) -> u64 {
        self.manifests + self.chunks.values().sum::<u64>()
    }

    fn timed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let value = work(self);
        self.took += began.elapsed();
        value
    }

    /// An image's bytes, out of the chunks.
    fn opened<'a>(&'a self, image: &'a Image) -> impl Source + 'a {
        Opened::new(image, |chunk: &ChunkRef, pages: u32| {
            let sealed = self.recent.get(&chunk.name).ok_or(io::ErrorKind::NotFound)?;
            let length = usize::try_from(pages).unwrap_or(usize::MAX).saturating_mul(PAGE_BYTES);
            open(&chunk.name, &chunk.key, length, sealed).map_err(io::Error::other)
        })
    }
}

/// That an image holds what it was cut of.
fn held_against(found: &impl Source, wanted: &(impl Source + ?Sized)) -> Result<()> {
    let counts = compare(wanted, found, |_, _| ())?;
    ensure!(
        counts.filled + counts.zeroed + counts.replaced == 0 && counts.same > 0,
        "a cut image is another: {counts:?}"
    );
    Ok(())
}

/// Bytes of pages that are not zero.
fn logical(source: &impl Source) -> Result<u64> {
    let none: &[u8] = &[];
    Ok(compare(none, source, |_, _| ())?.filled * PAGE_BYTES as u64)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one family")]
fn tell(report: &mut Report, metric: &str, shelf: &Shelf, logical: u64, reach: &'static str) {
    let (stored, ratio) = (shelf.bytes() as f64 / 1024.0, shelf.bytes() as f64 / logical as f64);
    report.value(BENCH, metric, "KiB", (stored, stored), FAMILY, ("logical", ratio), reach);
    let seconds = shelf.took.as_secs_f64();
    report.value(BENCH, &format!("{metric}-seconds"), "s", (seconds, seconds), FAMILY, ("", 0.0), "");
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one family")]
fn tell_logical(report: &mut Report, metric: &str, logical: u64) {
    let kib = logical as f64 / 1024.0;
    report.value(BENCH, metric, "KiB", (kib, kib), FAMILY, ("", 0.0), "");
}
