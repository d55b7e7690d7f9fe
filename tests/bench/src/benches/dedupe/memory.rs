//! Memory snapshots of Wasm functions, made as the agent has them made: when the guest is ready, before any event.

use super::{FAMILY, SIZES, Shelf, held_against, logical, salts, size, tell, tell_logical};
use crate::{
    Places,
    benches::vm::{Memory, Parts, Running},
    report::Report,
};
use anyhow::{Context as _, Result, ensure};
use std::{convert::Infallible, fs};
use tar::{Builder, Header};
use warren_chunks::{
    ChunkSize, LayerKind,
    cut::cut,
    diff::{Counts, cut_against},
    image::Image,
};
use warren_vmm_protocol::World;

const REACH: &str = "<= 0.45x";
/// The word of the component's data that a changed handler has another one for.
const WORD: &[u8] = b"Hello, ";

pub(super) fn measure(places: &Places, report: &mut Report) -> Result<()> {
    let jq = Parts::compile(places, "jq", World::WasiPreview1)?;
    family(report, "jq", |number| {
        let parts =
            jq.told(&["jq", "-c", "-f", "/var/task/handler.jq"], Some(&archive(&program(number))?))?;
        memory_of(&parts)
    })?;
    let module = fs::read(places.functions.join("hello-component.wasm"))?;
    family(report, "component", |number| {
        memory_of(&Parts::compile_bytes(places, &changed(&module, number)?, World::Component)?)
    })
}

/// One that is ready, written down; afterwards it has to be the function that it is said to be.
fn memory_of(parts: &Parts) -> Result<Memory> {
    let mut vm = Running::create(parts)?;
    let memory = vm.snapshot(parts)?.linear()?;
    vm.call()?;
    Ok(memory)
}

/// The neutral one is number 0.
fn program(number: usize) -> String {
    let mut text = format!("{{message: (\"Hello {number}, \" + .name), factor: {number}}}\n");
    text.extend((0..number).map(|step| format!("  | .step{step} = ({step} * .factor)\n")));
    text
}

/// A function's files, as hosts have them.
fn archive(program: &str) -> Result<Vec<u8>> {
    let mut header = Header::new_ustar();
    header.set_path("handler.jq")?;
    header.set_size(program.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, program.as_bytes())?;
    let mut bytes = builder.into_inner()?;
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    Ok(bytes)
}

fn changed(module: &[u8], number: usize) -> Result<Vec<u8>> {
    let at =
        module.windows(WORD.len()).position(|word| word == WORD).context("the component greets otherwise")?;
    let mut changed = module.to_vec();
    let word = format!("Hi {number:03} ");
    ensure!(word.len() == WORD.len(), "a word of another length");
    changed[at..at + WORD.len()].copy_from_slice(word.as_bytes());
    Ok(changed)
}

fn family(report: &mut Report, name: &str, mut one: impl FnMut(usize) -> Result<Memory>) -> Result<()> {
    let neutral = one(0)?;
    let functions = (1..=FAMILY).map(one).collect::<Result<Vec<_>>>()?;
    let mut held = 0;
    for function in &functions {
        held += logical(function)?;
    }
    tell_logical(report, &format!("{name}-logical"), held);
    for (pages, text) in SIZES {
        let size = size(pages)?;
        tell(report, &format!("{name}-{text}-whole"), &whole(size, &functions)?, held, "");
        let (shelf, counts) = layers(size, &neutral, &functions)?;
        tell(report, &format!("{name}-{text}-layers"), &shelf, held, REACH);
        if pages == ChunkSize::DEFAULT.pages() {
            let all = [("same", counts.same), ("filled", counts.filled), ("zeroed", counts.zeroed)];
            for (what, sum) in all.into_iter().chain([("replaced", counts.replaced)]) {
                report.count(super::BENCH, &format!("{name}-pages-{what}"), sum, FAMILY);
            }
        }
    }
    Ok(())
}

/// Each for itself; equal chunks are one even so.
fn whole(size: ChunkSize, functions: &[Memory]) -> Result<Shelf> {
    let (mut shelf, domain) = (Shelf::default(), salts().newest(LayerKind::Function));
    for function in functions {
        let manifest = shelf.timed(|shelf| {
            let manifest = cut(function, size, &domain, |sealed| shelf.keep(sealed))?;
            shelf.name(&manifest)?;
            Ok(manifest)
        })?;
        let image = Image::whole(manifest).context("a base of its own")?;
        held_against(&shelf.opened(&image), function)?;
    }
    Ok(shelf)
}

/// Each as a diff on the neutral one.
fn layers(size: ChunkSize, neutral: &Memory, functions: &[Memory]) -> Result<(Shelf, Counts)> {
    let mut shelf = Shelf::default();
    let (runtime, function) = (salts().newest(LayerKind::Runtime), salts().newest(LayerKind::Function));
    let base = shelf.timed(|shelf| Ok(cut(neutral, size, &runtime, |sealed| shelf.keep(sealed))?))?;
    let name = shelf.name(&base)?;
    let below = Image::whole(base.clone()).context("a base of its own")?;
    let mut all = Counts::default();
    for memory in functions {
        let (diff, counts) = shelf.timed(|shelf| {
            let made = cut_against((name, &below), neutral, memory, &function, |sealed| shelf.keep(sealed))?;
            shelf.name(&made.0)?;
            Ok(made)
        })?;
        let image = Image::resolve(diff, |_| Ok::<_, Infallible>(base.clone()))?;
        held_against(&shelf.opened(&image), memory)?;
        all.same += counts.same;
        all.filled += counts.filled;
        all.zeroed += counts.zeroed;
        all.replaced += counts.replaced;
    }
    Ok((shelf, all))
}
