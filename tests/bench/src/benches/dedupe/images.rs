//! Root images and functions' files: a runtime as `warren runtime` made it, packages of Python beside a handler.

use super::{BENCH, FAMILY, SIZES, Shelf, held_against, logical, salts, size, tell, tell_logical};
use crate::{Places, report::Report};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};
use warren_chunks::{
    ChunkSize, LayerKind,
    cut::{FileSource, Source, cut},
    flatten::{Layer, Within, flatten},
    image::Image,
    manifest::Manifest,
};
use warren_image::ext4;

/// The handler that each function has another version of.
const HANDLER: &str = include_str!("../../../../functions/linux/python/app.py");
/// Folders of the runtime's own library, as what a function brings along: real files, several MiB of them.
const PACKAGES: [&str; 8] =
    ["asyncio", "email", "encodings", "json", "multiprocessing", "unittest", "xml", "ctypes"];
const LIBRARY: &str = "usr/lib/python3.11";
const EPOCH: u64 = 1_700_000_000;

/// A manifest, and what lies where in its image.
type Made<'a> = (Manifest, Vec<(u64, &'a dyn Source)>);

/// One way of storing the family, a store a chunk size.
struct Way {
    name: &'static str,
    stores: [Shelf; SIZES.len()],
    held: u64,
    /// Chunks of each changed version: new ones, and all that it names.
    again: Vec<(&'static str, [(usize, usize); SIZES.len()])>,
}

pub(super) fn measure(places: &Places, report: &mut Report) -> Result<()> {
    let guests = places.guests.clone().unwrap_or_else(|| PathBuf::from("target/guests"));
    let image = guests.join("runtimes/debian-python/root.img");
    let runtime = FileSource::new(
        File::open(&image)
            .with_context(|| format!("{}: `cargo xtask test --only lab` has it made", image.display()))?,
    )?;
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    fs::create_dir(&tree)?;
    let dump = format!("rdump / {}", tree.display());
    ensure!(
        Command::new("debugfs").args(["-R", &dump]).arg(&image).output()?.status.success(),
        "debugfs failed"
    );
    let task = tree.join("var/task");
    for package in PACKAGES {
        copy(&tree.join(LIBRARY).join(package), &task.join(package))?;
    }
    let mut baked = Way::new("baked");
    let mut layered = Way::new("layers");
    let baked_image = folder.path().join("baked.img");
    let mut versions: Vec<(Option<&'static str>, String)> =
        (1..=FAMILY).map(|number| (None, handler(number, number * 40))).collect();
    // The last function's again: another word in place, and 8 KiB more.
    versions.push((Some("word"), handler(99, FAMILY * 40)));
    versions.push((Some("grown"), handler(FAMILY, FAMILY * 40 + 160)));
    for (again, text) in versions {
        fs::write(task.join("app.py"), text)?;
        let archive = warren_bundle::from_folder(&task)?;
        ext4::of_tree(&tree, &baked_image, EPOCH)?;
        let whole = FileSource::new(File::open(&baked_image)?)?;
        baked.add(again, logical(&whole)?, |shelf, size| {
            let manifest =
                cut(&whole, size, &salts().newest(LayerKind::Function), |sealed| shelf.keep(sealed))?;
            Ok((manifest, vec![(0, &whole as &dyn Source)]))
        })?;
        layered.add(again, logical(&runtime)? + logical(&archive)?, |shelf, size| {
            let layers = [
                Layer { kind: LayerKind::Function, source: &archive },
                Layer { kind: LayerKind::Runtime, source: &runtime },
            ];
            let flat = flatten(&layers, size, &salts(), |sealed| shelf.keep(sealed))?;
            let sources: [&dyn Source; 2] = [&runtime, &archive];
            Ok((flat.manifest, flat.extents.iter().map(|extent| extent.at).zip(sources).collect()))
        })?;
    }
    for way in [baked, layered] {
        way.tell(report);
    }
    Ok(())
}

impl Way {
    fn new(name: &'static str) -> Self {
        Self { name, stores: Default::default(), held: 0, again: Vec::new() }
    }

    /// One function's image; or a changed one's, of which only the new chunks count. `make` gives the manifest, and what lies where
    /// in its image.
    fn add<'a>(
        &mut self,
        again: Option<&'static str>,
        held: u64,
        make: impl Fn(&mut Shelf, ChunkSize) -> Result<Made<'a>>,
    ) -> Result<()> {
        if again.is_none() {
            self.held += held;
        }
        let mut all = [(0, 0); SIZES.len()];
        for ((shelf, (pages, _)), brought) in self.stores.iter_mut().zip(SIZES).zip(&mut all) {
            let size = size(pages)?;
            let mut changed = again.map(|_| shelf.clone());
            let before = shelf.chunks.len();
            let into = changed.as_mut().unwrap_or(shelf);
            let (manifest, sources) = into.timed(|shelf| {
                let done = make(shelf, size)?;
                shelf.name(&done.0)?;
                Ok(done)
            })?;
            *brought = (into.chunks.len() - before, manifest.names().len());
            let image = Image::whole(manifest).context("a base of its own")?;
            for (at, wanted) in sources {
                let found =
                    Within::new(into.opened(&image), at, wanted.bytes()).context("a place of its own")?;
                held_against(&found, wanted)?;
            }
            into.recent.clear();
        }
        self.again.extend(again.map(|name| (name, all)));
        Ok(())
    }

    fn tell(&self, report: &mut Report) {
        let name = self.name;
        tell_logical(report, &format!("images-{name}-logical"), self.held);
        for (number, ((_, text), shelf)) in SIZES.into_iter().zip(&self.stores).enumerate() {
            let [images, again] = if name == "layers" { ["<= 0.10x", "<= 0.05x"] } else { [""; 2] };
            tell(report, &format!("images-{text}-{name}"), shelf, self.held, images);
            for (what, brought) in &self.again {
                let (new, all) = brought[number];
                #[expect(clippy::cast_precision_loss, reason = "chunks of one image")]
                let (new, ratio) = (new as f64, new as f64 / all as f64);
                let metric = format!("again-{what}-{text}-{name}");
                report.value(BENCH, &metric, "chunks", (new, new), 1, ("chunks of it", ratio), again);
            }
        }
    }
}

/// A handler with another greeting and so many lines more.
fn handler(number: usize, lines: usize) -> String {
    let mut text = HANDLER.replace("Hello", &format!("Hello {number:02}"));
    text.extend((0..lines).map(|line| format!("# row {line}: {:>32}\n", line * number)));
    text
}

/// Files and folders without links, as these packages are.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
