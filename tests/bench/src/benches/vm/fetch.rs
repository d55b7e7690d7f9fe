//! `snapshot-fetch`: a Wasm guest from a snapshot in chunks to its first response, its memory brought by a pager's thread.
//!
//! | metric | tiers | pages come |
//! |---|---|---|
//! | `serial-faults` | nothing of it in memory: chunks from the origin's folder | as they are waited for, with nothing read ahead |
//! | `first-response` | the same | the loading set read from the beginning |
//! | `l1-serial`, `l1-first-response` | sealed chunks in memory | likewise |
//! | `floor` | the origin's folder | none: the same chunks read and opened, one behind the other |
//!
//! The folder's own pages are in the host's cache: this machine's disk is not measured. `amplification` is bytes fetched before the
//! first response, over the bytes of the pages that a recorded run touched by then.

use super::{Buried, OPTIONS, Parts, Running, Snapshot, Vessel, timed};
use crate::{Places, report::Report, stats::Samples};
use anyhow::{Context as _, Result, ensure};
use kvm_ioctls::Kvm;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{fs::File, path::Path, thread};
use tokio::runtime::Runtime;
use warren_chunks::{
    ChunkSize, LayerKind, Name, Salts, Store, TenantKey,
    cut::cut,
    l1::{Local, Memory},
    l3::{Origin, OriginLimits},
    learn::learn,
    manifest::{ChunkRef, Manifest},
};
use warren_pager::{
    Bring, Entry, Journal, Manner,
    fetch::Source,
    serve::{Order, serve},
};
use warren_vmm::{bare::Bare, snapshot, sys::userfault::Userfault};
use warren_vmm_protocol::World;

const BENCH: &str = "snapshot-fetch";
const KEY: [u8; 32] = [5; 32];
/// Bytes of sealed chunks that fit memory, where any are to.
const WARM: u64 = 256 << 20;
/// Recorded runs that a loading set is learned of.
const RECORDED: usize = 3;

/// Each way of bringing memory, beside the floor of the same run.
pub(crate) fn fetch(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    // On a thread of its own: the one that drives benches belongs to a runtime, and may not wait for another.
    let measured = thread::scope(|scope| scope.spawn(|| measure(places, report, runs)).join());
    measured.map_err(|_| anyhow::anyhow!("the bench panicked"))?
}

fn measure(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let parts = Parts::compile(places, "hello", World::WasiPreview1)?;
    let salts = Salts::new([1; 32], [0; 3]);
    let bench = Fetching { runtime, origin: folder.path(), salts, guest: &parts.guest };
    let mut first = Running::create(&parts)?;
    // What an event leaves behind is in the snapshot.
    first.call()?;
    let snapshot = first.snapshot(&parts)?;
    drop(first);
    let cold = bench.store(0)?;
    let mut name = bench.publish(&cold, &snapshot)?;
    let mut touched = 0;
    for _ in 0..RECORDED {
        let (_, entry, vm) = bench.first_response(&cold, name, Manner::RECORD, &snapshot)?;
        drop(vm);
        touched = entry.touched.iter().map(|run| u64::from(run.count)).sum();
        let log = entry.log().context("nothing was touched")?;
        name = bench.runtime.block_on(learn(&cold, (name, &key()), &log, &bench.salts))?.0;
    }
    let manifest = bench.runtime.block_on(cold.manifest(name, &key()))?;
    bench.compare(report, (&cold, &bench.store(WARM)?), (name, &manifest), &snapshot, (runs, touched))
}

/// What all runs share.
struct Fetching<'a> {
    runtime: Runtime,
    origin: &'a Path,
    salts: Salts,
    /// The guest program.
    guest: &'a OwnedFd,
}

fn key() -> TenantKey {
    TenantKey::new(KEY)
}

impl Fetching<'_> {
    fn store(&self, memory: u64) -> Result<Store> {
        let origin = Origin::folder(self.origin, OriginLimits::default())?;
        Ok(Store::new(Local::new(Memory::new(memory), None), None, origin))
    }

    fn publish(&self, store: &Store, snapshot: &Snapshot) -> Result<Name> {
        let memory = snapshot.linear()?;
        let mut chunks = Vec::new();
        let manifest = cut(&memory, ChunkSize::DEFAULT, &self.salts.newest(LayerKind::Function), |sealed| {
            chunks.push(sealed);
            Ok::<(), std::convert::Infallible>(())
        })?;
        self.runtime.block_on(async {
            for sealed in chunks {
                store.put(sealed.name, sealed.bytes).await?;
            }
            anyhow::Ok(store.publish(&manifest, &key()).await?)
        })
    }

    /// One guest, from a VM that waits to its first response: how long that took, what it cost by then, and the guest.
    fn first_response(
        &self,
        store: &Store,
        name: Name,
        manner: Manner,
        snapshot: &Snapshot,
    ) -> Result<(std::time::Duration, Entry, Running)> {
        let device = File::options().read(true).write(true).open("/dev/userfaultfd")?;
        let userfault = Userfault::new(device.as_fd()).context("make a userfaultfd")?;
        let vm = Bare::with_program(&Kvm::new().context("/dev/kvm")?, self.guest, OPTIONS)?;
        let (journal, source) =
            (Journal::default(), Source::new(store.clone(), self.runtime.handle().clone(), 16));
        let (took, vm) = timed(|| {
            let (socket, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            let order = Order { manifest: name, key: key(), manner, socket };
            let kept = journal.clone();
            thread::Builder::new().spawn(move || serve(&order, &source, &kept))?;
            let mut vm = restored(vm, snapshot, (&userfault, theirs))?;
            vm.call()?;
            Ok(vm)
        })?;
        Ok((took, journal.read(), vm))
    }

    fn compare(
        &self,
        report: &mut Report,
        (cold, warm): (&Store, &Store),
        (name, manifest): (Name, &Manifest),
        snapshot: &Snapshot,
        (runs, touched): (usize, u64),
    ) -> Result<()> {
        let packs: Vec<(ChunkRef, u32)> = manifest
            .parts()
            .loading
            .iter()
            .map(|pack| (pack.chunk.clone(), pack.pages.iter().map(|run| run.count).sum()))
            .collect();
        let serial = Manner { loading: false, bring: Bring::Chunk, fill: false };
        let ways = [
            ("serial-faults", cold, serial),
            ("first-response", cold, Manner::SERVE),
            ("l1-serial", warm, serial),
            ("l1-first-response", warm, Manner::SERVE),
        ];
        let mut measured: Vec<_> = ways.map(|way| (way, Samples::new(), Entry::default())).into();
        let (mut floor, mut buried) = (Samples::new(), Buried::default());
        for run in 0..runs + 3 {
            for ((_, store, manner), samples, last) in &mut measured {
                let (took, entry, vm) = self.first_response(store, name, *manner, snapshot)?;
                buried.bury(vm)?;
                if run >= 3 {
                    samples.push(took);
                    *last = entry;
                }
            }
            let (least, ()) = timed(|| {
                self.runtime.block_on(async {
                    for (chunk, pages) in &packs {
                        cold.chunk(chunk, *pages).await?;
                    }
                    anyhow::Ok(())
                })
            })?;
            if run >= 3 {
                floor.push(least);
            }
        }
        report.floor(BENCH, "floor", &floor);
        let serial_us = measured.first().map_or(0.0, |(_, samples, _)| samples.p50_us());
        for ((metric, ..), samples, entry) in &measured {
            report.times(BENCH, metric, samples, ("floor", floor.p50_us()), "");
            let bytes = entry.figures.bytes;
            #[expect(clippy::cast_precision_loss, reason = "bytes of one guest")]
            let amplified = bytes as f64 / (touched * 4096) as f64;
            let reach = if *metric == "first-response" { "<= 1.2" } else { "" };
            report.value(
                BENCH,
                &format!("{metric}-amplification"),
                "x",
                (amplified, amplified),
                1,
                ("", 0.0),
                reach,
            );
            report.count(BENCH, &format!("{metric}-chunks"), entry.figures.packs + entry.figures.windows, 1);
            report.count(BENCH, &format!("{metric}-faults"), entry.figures.faults, 1);
        }
        if let Some((_, samples, _)) = measured.get(1) {
            report.times(BENCH, "over-serial-faults", samples, ("serial-faults", serial_us), "<= 0.33x");
        }
        report.count(BENCH, "touched-pages", touched, 1);
        Ok(())
    }
}

/// A guest whose memory comes by a pager's socket, up to where it could take an event.
fn restored(
    (mut bare, mut cpu): (Bare, warren_vmm::cpu::Cpu),
    snapshot: &Snapshot,
    (userfault, socket): (&Userfault, OwnedFd),
) -> Result<Running> {
    let descriptors = vec![socket, snapshot.code.try_clone()?];
    let admitted = snapshot::admit(&snapshot.state, true, descriptors).map_err(anyhow::Error::msg)?;
    let (resume, source) = snapshot::restore(&mut bare, admitted, Some(userfault))?;
    ensure!(matches!(source, snapshot::Source::Pager(_)), "nobody brings memory");
    cpu.resume(&resume)?;
    let snapshot::Resume { entry, mailbox, generation, .. } = resume;
    let machine = Vessel::Bare(bare, source);
    Ok(Running { cpu, mailbox, seeds: super::Seeds::default(), events: 0, generation, entry, machine })
}
