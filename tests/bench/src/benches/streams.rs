//! `vsock`: a stream between host and a Linux guest, as an event of a function takes it: one byte there and back, and many
//! bytes one way. The floor is the same over a pair of sockets here.

use super::probe::{Probed, exits};
use crate::{Places, report::Report, stats::Samples};
use anyhow::{Result, ensure};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

const BENCH: &str = "vsock";
const MUCH: u64 = 16 << 20;
const RUNS: usize = 3;

/// Round trips and a transfer, beside `socket-floor`.
pub(crate) fn vsock(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let guest = Probed::start(places, &[])?;

    let mut floor = Samples::new();
    let (mut here, mut there) = UnixStream::pair()?;
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() && there.write_all(&byte).is_ok() {}
    });
    round_trips(&mut here, runs, &mut floor)?;
    drop(here);
    let _ = echo.join();
    let mut trips = Samples::new();
    let mut stream = guest.stream(b"e")?;
    let before = exits()?;
    round_trips(&mut stream, runs, &mut trips)?;
    let trip_exits = exits()? - before;
    drop(stream);
    report.floor(BENCH, "socket-floor", &floor);
    report.times(BENCH, "round-trip", &trips, ("socket-floor", floor.p50_us()), "");
    report.count(BENCH, "exits-a-round-trip", trip_exits, runs);

    let [mut least, mut transfer] = [const { Samples::new() }; 2];
    let mut all_exits = 0;
    for _ in 0..RUNS {
        let (mut here, mut there) = UnixStream::pair()?;
        let began = Instant::now();
        let sender =
            std::thread::spawn(move || there.write_all(&vec![0; usize::try_from(MUCH).unwrap_or(0)]));
        std::io::copy(&mut here, &mut std::io::sink())?;
        least.push(began.elapsed());
        let _ = sender.join();
        let mut request = b"z".to_vec();
        request.extend(MUCH.to_le_bytes());
        let began = Instant::now();
        let mut stream = guest.stream(&request)?;
        let before = exits()?;
        let count = std::io::copy(&mut stream, &mut std::io::sink())?;
        transfer.push(began.elapsed());
        ensure!(count == MUCH, "{count} bytes came");
        all_exits += exits()? - before;
    }
    report.floor(BENCH, "socket-16-mib", &least);
    report.times(BENCH, "16-mib-to-host", &transfer, ("socket-16-mib", least.p50_us()), "");
    report.count(BENCH, "exits-a-64-kib", all_exits, usize::try_from(MUCH >> 16)? * RUNS);
    guest.end()
}

fn round_trips(stream: &mut UnixStream, runs: usize, samples: &mut Samples) -> Result<()> {
    let mut byte = [7];
    for _ in 0..runs {
        let began = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        samples.push(began.elapsed());
    }
    Ok(())
}
