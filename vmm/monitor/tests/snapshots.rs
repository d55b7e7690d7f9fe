//! Snapshots of Wasm guests: what clones of one share and what they must not, and snapshots that are not what they say.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use rustix::fd::OwnedFd;
use rustix::fs::ftruncate;
use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};
use support::life::{Snapshot, reset};
use support::real::{compile, function, image};
use support::vmm::{call, load, memfd, receive, send_with};
use support::{Life, Vmm, sealed, spec};
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError};

/// Answers sixteen random bytes, then wall clock and monotonic clock in nanoseconds.
const DRAWS: &str = r#"(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\20\00\00\00")
  (func (export "_start")
    (drop (call $random (i32.const 16) (i32.const 16)))
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 32)))
    (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 40)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// A snapshot of [`DRAWS`] and its code.
fn taken() -> (Snapshot, Vec<u8>) {
    let (vmm, mut control) = function(Life::Built, DRAWS);
    let mut invoke = vmm.invoke();
    let before = call(&mut invoke, b"").payload;
    let snapshot = Snapshot::take(&mut control);
    // It goes on as if nothing had been.
    assert_ne!(call(&mut invoke, b"").payload, before);
    // As often as anybody likes.
    drop(Snapshot::take(&mut control));
    assert_eq!(call(&mut invoke, b"").payload.len(), 32);
    (snapshot, compile(DRAWS))
}

fn wall_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// One event: what it drew was never drawn, and it knows what time it is.
fn draw(invoke: &mut UnixStream, drawn: &mut BTreeSet<Vec<u8>>) {
    let before = wall_ns();
    let payload = call(invoke, b"").payload;
    let clock = u64::from_le_bytes(payload[16..24].try_into().unwrap());
    assert!((before..=wall_ns()).contains(&clock), "{clock} is not between {before} and now");
    assert!(drawn.insert(payload[..16].to_vec()), "drawn twice");
}

#[test]
fn every_life_in_one_vm_draws_differently_and_knows_the_time() {
    needs_kvm!();
    let (vmm, mut control) = function(Life::Restored, DRAWS);
    let (mut invoke, mut drawn) = (vmm.invoke(), BTreeSet::new());
    for _ in 0..50 {
        for _ in 0..2 {
            draw(&mut invoke, &mut drawn);
        }
        let reply = reset(&mut control);
        assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
    }
    assert_eq!(drawn.len(), 100);
}

#[test]
fn clones_draw_differently_and_know_the_time() {
    needs_kvm!();
    let (snapshot, code) = taken();
    let code = sealed(&code);
    let clones = if std::env::var_os("WARREN_SOAK").is_some() { 1000 } else { 8 };
    let mut drawn = BTreeSet::new();
    for _ in 0..clones {
        let vmm = Vmm::spawn_with(image(), &["--restore"]);
        let reply = snapshot.restore(&mut vmm.control(), &snapshot.state, &[&code]);
        assert!(matches!(reply, Some(ControlReply::Loaded { .. })), "{reply:?}");
        let mut invoke = vmm.invoke();
        for _ in 0..2 {
            draw(&mut invoke, &mut drawn);
        }
    }
    assert_eq!(drawn.len(), clones * 2);
}

/// What is wrong, with which memory, state and artefacts, and a word of the refusal.
type Case<'a> = (&'a str, &'a Snapshot, Vec<u8>, Vec<&'a OwnedFd>, &'a str);

#[test]
fn snapshots_that_are_not_what_they_say() {
    needs_kvm!();
    let (snapshot, code) = taken();
    let (good, other) = (sealed(&code), sealed(&vec![0; code.len() + 8192]));
    let altered = |at: usize, bit: u8| {
        let mut state = snapshot.state.clone();
        state[at] ^= bit;
        state
    };
    let unsealed = Snapshot { state: Vec::new(), memory: memfd(&[1; 4096]) };
    let short = Snapshot { state: Vec::new(), memory: sealed(&[1; 4096]) };
    let whole = &snapshot.state;
    let cases: Vec<Case<'_>> = vec![
        ("no state", &snapshot, Vec::new(), vec![&good], "no snapshot's state"),
        ("cut", &snapshot, whole[..whole.len() - 1].to_vec(), vec![&good], "was expected"),
        ("a flipped bit", &snapshot, altered(40, 1), vec![&good], "altered"),
        ("a newer version", &snapshot, altered(8, 2), vec![&good], "make it anew"),
        ("no code", &snapshot, whole.clone(), vec![], "descriptors"),
        ("two codes", &snapshot, whole.clone(), vec![&good, &good], "descriptors"),
        ("another code", &snapshot, whole.clone(), vec![&other], "made with another"),
        ("another memory", &short, whole.clone(), vec![&good], "another length"),
        ("memory that may change", &unsealed, whole.clone(), vec![&good], "not sealed"),
    ];
    for (what, with, state, artefacts, words) in cases {
        let vmm = Vmm::spawn_with(image(), &["--restore"]);
        let reply = with.restore(&mut vmm.control(), &state, &artefacts);
        let Some(ControlReply::LoadFailed { reason: LoadError::Refused(why), .. }) = reply else {
            panic!("{what}: {reply:?}")
        };
        assert!(why.contains(words), "{what}: {why}");
        vmm.ends(22, "end: load-failed");
    }
}

#[test]
fn the_right_thing_in_the_wrong_place() {
    needs_kvm!();
    let (snapshot, code) = taken();
    let code = sealed(&code);
    let refused = |reply: Option<ControlReply>, words: &str| match reply {
        Some(ControlReply::LoadFailed { reason: LoadError::Refused(why), .. }) => {
            assert!(why.contains(words), "{why}");
        }
        other => panic!("{other:?}"),
    };
    let vmm = Vmm::spawn(image());
    refused(snapshot.restore(&mut vmm.control(), &snapshot.state, &[&code]), "started to load");
    let vmm = Vmm::spawn_with(image(), &["--restore"]);
    refused(Some(load(&mut vmm.control(), &spec(100), &[&code])), "started to restore");
    let vmm = Vmm::spawn_with(image(), &["--restore", "--class-mib", "64"]);
    refused(snapshot.restore(&mut vmm.control(), &snapshot.state, &[&code]), "slot of 160 MiB");
    let vmm = Vmm::spawn_with(&support::guest::elf(), &["--restore"]);
    refused(snapshot.restore(&mut vmm.control(), &snapshot.state, &[&code]), "another guest program");
}

#[test]
fn no_snapshot_and_the_guest_goes_on() {
    needs_kvm!();
    let ask = |control: &mut _, descriptors: &[&OwnedFd], words: &str| {
        send_with(control, &ControlRequest::Snapshot, descriptors);
        match receive(control) {
            ControlReply::NoSnapshot { reason } => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
    };
    let room = memfd(&[]);
    ftruncate(&room, 1 << 30).unwrap();
    let vmm = Vmm::spawn(image());
    ask(&mut vmm.control(), &[&room], "nothing is loaded");
    let (vmm, mut control) = function(Life::Built, DRAWS);
    let mut invoke = vmm.invoke();
    let (small, file) = (memfd(&[0; 8192]), tempfile());
    for (descriptors, words) in [
        (vec![], "one descriptor"),
        (vec![&room, &room], "one descriptor"),
        (vec![&file], "no memfd"),
        (vec![&small], "no more room"),
    ] {
        ask(&mut control, &descriptors, words);
        assert_eq!(call(&mut invoke, b"").payload.len(), 32, "{words}");
    }
    let (vmm, mut control) = function(Life::Restored, DRAWS);
    ask(&mut control, &[&room], "was restored");
    assert_eq!(call(&mut vmm.invoke(), b"").payload.len(), 32);
}

fn tempfile() -> OwnedFd {
    std::fs::File::options().read(true).write(true).open("/dev/null").unwrap().into()
}
