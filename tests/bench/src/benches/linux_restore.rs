//! `linux-restore`: a Linux guest from a snapshot, in a new `warren-vmm linux` process, from its start to the guest's first line; and
//! in one that waits for it (`adopted`, `zygote`), from the request; and in the one where it runs, put back (`reset`).
//!
//! The guest's one process writes line after line to the console, and does so when it is written down: whoever brings it back
//! sees the next one as soon as the guest runs. The snapshot's memory is a sealed memfd, as a host has it in its cache: in large pages
//! where it can be.
//!
//! Making a VM after a pause waits for grace periods of RCU, ticks of four milliseconds each, and so does ours; one made right after
//! another does not. The floor is of the second kind, as where peers were measured; each figure is given as the host is and with
//! grace periods expedited, as theirs are.

use super::first_process::Act;
use super::linux::{
    GracePeriods, MEMORY_MIB, Process, control, initrd, kvm_floor, launch, memfd, receive, send,
};
use crate::{Places, report::Report, stats::Samples};
use anyhow::{Context as _, Result, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::fs;
use std::num::NonZeroUsize;
use std::time::Duration;
use warren_large_pages::gather;
use warren_state::{linux::LinuxState, wasm::large_parts};
use warren_vmm_protocol::linux::LinuxRestore;
use warren_vmm_protocol::{ControlReply, ControlRequest, frame};

const COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=-1 quiet loglevel=0 i8042.noaux i8042.nomux i8042.nopnp \
                            i8042.dumbkbd nomodule swiotlb=noforce";
/// Kernel, and names of the figures by mode.
const BENCHES: [(&str, [&str; 2]); 2] = [
    ("6.1", ["linux-restore-6.1", "linux-restore-6.1-expedited"]),
    ("6.12", ["linux-restore-6.12", "linux-restore-6.12-expedited"]),
];
/// The first is held against the reach.
const REACHES: [&str; 2] = ["<= 13.6x (Firecracker 27x, 13.1 ms)", "(Firecracker 10x)"];
/// What a guest does next when it goes on differs: a tick that is due, pages that it frees. So it is written down so often.
const SNAPSHOTS: usize = 3;
/// What the log says of a line of the guest's.
const LINE: &str = "console: ";

/// From process start, or from the request to one that waits, to the reply that the vCPU goes on, and to the guest's first line,
/// beside `kvm-floor`.
pub(crate) fn restore(places: &Places, report: &mut Report, runs: usize) -> Result<()> {
    let guests = places.guests.as_ref().context("--guests: the folder with kernels (warren-lab --guests)")?;
    let initrd = initrd(Act::Print)?;
    for (kernel, names) in BENCHES {
        let image = memfd(&fs::read(guests.join(kernel).join("vmlinux"))?, true)?;
        let taken = (0..SNAPSHOTS).map(|_| taken(places, &image, &initrd)).collect::<Result<Vec<_>>>()?;
        for ((bench, mode), reach) in names.into_iter().zip(GracePeriods::BOTH).zip(REACHES) {
            let _set = mode.set()?;
            let [mut entry, mut line, mut adopted, mut zygote, mut reset, mut floor] =
                [const { Samples::new() }; 6];
            // The first VM of a host pays for what it is the first of.
            for (run, (state, memory, _)) in
                (0..=runs).flat_map(|run| taken.iter().map(move |taken| (run, taken)))
            {
                let process = Process::start(places, "")?;
                let mut started = process.begin(&request(state), &[memory.as_fd()])?;
                let first = started.says(LINE)?;
                let goes_on = started.entry();
                started.kill()?;
                let (goes_on_there, first_there, again) = adopt(places, (state, memory))?;
                let least = kvm_floor()?;
                if run > 0 {
                    entry.push(goes_on);
                    line.push(first);
                    adopted.push(goes_on_there);
                    zygote.push(first_there);
                    reset.push(again);
                    floor.push(least);
                }
            }
            report.floor(bench, "kvm-floor", &floor);
            let least = ("kvm-floor", floor.p50_us());
            report.times(bench, "goes-on", &entry, least, "");
            report.times(bench, "first-line", &line, least, reach);
            report.times(bench, "adopted", &adopted, least, "");
            report.times(bench, "zygote", &zygote, least, "<= 3x");
            report.times(bench, "reset", &reset, least, "");
        }
        let Some((state, _, len)) = taken.first() else { continue };
        #[expect(clippy::cast_precision_loss, reason = "KiB of one guest")]
        let sizes = [("memory", (len >> 10) as f64), ("state", state.len() as f64 / 1024.0)];
        for (what, kib) in sizes {
            report.value(names[0], what, "KiB", (kib, kib), 1, ("", 0.0), "");
        }
    }
    Ok(())
}

fn request(state: &[u8]) -> ControlRequest {
    ControlRequest::RestoreLinux(LinuxRestore {
        state: state.into(),
        devices: Vec::new(),
        copied: false,
        label: "bench".into(),
    })
}

/// From the request to a process that waits, sealed and with its machine made, to the reply that the guest goes on and to its first
/// line; and from the request to put it back to the first line after that.
fn adopt(places: &Places, (state, memory): (&[u8], &OwnedFd)) -> Result<(Duration, Duration, Duration)> {
    let process = Process::start(places, "")?.waits()?;
    let mut started = process.begin(&request(state), &[memory.as_fd()])?;
    let first = started.says(LINE)?;
    let goes_on = started.entry();
    let again = started.put_back(LINE)?;
    started.kill()?;
    Ok((goes_on, first, again))
}

/// A guest in the middle of its lines, written down: its state, and its memory with its length.
fn taken(places: &Places, kernel: &OwnedFd, initrd: &[u8]) -> Result<(Vec<u8>, OwnedFd, u64)> {
    let mut started = launch(places, (kernel, initrd), COMMAND_LINE, &[], "")?;
    started.says(LINE)?;
    let memory = memfd_create("memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, MEMORY_MIB << 20)?;
    let mut control = control(&started.path())?;
    send(&control, &frame::encode(&ControlRequest::Snapshot)?, &[memory.as_fd()])?;
    let (memory_len, state) = match receive(&mut control)? {
        ControlReply::Snapshot { memory_len, state } => (memory_len, state),
        other => bail!("no snapshot: {other:?}"),
    };
    started.kill()?;
    ftruncate(&memory, memory_len)?;
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)?;
    // As an agent has it.
    let written: LinuxState = warren_state::open(&state).map_err(anyhow::Error::msg)?;
    for (at, len) in large_parts(&written.runs) {
        let len = usize::try_from(len).ok().and_then(NonZeroUsize::new).context("an empty part")?;
        if let Err(why) = gather(&memory, at, len) {
            eprintln!("{} MiB from {} MiB on are in small pages: {why}", len.get() >> 20, at >> 20);
        }
    }
    Ok((state, memory, memory_len))
}
