//! `block` and `net`: what a guest's disk and network card move, beside the same without a guest.
//!
//! - `block`: pieces of a file in memory, read and written by one thread of the guest past its page cache, one at a time and
//!   eight at once; the floor is pread and pwrite of the same pieces by one thread here, which has them copied at once.
//! - `net`: TCP between the guest and a thread at the other end of its tap device; the floor is the same TCP over the
//!   loopback of the same host, one copy of every byte less than any tap device needs.

use super::linux::Given;
use super::probe::{Probed, exits};
use crate::{Places, report::Report, stats::Samples};
use anyhow::{Context as _, Result, ensure};
use rustix::fd::{AsFd, OwnedFd};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use warren_vmm_protocol::linux::{DeviceSpec, Limits};

const MUCH: u64 = 16 << 20;
const PIECE: u64 = 64 << 10;
const SMALL: u64 = 4 << 10;
const RUNS: u64 = 3;
const TRIPS: u64 = 200;
const REACH: &str = ">= 0.8x";

/// One kind of work: what it is called, and how a floor and a guest do it; how many operations it has.
struct Work<'a> {
    name: &'a str,
    operations: u64,
    bytes: u64,
    reach: &'static str,
}

impl Work<'_> {
    /// Both in turn; a line each, with the throughput's ratio, and the exits of an operation.
    fn measure(
        &self,
        bench: &'static str,
        report: &mut Report,
        mut floor: impl FnMut() -> Result<()>,
        mut ask: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let [mut least, mut took] = [const { Samples::new() }; 2];
        let mut all = 0;
        // The first of each touches memory that the others find there.
        for run in 0..=RUNS {
            let floor = timed(&mut floor)?;
            let before = exits()?;
            let work = timed(&mut ask)?;
            if run > 0 {
                all += exits()? - before;
                least.push(floor);
                took.push(work);
            }
        }
        let operations = f64_of(self.operations);
        let base = format!("host-{}", self.name);
        if self.bytes > 0 {
            let rate = |samples: &Samples| f64_of(self.bytes) / samples.p50_us() * 1e6 / f64_of(1 << 20);
            let (host, here) = (rate(&least), rate(&took));
            report.value(bench, &base, "mib-s", (host, host), least.len(), ("", 0.0), "");
            report.value(
                bench,
                self.name,
                "mib-s",
                (here, here),
                took.len(),
                (&base, here / host),
                self.reach,
            );
        } else {
            let (host, here) = (least.p50_us() / operations, took.p50_us() / operations);
            report.value(bench, &base, "us", (host, host), least.len(), ("", 0.0), "");
            report.value(bench, self.name, "us", (here, here), took.len(), (&base, here / host), self.reach);
        }
        report.count(bench, &format!("{}-exits", self.name), all, usize::try_from(self.operations * RUNS)?);
        Ok(())
    }
}

fn timed(work: &mut impl FnMut() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn f64_of(number: u64) -> f64 {
    number as f64
}

/// A disk.
pub(crate) fn block(places: &Places, report: &mut Report) -> Result<()> {
    let file = File::from(super::linux::memfd(&vec![7; usize::try_from(MUCH)?], false)?);
    let disk: Given<'_> = (DeviceSpec::Block { read_only: false }, Some(file.as_fd()));
    let guest = Probed::start(places, &[disk])?;
    for (name, kind, size, depth) in [
        ("read-64k", 0, PIECE, 1),
        ("read-64k-by-8", 0, PIECE, 8),
        ("write-64k", 1, PIECE, 1),
        ("write-64k-by-8", 1, PIECE, 8),
        ("read-4k", 0, SMALL, 1),
    ] {
        let large = size == PIECE;
        let bytes = if large { MUCH } else { SMALL * TRIPS };
        let count = bytes / size;
        let mut piece = vec![0x5A; usize::try_from(size)?];
        let floor = || {
            for offset in (0..count).map(|at| at * size) {
                match kind {
                    0 => file.read_exact_at(&mut piece, offset)?,
                    _ => file.write_all_at(&piece, offset)?,
                }
            }
            Ok(())
        };
        let (bytes, reach) = if large { (bytes, REACH) } else { (0, "") };
        let work = Work { name, operations: count, bytes, reach };
        work.measure("block", report, floor, || guest.ask(b'd', &[kind, size, count, depth]))?;
    }
    guest.end()
}

/// A network card.
pub(crate) fn net(places: &Places, report: &mut Report) -> Result<()> {
    let guests = places.guests.as_ref().context("--guests: the folder with kernels (warren-lab --guests)")?;
    let tap = tap(&guests.join("tun.ko"))?;
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    // Ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    let limits = Limits::default();
    let card = DeviceSpec::Net { mac: [2, 0, 0, 0, 0, 7], receive: limits, send: limits };
    let guest = Probed::start(places, &[(card, Some(tap.as_fd()))])?;
    for (name, kind, count) in [("to-host", 0, MUCH), ("to-guest", 1, MUCH), ("round-trip", 2, TRIPS)] {
        let (operations, bytes, reach) =
            if kind == 2 { (count, 0, "") } else { (count / PIECE, count, REACH) };
        let work = Work { name, operations, bytes, reach };
        let floor = || client(TcpStream::connect(("127.0.0.1", PORT))?, kind, count);
        work.measure("net", report, floor, || guest.ask(b'n', &[kind, count]))?;
    }
    guest.end()
}

const PORT: u16 = 5001;

/// What the probe does, here.
fn client(mut stream: TcpStream, kind: u64, count: u64) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&[kind.to_le_bytes(), count.to_le_bytes()].concat())?;
    match kind {
        0 => {
            send(&mut stream, count)?;
            stream.read_exact(&mut [0])?;
        }
        1 => take(&mut stream, count)?,
        _ => {
            for _ in 0..count {
                stream.write_all(&[1])?;
                stream.read_exact(&mut [0])?;
            }
        }
    }
    Ok(())
}

/// The other side of it.
fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut words = [0; 16];
    stream.read_exact(&mut words)?;
    let (kind, count) = words.split_at(8);
    let (kind, count) = (u64::from_le_bytes(kind.try_into()?), u64::from_le_bytes(count.try_into()?));
    match kind {
        0 => {
            take(&mut stream, count)?;
            stream.write_all(&[0])?;
        }
        1 => send(&mut stream, count)?,
        _ => {
            for _ in 0..count {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                stream.write_all(&byte)?;
            }
        }
    }
    Ok(())
}

fn send(stream: &mut TcpStream, count: u64) -> Result<()> {
    let piece = vec![0x5A; usize::try_from(PIECE)?];
    for _ in 0..count / PIECE {
        stream.write_all(&piece)?;
    }
    Ok(())
}

fn take(stream: &mut TcpStream, count: u64) -> Result<()> {
    let mut piece = vec![0; usize::try_from(PIECE)?];
    let mut left = count;
    while left > 0 {
        let got = stream.read(&mut piece)? as u64;
        ensure!(got > 0, "the stream ended {left} bytes early");
        left = left.saturating_sub(got);
    }
    Ok(())
}

/// A tap device of the lab's, whose other end is this host.
fn tap(module: &Path) -> Result<OwnedFd> {
    run("insmod", &[&module.display().to_string()])?;
    let tap = warren_vmm::sys::tap::make("tap0")?;
    run("ip", &["addr", "add", "10.77.0.1/24", "dev", "tap0"])?;
    run("ip", &["link", "set", "tap0", "up"])?;
    Ok(tap)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status()?;
    ensure!(status.success(), "{program} {arguments:?}: {status}");
    Ok(())
}
