//! `snapshot-link`: a Linux guest with Python and a large application, from a snapshot in chunks behind a link, to its first response.
//!
//! | metric | pages come |
//! |---|---|
//! | `serial-faults` | as they are waited for, a chunk at a time, with nothing read ahead |
//! | `first-response` | the loading set read from the beginning, the rest as it is waited for |
//! | `download-all` | none: every chunk is fetched and opened first, sixteen at once, and the guest restored from a file |
//!
//! The chunks are another worker's (`warren_chunks::l2`, gRPC), whose socket is in a network namespace beyond the link: this process
//! opens it there. The pager is threads of this process, over a store that has nothing of its own. `amplification` is bytes fetched
//! before the first response, over the bytes of the pages that a recorded run touched by then. Recorded runs, which bring page by page
//! and read chunks again and again, are on the far side of the link.

mod app;
mod guest;

use crate::{Places, report::Report, stats::Samples};
use anyhow::{Context as _, Result, ensure};
use guest::Written;
use rustix::fd::AsFd as _;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs::File, path::Path, thread};
use tokio::{runtime::Runtime, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use warren_chunks::{
    ChunkSize, LayerKind, Name, Salts, Store, TenantKey,
    cut::{FileSource, cut},
    l1::{Local, Memory},
    l2::{Peer, PeerLimits, Peers, Service},
    l3::{Origin, OriginLimits},
    learn::learn,
    linear::Linear,
    manifest::Manifest,
};
use warren_pager::{
    Bring, Entry, Journal, Manner,
    fetch::Source,
    serve::{Order, serve},
};
use warren_state::linux::LinuxState;

const BENCH: &str = "snapshot-link";
const KEY: [u8; 32] = [5; 32];
/// Runs that a loading set is learned of.
const RECORDED: usize = 2;
/// Chunks in flight when all are fetched first.
const AT_ONCE: usize = 16;

/// The guest, and the way to its chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    /// The network namespace beyond the link, as a file.
    pub(crate) beyond: &'a Path,
    /// Its address there.
    pub(crate) address: SocketAddr,
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

fn key() -> TenantKey {
    TenantKey::new(KEY)
}

fn measure(places: &Places, report: &mut Report, shape: Shape<'_>) -> Result<()> {
    let guests = places.guests.as_ref().context("--guests: the folder with kernels and runtimes")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let task = app::archive(shape.files)?;
    eprintln!("the application has {} bytes; its guest boots", task.len());
    let written = guest::written(places, guests, shape.memory_mib, &task)?;
    drop(task);
    let folder = tempfile::tempdir()?;
    let far = Far::start(runtime, folder.path(), shape)?;
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
    let serial = Manner { loading: false, bring: Bring::Chunk, fill: false };
    let mut ways = Vec::new();
    for (metric, manner) in [("serial-faults", serial), ("first-response", Manner::SERVE)] {
        let (took, entry) = far.respond(places, &written, &far.store, (name, manner), &expected)?;
        ways.push((metric, took, entry));
    }
    let manifest = far.runtime.block_on(far.store.manifest(name, &key()))?;
    let (download, bytes) = far.download(&manifest)?;
    let figures = Figures { touched, ways, all: (download + whole, bytes) };
    figures.print(report);
    Ok(())
}

/// What was measured.
struct Figures {
    touched: u64,
    ways: Vec<(&'static str, Duration, Entry)>,
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
        report.floor(BENCH, "download-all", &of(all));
        let all_us = of(all).p50_us();
        report.count(BENCH, "touched-pages", self.touched, 1);
        report.count(BENCH, "download-all-bytes", bytes, 1);
        let serial_us = self.ways.first().map_or(0.0, |(_, took, _)| of(*took).p50_us());
        for (metric, took, entry) in &self.ways {
            report.times(BENCH, metric, &of(*took), ("download-all", all_us), "");
            let fetched = entry.figures.bytes;
            let loads = *metric == "first-response";
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
                report.times(
                    BENCH,
                    "over-serial-faults",
                    &of(*took),
                    ("serial-faults", serial_us),
                    "<= 0.33x",
                );
            }
        }
    }
}

/// A worker beyond the link that has every chunk, and a store here that has none.
struct Far {
    runtime: Runtime,
    /// The far worker's.
    there: Store,
    /// This side's.
    store: Store,
    salts: Salts,
}

impl Far {
    fn start(runtime: Runtime, folder: &Path, shape: Shape<'_>) -> Result<Self> {
        let listener = listen(shape)?;
        let (there, store) = runtime.block_on(async {
            let origin = |name: &str| Origin::folder(&folder.join(name), OriginLimits::default());
            let there = Store::new(Local::new(Memory::new(4 << 30), None), None, origin("there")?);
            let listener = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
            let service = Service::new(there.local().clone(), 64).into_server();
            tokio::spawn(Server::builder().add_service(service).serve_with_incoming(listener));
            let channel = Channel::from_shared(format!("http://{}", shape.address))?.connect_lazy();
            // One alone has them, and takes as long as the link does.
            let limits = PeerLimits { deadline: Duration::from_mins(1), ..PeerLimits::default() };
            let peers = Peers::new("here".into(), vec![Peer { id: "there".into(), channel }], limits);
            let store =
                Store::new(Local::new(Memory::new(0), None), Some(Arc::new(peers)), origin("nothing")?);
            anyhow::Ok((there, store))
        })?;
        Ok(Self { runtime, there, store, salts: Salts::new([1; 32], [0; 3]) })
    }

    fn publish(&self, written: &Written, state: &LinuxState) -> Result<Name> {
        let file = FileSource::new(File::from(written.memory.try_clone()?))?;
        let memory = Linear::new(file, state.runs.iter().map(|run| (run.gpa, run.len)))
            .context("runs that are not the memory's")?;
        let manifest = cut(&memory, ChunkSize::DEFAULT, &self.salts.newest(LayerKind::Function), |sealed| {
            self.there.local().remember(sealed.name, sealed.bytes.clone());
            self.runtime.block_on(self.there.put(sealed.name, sealed.bytes)).map(drop)
        })?;
        self.runtime.block_on(async {
            let name = self.there.publish(&manifest, &key()).await?;
            // Read once, its worker has it in memory.
            self.there.manifest(name, &key()).await?;
            Ok(name)
        })
    }

    fn learn(&self, name: Name, log: &warren_chunks::manifest::AccessLog) -> Result<Name> {
        self.runtime.block_on(async {
            let (name, manifest) = learn(&self.there, (name, &key()), log, &self.salts).await?;
            for chunk in manifest.names().into_iter().chain([name]) {
                self.there.read(chunk, 64 << 20).await?;
            }
            Ok(name)
        })
    }

    /// One copy, its memory brought from a store as the manner says: how long to its first response, and what it cost by then.
    fn respond(
        &self,
        places: &Places,
        written: &Written,
        store: &Store,
        (name, manner): (Name, Manner),
        expected: &[u8],
    ) -> Result<(Duration, Entry)> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (journal, source) =
            (Journal::default(), Source::new(store.clone(), self.runtime.handle().clone(), 16));
        let order = Order { manifest: name, key: key(), manner, socket };
        let kept = journal.clone();
        let serving = thread::Builder::new().spawn(move || serve(&order, &source, &kept))?;
        let (took, answer) = written.respond(places, Some(&theirs))?;
        let entry = journal.read();
        ensure!(answer == expected, "another answer: {}", String::from_utf8_lossy(&answer));
        drop(theirs);
        serving.join().map_err(|_| anyhow::anyhow!("the pager panicked"))?;
        Ok((took, entry))
    }

    /// Every chunk of the image, fetched and opened: how long that takes, and their bytes.
    fn download(&self, manifest: &Manifest) -> Result<(Duration, u64)> {
        let begin = Instant::now();
        let bytes = self.runtime.block_on(async {
            let (mut flights, mut bytes) = (JoinSet::new(), 0);
            let chunks = manifest
                .parts()
                .entries
                .iter()
                .filter_map(|entry| entry.chunk.clone().map(|chunk| (chunk, entry.present.len())));
            for (chunk, pages) in chunks {
                let store = self.store.clone();
                flights
                    .spawn(async move { store.chunk(&chunk, pages).await.map(|plain| plain.len() as u64) });
                if flights.len() >= AT_ONCE
                    && let Some(done) = flights.join_next().await
                {
                    bytes += done??;
                }
            }
            while let Some(done) = flights.join_next().await {
                bytes += done??;
            }
            anyhow::Ok(bytes)
        })?;
        Ok((begin.elapsed(), bytes))
    }
}

/// A socket that listens beyond the link.
fn listen(shape: Shape<'_>) -> Result<TcpListener> {
    let namespace = File::open(shape.beyond).with_context(|| shape.beyond.display().to_string())?;
    let address = shape.address;
    let there = thread::spawn(move || -> Result<TcpListener> {
        // This thread alone, which ends with it.
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    there.join().map_err(|_| anyhow::anyhow!("no socket beyond the link"))?
}
