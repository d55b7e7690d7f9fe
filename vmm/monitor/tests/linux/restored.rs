//! Guests that were written down and brought back in another VMM: what goes on, what must not, and snapshots that are not what
//! they say. Other modules' cases run in a second life too, where their guest has a [`point`](super::support::linux::Guest).

use super::again::not_put_back;
use super::support;
use super::support::life::Snapshot;
use super::support::linux::{Ended, Guest, Running, guests};
use super::support::vmm::{load, memfd, receive, send, send_with, status};
use super::support::{Vmm, sealed, spec};
use super::vsock::{park, stream};
use super::{LOAD_FAILED, MIB, POWERED_OFF, empty, soak};
use rustix::fd::OwnedFd;
use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use warren_state::linux::LinuxState;
use warren_state::{open, seal};
use warren_vmm_protocol::linux::{DeviceSpec, VsockReply};
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError, VmState};

/// What a guest has before its point, and how it shows afterwards that it has it still. Its timer says so in the second life alone:
/// what the first one says last may die with its monitor.
const BEFORE: &str = "
    kept='kept in a shell'
    echo kept in memory > /tmp/kept
    echo 'kept on disk' | b dd of=/dev/vdd bs=512 conv=sync,fsync 2>/dev/null
    empty=\"$(b cat /sys/class/block/vde/size) sectors, $(b cat /dev/vde | b wc -c) bytes\"
    ( until [ -e /tmp/on ]; do b sleep 0.1; done; echo a timer of the first life fires ) &
    timer=$!";
const AFTER: &str = "
    echo $kept
    echo an empty disk had $empty
    b cat /tmp/kept
    for look in $(b seq 1000); do [ $(b cat /sys/class/block/vde/size) = 8 ] && break; b sleep 0.01; done
    b cat /dev/vde | b head -n 1
    b head -n 1 /dev/vdd
    echo 'written later' | b dd of=/dev/vdd bs=512 seek=3 conv=sync,fsync 2>/dev/null
    b sleep 0.1 && echo a timer of the second life fires
    echo entropy $(b head -c 64 /dev/hwrng | b wc -c)
    echo > /tmp/on
    wait $timer
    echo cpus $(b nproc) online";
/// The disk of [`BEFORE`] that is empty, and what is on it in the second life.
const EMPTY: usize = 4;
const FILLED: [u8; 4096] = {
    let (mut disk, text) = ([0; 4096], b"a disk that was filled meanwhile\n");
    let mut at = 0;
    while at < text.len() {
        disk[at] = text[at];
        at += 1;
    }
    disk
};
const LINES: [&str; 9] = [
    "console: kept in a shell",
    "console: kept in memory",
    "console: kept on disk",
    "console: an empty disk had 0 sectors, 0 bytes",
    "console: a disk that was filled meanwhile",
    "console: a timer of the first life fires",
    "console: a timer of the second life fires",
    "console: entropy 64",
    "end: powered-off",
];

fn write_at(disk: &OwnedFd, at: u64, bytes: &[u8]) {
    let mut file = std::fs::File::from(disk.try_clone().unwrap());
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

fn echoes(mut stream: &UnixStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

/// The guest is let go on where it was written down.
fn go_on(running: &Running) {
    let mut control = running.control.try_clone().unwrap();
    send(&mut control, &ControlRequest::Resume);
    assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Told);
}

/// Memory, a disk, timers, entropy, processes go on where they stood, in the first life and in the second; streams of the first
/// are over in the second, and new ones come.
#[test]
fn a_6_1_guest_goes_on_in_both_lives() {
    if !support::has_kvm() {
        return;
    }
    let Some(folder) = guests() else { return };
    let script = format!("{BEFORE}\n/tmp/probe 1000\n{AFTER}");
    let mut guest = Guest::with_probe(&folder, "6.1", &script);
    guest.disks.extend([(memfd(&vec![0; MIB]), false), (memfd(&[]), true)]);
    guest.shape(None, 1, 128);
    let mut running = guest.start();
    assert!(running.vmm.until("guest-probe: listening"));
    let old = stream(&running, b"e");
    echoes(&old, b"before");
    drop(running.snapshot());
    let mut control = running.control.try_clone().unwrap();
    assert_eq!(status(&mut control).state, VmState::Busy, "at rest it answers");
    not_put_back(&mut control, "no guest was restored here");
    go_on(&running);
    echoes(&old, b"and on");
    let snapshot = running.snapshot();
    let before = running.kill().log;
    refusals(&guest, &snapshot, (Guest::launch, "of kind"));
    refusals(&guest, &snapshot, (|guest| guest.zygote().0, "made for devices"));
    guest.disks[EMPTY].0 = memfd(&FILLED);
    let mut running = guest.restore(&snapshot);
    not_put_back(&mut running.control, "keeps what is written to it");
    // Asked for before the guest has heard that its connections are over.
    let mut parked = park(&running, 77);
    let new = stream(&running, b"e");
    echoes(&new, b"after");
    let mut ask = vec![b'c'];
    ask.extend([77_u64, 0].iter().flat_map(|number| number.to_le_bytes()));
    let asked = stream(&running, &ask);
    assert_eq!(receive::<VsockReply>(&mut parked), VsockReply::Connected);
    drop((parked, asked, new, old));
    drop(stream(&running, b"x"));
    let ended = running.end();
    Ended { log: before + &ended.log, ..ended }.with(POWERED_OFF, &LINES);
}

/// Clones of one snapshot: each goes on by itself, and no two draw the same.
fn clones(kernel: &str, cpus: u8, count: usize) {
    if !support::has_kvm() {
        return;
    }
    let Some(folder) = guests() else { return };
    let script = format!(
        "{BEFORE}
        echo waiting for go
        until [ \"$(b dd if=/dev/vdc bs=512 count=1 iflag=direct 2>/dev/null | b head -c 2)\" = go ]; do :; done
        until b dmesg | b grep -q 'virtual machine fork'; do :; done
        echo drawn $(b head -c 16 /dev/urandom | b hexdump -v -e '1/1 \"%02x\"') uuid $(b cat /proc/sys/kernel/random/uuid) over
        {AFTER}"
    );
    let mut guest = Guest::new(&folder, kernel, &script);
    let gate = memfd(&vec![0; MIB]);
    guest.disks.push((gate.try_clone().unwrap(), true));
    guest.disks.extend([(memfd(&vec![0; MIB]), false), (memfd(&[]), true)]);
    guest.shape(None, cpus, 128);
    let mut running = guest.start();
    assert!(running.vmm.until("console: waiting for go"));
    let snapshot = running.snapshot();
    drop(running.kill());
    write_at(&gate, 0, b"go");
    guest.disks[EMPTY].0 = memfd(&FILLED);
    let cpus = format!("console: cpus {cpus} online");
    let mut drawn = BTreeSet::new();
    for number in 0..count {
        // In a machine of its own, in one that waited for it, and with memory of its own.
        let bring = [Guest::restore, Guest::adopt, Guest::copy][number % 3];
        let mut running = bring(&guest, &snapshot);
        if number == 2 {
            not_put_back(&mut running.control, "its memory is a copy");
        }
        let ended = running.end();
        ended.with(POWERED_OFF, &LINES).with(POWERED_OFF, &[&cpus]);
        let said = ended.log.split_once("console: drawn ").unwrap().1.split_once(" over").unwrap().0;
        let (random, uuid) = said.split_once(" uuid ").unwrap();
        assert!(random.len() == 32 && drawn.insert(random.to_owned()), "{random}");
        assert!(uuid.len() == 36 && drawn.insert(uuid.to_owned()), "{uuid}");
    }
}

#[test]
fn clones_of_6_12_on_two_vcpus_draw_differently() {
    clones("6.12", 2, if soak() { 100 } else { 5 });
}

fn refused(reply: Option<ControlReply>, what: &str, words: &str) {
    match reply {
        Some(ControlReply::LoadFailed { reason: LoadError::Refused(why), .. }) => {
            assert!(why.contains(words), "{what}: {why:?} lacks {words:?}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Snapshots that are not what they say, and VMMs that they are not for; how one is begun, and what it says of devices in another
/// order.
fn refusals(guest: &Guest, snapshot: &Snapshot, (launch, other_kinds): (fn(&Guest) -> Vmm, &str)) {
    let whole = &snapshot.state;
    let altered = |at: usize| {
        let mut state = whole.clone();
        state[at] ^= 2;
        state
    };
    let changed = |change: fn(&mut LinuxState)| {
        let mut state = open::<LinuxState>(whole).unwrap();
        change(&mut state);
        seal(&state).unwrap()
    };
    let states: [(&str, Vec<u8>, &str); 12] = [
        ("no state", Vec::new(), "no snapshot's state"),
        ("cut", whole[..whole.len() - 1].to_vec(), "was expected"),
        ("a flipped bit", altered(whole.len() / 2), "altered"),
        ("a newer version", altered(8), "make it anew"),
        ("a newer device", changed(|s| s.devices[1].version = 9), "device 2 in version 9"),
        ("pages elsewhere", changed(|s| s.runs[0].gpa = 1 << 40), "outside of memory"),
        ("fewer pages", changed(|s| s.runs.truncate(s.runs.len() - 1)), "another length"),
        ("another size", changed(|s| s.memory_bytes += 4096), "this one has 128 MiB"),
        ("another number of vCPUs", changed(|s| s.vcpus.push(s.vcpus[0].clone())), "2 vCPUs, this one"),
        ("no such template", changed(|s| s.template = "zen".into()), "no processor template"),
        ("another processor", changed(|s| s.leaves[1].registers[0] ^= 1), "another kind of processor"),
        ("a forbidden register", changed(|s| s.vcpus[0].msrs.push((0x3A, 1))), "none that a snapshot keeps"),
    ];
    for (what, state, words) in states {
        let vmm = launch(guest);
        refused(guest.ask_restore(&mut vmm.control(), snapshot, &state), what, words);
        vmm.ends(LOAD_FAILED, "end: load-failed");
    }
    let open_memory = Snapshot { state: whole.clone(), memory: memfd(&[1; 4096]) };
    let short_memory = Snapshot { state: whole.clone(), memory: sealed(&[1; 4096]) };
    for (memory, words) in [(open_memory, "not sealed"), (short_memory, "another length")] {
        refused(guest.ask_restore(&mut launch(guest).control(), &memory, whole), "memory", words);
    }
    let with = |change: fn(&mut Vec<DeviceSpec>, &mut Vec<OwnedFd>), words: &str| {
        let (mut devices, disks) = guest.parts();
        let mut disks: Vec<OwnedFd> = disks.iter().map(|disk| disk.try_clone().unwrap()).collect();
        change(&mut devices, &mut disks);
        let reply = Guest::ask_restore_with(
            &mut launch(guest).control(),
            snapshot,
            whole,
            devices,
            &disks.iter().collect::<Vec<_>>(),
        );
        refused(reply, "devices", words);
    };
    with(|devices, _| devices.truncate(6), "7 devices were written down, 6 are given");
    with(|_, disks| disks.truncate(3), "descriptors came for devices");
    with(|devices, _| devices.swap(5, 6), other_kinds);
    with(|devices, _| devices[3] = DeviceSpec::Block { read_only: true }, "offered features");
    with(|_, disks| disks[3] = memfd(&[0; 512]), "size or address");
}

#[test]
fn nobody_is_there_to_be_written_down() {
    needs_kvm!();
    let (vmm, mut control) = empty();
    let none = |control: &mut UnixStream, descriptors: &[&OwnedFd], words: &str| {
        send_with(control, &ControlRequest::Snapshot, descriptors);
        match receive(control) {
            ControlReply::NoSnapshot { reason } => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
    };
    none(&mut control, &[&memfd(&[0; 4096])], "no guest yet");
    send(&mut control, &ControlRequest::Resume);
    assert!(matches!(receive(&mut control), ControlReply::NotTold { .. }));
    drop(vmm);
    // A Wasm machine has neither.
    let wasm = Vmm::spawn(&support::guest::elf());
    let mut control = wasm.control();
    send(&mut control, &ControlRequest::Resume);
    assert!(matches!(receive(&mut control), ControlReply::NotTold { .. }));
    let code = sealed(&[0; 16]);
    assert!(matches!(load(&mut control, &spec(16), &[&code]), ControlReply::Loaded { .. }));
}
