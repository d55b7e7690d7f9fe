//! Guests whose memory a pager brings: the same work as ever, and every way in which a pager can fail them. The pager is the real
//! program, or this test where it has to fail at one page and not at another.

use super::again::not_put_back;
use super::harness::{Harness, pair};
use super::support::life::Snapshot;
use super::support::linux::{Guest, Running, contents, guests};
use super::support::vmm::{memfd, receive, send_with, try_receive};
use super::support::{Vmm, has_kvm};
use super::{LOAD_FAILED, Life, MIB, POWERED_OFF, Shape, everything, run, soak};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use warren_chunks::pages::PAGE_BYTES;
use warren_pager::{Manner, packet, regions::Regions, uffd::Userfault};
use warren_state::{linux::LinuxState, open, wasm::Run};
use warren_vmm_protocol::linux::{DeviceSpec, Limits, Rate};
use warren_vmm_protocol::pager::{PACKET_MAX, decode};
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError};

const PAGER: i32 = 24;
/// Longer than anything that comes.
const WHILE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

fn state(snapshot: &Snapshot) -> LinuxState {
    open(&snapshot.state).unwrap()
}

/// Brings a guest back by a pager of its own, in pages as they are waited for; and so the first of its disks that it may write. What
/// is in that disk's file is something else from then on.
pub(crate) fn restore(guest: &Guest, snapshot: &Snapshot) -> Running {
    let harness = Harness::start();
    let name = harness.publish_runs(snapshot, &state(snapshot).runs);
    let serve = |name, manner| {
        let (ours, theirs) = pair();
        harness.serve(name, manner, &ours);
        theirs
    };
    let memory = serve(name, Manner::SERVE);
    let vmm = guest.launch_with(&["--paged"]);
    let mut control = vmm.control();
    match guest.disks.iter().position(|(_, read_only)| !read_only) {
        Some(at) => {
            let disk = &guest.disks[at].0;
            let under = serve(harness.publish_disk(disk), Manner::DISK);
            let bytes = contents(disk).len();
            fs::File::from(disk.try_clone().unwrap()).write_all_at(&vec![0xEE; bytes], 0).unwrap();
            guest.ask_all_paged(&mut control, &snapshot.state, &memory, (at, &under));
        }
        None => guest.ask_paged(&mut control, &snapshot.state, &memory),
    }
    drop(memory);
    let reply = try_receive(&mut control);
    let mut running = Running::started(vmm, control, reply.as_ref());
    running.beside = Some(Box::new(harness));
    running
}

fn does_everything(kernel: &'static str, cpus: u8) {
    everything(Shape { kernel, elf: None, cpus, memory_mib: 128, late: false, life: Life::Paged });
}

#[test]
fn a_6_1_guest_does_everything_in_pages() {
    does_everything("6.1", 1);
}

#[test]
fn a_6_12_guest_on_four_vcpus_does_everything_in_pages() {
    if soak() {
        does_everything("6.12", 4);
    }
}

/// Pages that the guest gives back while they are paged are zero afterwards, or what it wrote; never the snapshot's.
#[test]
fn what_a_guest_gives_back_comes_as_zeroes() {
    let script = "
        b mount -t tmpfs none /tmp
        b dd if=/dev/urandom of=/tmp/one bs=1M count=12 2>/dev/null
        sum=$(b md5sum < /tmp/one)
        b cp /tmp/one /tmp/two
        echo written before
        [ \"$(b md5sum < /tmp/two)\" = \"$sum\" ] && echo the second is whole
        b rm /tmp/two
        # Reported as free two seconds after it became so.
        b sleep 4
        b cp /tmp/one /tmp/three
        [ \"$(b md5sum < /tmp/three)\" = \"$sum\" ] && echo the third is whole
        [ \"$(b md5sum < /tmp/one)\" = \"$sum\" ] && echo the first is whole";
    let ended = run("6.1", script, |guest| {
        guest.shape(None, 1, 128);
        guest.others.push(DeviceSpec::Balloon { reports_free: true });
        guest.point = Some("console: written before");
        guest.bring = restore;
    });
    if let Some(ended) = ended {
        ended.with(POWERED_OFF, &["the second is whole", "the third is whole", "the first is whole"]);
    }
}

/// Every block of a disk that is paged is what the guest makes of it, under load too, though the VMM keeps a part of it alone.
#[test]
fn a_disk_that_is_paged_is_a_disk() {
    let script = "
        b mount -t tmpfs none /tmp
        b dd if=/dev/vdc of=/tmp/model bs=1M iflag=direct 2>/dev/null
        same() { b dd if=/dev/vdc bs=1M iflag=direct 2>/dev/null | b cmp - /tmp/model && echo same $1; }
        to() { b dd bs=512 seek=$1 conv=sync,notrunc,fsync of=$2 2>/dev/null; }
        both() {
            for at in 0 7 8 9 127 128 2047 4095 20000 24575; do
                echo $1 $at | to $at /dev/vdc
                echo $1 $at | to $at /tmp/model
            done
            b head -c 1000000 /dev/urandom > /tmp/noise
            to $2 /dev/vdc < /tmp/noise
            to $2 /tmp/model < /tmp/noise
            b blkdiscard -o $((4096 * $2)) -l 1048576 /dev/vdc
            b dd if=/dev/zero of=/tmp/model bs=4096 seek=$2 count=256 conv=notrunc 2>/dev/null
        }
        echo written before
        b sleep 3
        same as it was
        same once more
        both one 333
        same with changes
        ( while :; do b dd if=/dev/vdc of=/dev/null bs=4096 iflag=direct 2>/dev/null; done ) &
        ( while :; do b dd if=/dev/vdc of=/dev/null bs=1M iflag=direct 2>/dev/null; done ) &
        both two 2222
        same under load";
    let noise = |at: u32| at.wrapping_mul(2_654_435_761).to_le_bytes()[2];
    // A quarter of it is zero, and nothing of that is in a chunk.
    let byte = |at: u32| if at >> 20 & 3 == 2 { 0 } else { noise(at) };
    let disk = memfd(&(0..12_u32 << 20).map(byte).collect::<Vec<u8>>());
    let ended = run("6.1", script, |guest| {
        guest.shape(None, 2, 128);
        guest.disks.push((disk, false));
        guest.point = Some("console: written before");
        guest.bring = restore;
    });
    if let Some(ended) = ended {
        ended.with(POWERED_OFF, &["same as", "same once", "same with", "same under"]);
    }
}

/// A script that reads a disk's pages from its cache and another disk past it, on a vCPU each.
const BUSY: &str = "
    b md5sum /dev/vdc
    b taskset 1 dd if=/dev/vdd of=/dev/null bs=65536 iflag=direct &
    ( while :; do b taskset 2 md5sum /dev/vdc > /dev/null; done ) &
    while :; do b sleep 0.5; echo busy; done";
/// What the first of them holds, page by page.
const CACHED: &[u8; 16] = b"cached, and kept";
/// What the second does: it is in the buffer that its thread reads into next.
const BUFFER: &[u8; 16] = b"a direct buffer ";

fn busy(kernel: &str) -> Option<(Guest, Snapshot)> {
    let marked = |mark: &[u8], len| mark.iter().copied().cycle().take(len).collect::<Vec<u8>>();
    let folder = has_kvm().then(guests).flatten()?;
    let mut guest = Guest::new(&folder, kernel, BUSY);
    // So large and slow that its reader is in the middle of it when the guest is written down.
    let operations = Some(Rate { burst: 8, per_second: 16 });
    guest.limits = Some(Limits { bytes: None, operations });
    for disk in [marked(CACHED, MIB), marked(BUFFER, 64 * MIB)] {
        guest.disks.push((memfd(&disk), true));
    }
    guest.shape(None, 2, 128);
    let mut running = guest.start();
    assert!(running.vmm.until("console: busy"));
    let snapshot = running.snapshot();
    drop(running.kill());
    Some((guest, snapshot))
}

/// Asks a new VMM for it, whose pager is behind this socket; the reply is for whoever wants it.
fn ask(guest: &Guest, snapshot: &Snapshot, socket: &OwnedFd) -> (Vmm, UnixStream) {
    let vmm = guest.launch_with(&["--paged"]);
    let mut control = vmm.control();
    guest.ask_paged(&mut control, &snapshot.state, socket);
    (vmm, control)
}

/// Whether a thread of a process, whose name begins so, waits for a page.
fn waits(pid: u32, name: &str) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let word = |task: &Path, what| fs::read_to_string(task.join(what)).unwrap_or_default();
    tasks
        .filter(|task| word(task, "comm").starts_with(name))
        .any(|task| word(&task, "wchan").contains("userfault"))
}

/// This test as a pager that brings every page but those with the disks' content: so a page of the cache never comes to a vCPU, and
/// its buffer never to a disk's thread. It goes when both wait.
fn withhold(vmm: u32, socket: &OwnedFd, snapshot: &Snapshot) {
    let packet = packet::receive(socket, PACKET_MAX).unwrap().unwrap();
    let runs = state(snapshot).runs;
    let pages = u32::try_from(runs.last().unwrap().range().end / PAGE_BYTES as u64).unwrap();
    let regions = Regions::judge(&decode(&packet.bytes).unwrap(), pages).unwrap();
    let [fd] = <[OwnedFd; 1]>::try_from(packet.descriptors).unwrap();
    let userfault = Userfault::judge(fd, regions.first()).unwrap();
    let memory = fs::File::from(snapshot.memory.try_clone().unwrap());
    let (mut faults, mut cached) = (Vec::new(), false);
    while !cached || !waits(vmm, "disk3") {
        poll(&mut [PollFd::new(&userfault, PollFlags::IN)], Some(&WHILE)).unwrap();
        userfault.faults(&mut faults).unwrap();
        for address in faults.drain(..) {
            let slot = regions.at(address).unwrap();
            let page = page(&memory, &runs, u64::from(regions.page(slot).unwrap()) * PAGE_BYTES as u64);
            match page.first_chunk() {
                Some(CACHED) => cached = true,
                Some(BUFFER) => {}
                _ => drop(userfault.copy(regions.address(slot).unwrap(), &page).unwrap()),
            }
        }
    }
}

/// The page at an address, of a file with runs one behind the other.
fn page(memory: &fs::File, runs: &[Run], at: u64) -> Vec<u8> {
    let (mut page, mut offset) = (vec![0; PAGE_BYTES], 0);
    for run in runs {
        if run.range().contains(&at) {
            memory.read_exact_at(&mut page, offset + at - run.gpa).unwrap();
        }
        offset += run.len;
    }
    page
}

/// The pager goes while a vCPU and a disk's thread wait for pages: the process ends, and says why.
fn gone_while_waited_for(kernel: &str) {
    let Some((guest, snapshot)) = busy(kernel) else { return };
    let (ours, theirs) = pair();
    let (vmm, _control) = ask(&guest, &snapshot, &theirs);
    drop(theirs);
    withhold(vmm.pid(), &ours, &snapshot);
    drop(ours);
    vmm.ends(PAGER, "end: pager: the pager is gone");
}

#[test]
fn a_pager_that_goes_while_vcpus_and_disks_wait_is_a_named_end() {
    gone_while_waited_for("6.1");
    if soak() {
        gone_while_waited_for("6.12");
    }
}

fn stop(harness: &Harness) {
    let pid = harness.pager.id().to_string();
    assert!(Command::new("kill").args(["-s", "STOP", &pid]).status().unwrap().success());
}

#[test]
fn a_pager_that_is_killed_is_a_named_end() {
    killed("6.1");
    if soak() {
        killed("6.12");
    }
}

/// The real one: killed while a guest is brought back, which the main thread waits for; and killed under load.
fn killed(kernel: &str) {
    let Some((guest, snapshot)) = busy(kernel) else { return };
    let mut harness = Harness::start();
    let name = harness.publish_runs(&snapshot, &state(&snapshot).runs);
    let begin = |harness: &Harness| {
        let (ours, theirs) = pair();
        harness.serve(name, Manner::RECORD, &ours);
        theirs
    };
    let socket = begin(&harness);
    stop(&harness);
    let (vmm, _control) = ask(&guest, &snapshot, &socket);
    drop(socket);
    // The first to touch memory: a vCPU that gets its registers, or the main thread.
    while !waits(vmm.pid(), "") {
        std::thread::yield_now();
    }
    harness.pager.kill().unwrap();
    vmm.ends(PAGER, "end: pager: the pager is gone");
    for round in 0..if soak() { 20 } else { 3 } {
        harness.again(&[]);
        let socket = begin(&harness);
        let (mut vmm, mut control) = ask(&guest, &snapshot, &socket);
        drop(socket);
        assert!(matches!(try_receive(&mut control), Some(ControlReply::Started { .. })));
        if round % 2 == 0 {
            assert!(vmm.until("console: busy"));
        }
        harness.pager.kill().unwrap();
        vmm.ends(PAGER, "end: pager: the pager is gone");
    }
}

/// A bit of each chunk is another: the guest never sees one.
#[test]
fn garbage_in_a_chunk_is_a_named_end() {
    let Some((guest, snapshot)) = busy("6.1") else { return };
    let harness = Harness::start();
    let name = harness.publish_runs(&snapshot, &state(&snapshot).runs);
    for chunk in harness.manifest(name).names() {
        let file = harness.file_of(chunk);
        let mut bytes = fs::read(&file).unwrap();
        bytes[1000] ^= 4;
        fs::write(&file, bytes).unwrap();
    }
    let (ours, theirs) = pair();
    let id = harness.serve(name, Manner::SERVE, &ours);
    drop(ours);
    let (vmm, _control) = ask(&guest, &snapshot, &theirs);
    drop(theirs);
    assert!(harness.over(id).starts_with("chunk "));
    vmm.ends(PAGER, "cannot be had");
}

/// What cannot be paged is refused by name, and a guest that is paged is not written down.
#[test]
fn what_cannot_be_paged_is_said_by_name() {
    let Some((guest, snapshot)) = busy("6.1") else { return };
    for flag in ["--huge-pages", "--reserved-pages=2M", "--pluggable-mib=128"] {
        let (status, log) = guest.launch_with(&["--paged", flag]).wait();
        assert!(status == 2 && log.contains("cannot be used with"), "{flag}: {log}");
    }
    let (ours, theirs) = pair();
    for (flags, socket, words) in [
        (&[][..], &theirs, "without a userfaultfd"),
        (&["--paged"], &snapshot.memory, "cannot reach the pager"),
    ] {
        let vmm = guest.launch_with(flags);
        let mut control = vmm.control();
        guest.ask_paged(&mut control, &snapshot.state, socket);
        match try_receive(&mut control) {
            Some(ControlReply::LoadFailed { reason: LoadError::Refused(why), .. }) => {
                assert!(why.contains(words), "{why}");
            }
            other => panic!("{other:?}"),
        }
        vmm.ends(LOAD_FAILED, "end: load-failed");
    }
    // One that went is nobody's fault who asked, and is named so.
    drop(ours);
    let (vmm, mut control) = ask(&guest, &snapshot, &theirs);
    match try_receive(&mut control) {
        Some(ControlReply::LoadFailed { reason: LoadError::Pager(why), .. }) => {
            assert!(why.contains("the pager is gone"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    vmm.ends(LOAD_FAILED, "end: load-failed");
    drop(theirs);
    let mut running = restore(&guest, &snapshot);
    send_with(&mut running.control, &ControlRequest::Snapshot, &[&memfd(&[0; PAGE_BYTES])]);
    match receive(&mut running.control) {
        ControlReply::NoSnapshot { reason } => assert!(reason.contains("a pager brings"), "{reason}"),
        other => panic!("{other:?}"),
    }
    not_put_back(&mut running.control, "memory a pager brings");
    drop(running.kill());
}
