//! `snapshot-link`: a Linux guest with Python and a large application, from a snapshot in chunks behind a link, to its first response.
//!
//! | metric | pages come |
//! |---|---|
//! | `serial-faults` | as they are waited for, a chunk at a time, with nothing read ahead |
//! | `first-response` | the loading set read from the beginning, the rest as it is waited for |
//! | `download-all` | none: every chunk is fetched and opened first, sixteen at once, and the guest restored from a file |
//!
//! Each from an S3 bucket (the fleet's origin) and, its name ending in `-worker`, from another worker's memory. `amplification` is
//! bytes fetched before the first response, over the bytes of the pages that a recorded run touched by then. Modules: [`app`] the
//! application, [`guest`] its guest, [`far`] what is beyond the link.

mod app;
mod far;
mod guest;

use crate::{Places, report::Report, stats::Samples};
use anyhow::{Context as _, Result};
use far::Far;
use std::{net::SocketAddr, path::Path, thread, time::Duration};
use warren_chunks::Store;
use warren_pager::{Bring, Entry, Manner};
use warren_state::linux::LinuxState;

const BENCH: &str = "snapshot-link";
/// Runs that a loading set is learned of.
const RECORDED: usize = 2;

/// The guest, and the way to its chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    /// The network namespace beyond the link, as a file.
    pub(crate) beyond: &'a Path,
    /// Another worker's address there.
    pub(crate) worker: SocketAddr,
    /// The S3 server there.
    pub(crate) bucket: &'a str,
    /// MiB of guest memory.
    pub(crate) memory_mib: u64,
    /// Files of 16 MiB of the application's data.
    pub(crate) files: usize,
}

/// Each way of bringing memory.
pub(crate) fn link(places: &Places, report: &mut Report, shape: Shape<'_>) -> Result<()> {
    // On a thread of its own: the one that drives benches belongs to a runtime, and may not wait for another.
    let measured = thread::scope(|scope| scope.spawn(|| measure(places, report, shape)).join());
    measured.map_err(|_| anyhow::anyhow!("the bench panicked"))?
}

fn measure(places: &Places, report: &mut Report, shape: Shape<'_>) -> Result<()> {
    let guests = places.guests.as_ref().context("--guests: the folder with kernels and runtimes")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let task = app::archive(shape.files)?;
    eprintln!("the application has {} bytes; its guest boots", task.len());
    let written = guest::written(places, guests, shape.memory_mib, &task)?;
    drop(task);
    let far = Far::start(runtime, shape)?;
    let state: LinuxState = warren_state::open(&written.state).map_err(anyhow::Error::msg)?;
    let mut name = far.publish(&written, &state)?;
    let (whole, expected) = written.respond(places, None)?;
    eprintln!("from a file: {whole:?}, {}", String::from_utf8_lossy(&expected));
    let mut touched = 0;
    for _ in 0..RECORDED {
        let (took, entry) = far.respond(places, &written, &far.there, (name, Manner::RECORD), &expected)?;
        touched = entry.touched.iter().map(|run| u64::from(run.count)).sum();
        eprintln!("recorded in {took:?}: {touched} pages in {} runs", entry.touched.len());
        let log = entry.log().context("nothing was touched")?;
        name = far.learn(name, &log)?;
    }
    let manifest = far.manifest(name)?;
    let copy = |store: &Store, manner| far.respond(places, &written, store, (name, manner), &expected);
    for (end, store) in [("", &far.bucket), ("-worker", &far.worker)] {
        let serial = Manner { loading: false, bring: Bring::Chunk, fill: false };
        let ways = [("serial-faults", copy(store, serial)?), ("first-response", copy(store, Manner::SERVE)?)];
        let (download, bytes) = far.download(store, &manifest)?;
        Figures { end, touched, ways, all: (download + whole, bytes) }.print(report);
    }
    Ok(())
}

/// What was measured of one tier.
struct Figures {
    /// Of each metric's name.
    end: &'static str,
    touched: u64,
    ways: [(&'static str, (Duration, Entry)); 2],
    /// Everything first, and its bytes.
    all: (Duration, u64),
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one guest")]
impl Figures {
    fn print(&self, report: &mut Report) {
        let of = |took: Duration| {
            let mut samples = Samples::new();
            samples.push(took);
            samples
        };
        let (all, bytes) = self.all;
        let named = |metric: &str| format!("{metric}{}", self.end);
        let all_first = named("download-all");
        report.floor(BENCH, &all_first, &of(all));
        let all_us = of(all).p50_us();
        report.count(BENCH, &named("touched-pages"), self.touched, 1);
        report.count(BENCH, &named("download-all-bytes"), bytes, 1);
        let (serial, (serial_took, _)) = &self.ways[0];
        let (serial, serial_us) = (named(serial), of(*serial_took).p50_us());
        for (metric, (took, entry)) in &self.ways {
            let (metric, loads) = (named(metric), *metric == "first-response");
            report.times(BENCH, &metric, &of(*took), (&all_first, all_us), "");
            let fetched = entry.figures.bytes;
            let x = |report: &mut Report, what: &str, value: f64, reach: &'static str| {
                report.value(BENCH, &format!("{metric}-{what}"), "x", (value, value), 1, ("", 0.0), reach);
            };
            x(
                report,
                "amplification",
                fetched as f64 / (self.touched * 4096) as f64,
                if loads { "<= 1.2" } else { "" },
            );
            x(report, "bytes-of-all", fetched as f64 / bytes as f64, "");
            let counts = [
                ("bytes", fetched),
                ("packs", entry.figures.packs),
                ("windows", entry.figures.windows),
                ("faults", entry.figures.faults),
            ];
            for (what, count) in counts {
                report.count(BENCH, &format!("{metric}-{what}"), count, 1);
            }
            if loads {
                let over = named("over-serial-faults");
                report.times(BENCH, &over, &of(*took), (&serial, serial_us), "<= 0.33x");
            }
        }
    }
}
