//! A guest put back to the snapshot it was brought back from, in the VM it is in: nothing of what it did since is left. (What it draws,
//! `snapshots.rs` shows beside clones.)
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use support::life::{Snapshot, reset};
use support::vmm::{answer, call, call_with, echo, receive, request, send, status};
use support::{Vmm, code, guest, sealed};
use warren_abi::window::{CODE, HEAP, MAILBOX, PROGRAM};
use warren_vmm_protocol::{ControlReply, ControlRequest, Outcome, VmState};

/// Answers what eight bytes hold, and writes others there.
const SWAP: (usize, &[u8]) =
    (0x100, &[0x48, 0x8B, 0x56, 0x09, 0x48, 0x8B, 0x02, 0x48, 0xC7, 0x02, 0x5A, 0x5A, 0x5A, 0x5A, 0xC3]);
/// Fills a MiB with [`FILLED`].
const FILL: (usize, &[u8]) = (
    0x140,
    &[
        0x48, 0x8B, 0x7E, 0x09, 0xB9, 0, 0, 2, 0, 0x48, 0xC7, 0xC0, 0x33, 0x33, 0x33, 0x33, 0xF3, 0x48, 0xAB,
        0xC3,
    ],
);
/// Answers r15, and puts something else there.
const SWAP_R15: (usize, &[u8]) = (0x180, &[0x4C, 0x89, 0xF8, 0x49, 0xC7, 0xC7, 0x5A, 0x5A, 0x5A, 0x5A, 0xC3]);
/// The same with the upper half of ymm1.
const SWAP_YMM: (usize, &[u8]) = (
    0x1C0,
    &[
        0xC4, 0xE3, 0x7D, 0x19, 0xC8, 1, 0x66, 0x48, 0x0F, 0x7E, 0xC0, 0x48, 0xC7, 0xC1, 0x5A, 0x5A, 0x5A,
        0x5A, 0xC4, 0xE1, 0xF9, 0x6E, 0xC9, 0xC4, 0xE3, 0x75, 0x18, 0xC9, 1, 0xC3,
    ],
);
/// Rings with the trap flag on: the trap comes after the doorbell's instruction, which is finished when the guest goes on.
const TRAP: (usize, &[u8]) = (
    0x200,
    &[
        0x41, 0xC7, 0x44, 0x24, 16, 8, 0, 0, 0, 0xBA, 0x0B, 0x0D, 0, 0, 0x9C, 0x81, 0x0C, 0x24, 0, 1, 0, 0,
        0x9D, 0xEF, 0x9C, 0x81, 0x24, 0x24, 0xFF, 0xFE, 0xFF, 0xFF, 0x9D, 0xC3,
    ],
);
/// A few hundred million turns.
const SLOW: (usize, &[u8]) = (0x240, &[0xB9, 0, 0, 0, 0x10, 0xFF, 0xC9, 0x75, 0xFC, 0xC3]);
const FILLED: u64 = 0x3333_3333;
const SWAPPED: u64 = 0x5A5A_5A5A;
/// Where in the heap a MiB is filled before the guest is written down.
const FULL: u64 = HEAP.base + (2 << 20);

/// All of them, as a code descriptor's contents.
fn routines() -> Vec<u8> {
    let mut bytes = code::descriptor(&[]);
    for (at, routine) in [SWAP, FILL, SWAP_R15, SWAP_YMM, TRAP, SLOW] {
        bytes.resize(at, 0xCC);
        bytes.extend(routine);
    }
    bytes
}

/// The event that runs one of them.
fn payload(routine: (usize, &[u8]), address: u64) -> Vec<u8> {
    [vec![b'X'], (CODE.base + routine.0 as u64).to_le_bytes().to_vec(), address.to_le_bytes().to_vec()]
        .concat()
}

/// What it answers.
fn ask(invoke: &mut UnixStream, routine: (usize, &[u8]), address: u64) -> u64 {
    let back = call(invoke, &payload(routine, address));
    assert_eq!(back.done.outcome, Outcome::Response, "{address:#x}");
    u64::from_le_bytes(back.payload.try_into().unwrap())
}

/// A guest with the routines that was brought back.
fn restored() -> (Vmm, UnixStream) {
    let image = guest::elf();
    let (vmm, mut control) = Vmm::loaded(&routines());
    ask(&mut vmm.invoke(), FILL, FULL);
    let snapshot = Snapshot::take(&mut control);
    drop((vmm, control));
    let vmm = Vmm::spawn_with(&image, &["--restore"]);
    let mut control = vmm.control();
    let reply = snapshot.restore(&mut control, &snapshot.state, &[&sealed(&routines())]);
    assert!(matches!(reply, Some(ControlReply::Loaded { .. })), "{reply:?}");
    (vmm, control)
}

fn put_back(control: &mut UnixStream) {
    let reply = reset(control);
    assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
}

/// Data, zeroes behind it, heap that was filled and that never was, and every area of the mailbox; from the first event on the new
/// life writes there too.
#[test]
fn no_byte_of_the_earlier_life_is_left() {
    needs_kvm!();
    let (vmm, mut control) = restored();
    let mut invoke = vmm.invoke();
    let places = [
        (PROGRAM.base + 0x1000, 0x1122_3344),
        (PROGRAM.base + 0x2800, 7),
        (HEAP.base, 0),
        (FULL, FILLED),
        (FULL + (1 << 20) - 8, FILLED),
        (HEAP.base + (20 << 20), 0),
        (MAILBOX.base + 0x1_0800, 0),
        (MAILBOX.base + 0x10_0000 + (4 << 20), 0),
        (MAILBOX.base + 0x80_0000 + (2 << 20), 0),
    ];
    for life in 0..3 {
        for (address, first) in places {
            assert_eq!(ask(&mut invoke, SWAP, address), first, "{address:#x} in life {life}");
            assert_eq!(ask(&mut invoke, SWAP, address), SWAPPED, "{address:#x} in life {life}");
        }
        put_back(&mut control);
    }
}

#[test]
fn no_register_of_the_earlier_life_is_left() {
    needs_kvm!();
    let (vmm, mut control) = restored();
    let mut invoke = vmm.invoke();
    let wide = std::is_x86_feature_detected!("avx");
    let routines = [Some(SWAP_R15), wide.then_some(SWAP_YMM)];
    for life in 0..2 {
        for routine in routines.into_iter().flatten() {
            assert_eq!(ask(&mut invoke, routine, 0), 0, "{:#x} in life {life}", routine.0);
            assert_eq!(ask(&mut invoke, routine, 0), SWAPPED, "{:#x} in life {life}", routine.0);
        }
        put_back(&mut control);
    }
}

/// A guest that leaves a trap behind dies of it when it goes on; put back, it does not.
#[test]
fn no_trap_of_the_earlier_life_is_left() {
    needs_kvm!();
    let (vmm, mut control) = restored();
    let mut invoke = vmm.invoke();
    call(&mut invoke, &payload(TRAP, 0));
    put_back(&mut control);
    echo(&mut invoke, b".alive");
    call(&mut invoke, &payload(TRAP, 0));
    let Outcome::Guest(text) = call_with(&mut invoke, b".dead", 5_000).done.outcome else {
        panic!("it lives")
    };
    assert!(text.contains("exception 1"), "{text}");
    vmm.ends(21, &text);
}

/// The event is answered whole, by the guest that had it; what waits behind it finds the new one.
#[test]
fn a_reset_waits_for_the_event_that_runs() {
    needs_kvm!();
    let (vmm, mut control) = restored();
    let mut invoke = vmm.invoke();
    assert_eq!(ask(&mut invoke, SWAP, HEAP.base), 0);
    let slow = payload(SLOW, 0);
    send(&mut invoke, &request(slow.len(), 20_000));
    invoke.write_all(&slow).unwrap();
    while status(&mut control).state != VmState::Busy {}
    send(&mut control, &ControlRequest::Reset);
    // There is one already.
    send(&mut control, &ControlRequest::Reset);
    assert!(matches!(receive(&mut control), ControlReply::NotTold { why } if why.contains("under way")));
    assert_eq!(answer(&mut invoke).done.outcome, Outcome::Response);
    assert!(matches!(receive(&mut control), ControlReply::Loaded { .. }));
    assert_eq!(ask(&mut invoke, SWAP, HEAP.base), 0, "the new life's");
}

/// What had half arrived lies in memory that goes; a connection on which nothing has, stays.
#[test]
fn half_a_request_goes_with_its_connection() {
    needs_kvm!();
    let (vmm, mut control) = restored();
    let mut half = vmm.invoke();
    echo(&mut half, b".whole");
    send(&mut half, &request(100, 20_000));
    half.write_all(&[b'.'; 40]).unwrap();
    // One that comes before a byte of it was looked at leaves it where it is: the next guest's.
    let gone = (0..3).any(|_| {
        put_back(&mut control);
        half.set_nonblocking(true).unwrap();
        let read = half.read(&mut [0]);
        half.set_nonblocking(false).unwrap();
        match read {
            Ok(count) => count == 0,
            // With bytes of it unread.
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    });
    assert!(gone, "half a request is still there");
    echo(&mut vmm.invoke(), b".after");
}

#[test]
fn what_cannot_be_put_back_says_why_and_goes_on() {
    needs_kvm!();
    let not = |control: &mut UnixStream, words: &str| match reset(control) {
        ControlReply::NotTold { why } => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}"),
    };
    let (vmm, mut control) = Vmm::loaded(&routines());
    not(&mut control, "no guest was restored here");
    echo(&mut vmm.invoke(), b".goes on");
    let waiting = Vmm::spawn_with(&guest::elf(), &["--restore"]);
    not(&mut waiting.control(), "no guest was restored here");
    let linux = Vmm::launch("linux", &["--memory-mib", "64"], None);
    not(&mut linux.control(), "there is no guest yet");
}
