//! The contract, told by a guest that keeps it: load, events, logs, status, shutdown.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use std::io::Write;
use support::vmm::{answer, call, echo, load, receive, request, send, status};
use support::{Vmm, sealed, spec};
use warren_vmm_protocol::{ControlReply, ControlRequest, Outcome, VmState};

#[test]
fn a_life() {
    needs_kvm!();
    let vmm = Vmm::spawn(&support::guest::elf());
    let mut control = vmm.control();
    assert_eq!(status(&mut control).state, VmState::Empty);
    let code = sealed(b"Rest");
    let reply = load(&mut control, &spec(4), &[&code]);
    let ControlReply::Loaded { init_us, build_us, log } = reply else { panic!("{reply:?}") };
    assert!(init_us >= build_us && log.is_empty());
    let mut invoke = vmm.invoke();
    let back = echo(&mut invoke, b".hello");
    assert_eq!(back.done.exits, 1, "a warm event is one exit");
    assert_eq!(back.done.memory_peak_bytes, 32 << 20, "a peak beyond the memory is cut");
    let now = status(&mut control);
    assert_eq!((now.state, now.invocations, now.label.as_str()), (VmState::Idle, 1, "test-function"));
    send(&mut control, &ControlRequest::Shutdown);
    assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Stopping);
    vmm.ends(0, "end: shutdown");
}

#[test]
fn a_thousand_warm_events() {
    needs_kvm!();
    let (vmm, _control) = Vmm::loaded(b"R");
    let mut invoke = vmm.invoke();
    for i in 0..1000_u32 {
        assert_eq!(echo(&mut invoke, &[&[0], &i.to_le_bytes()[..]].concat()).done.exits, 1);
    }
}

#[test]
fn payloads_of_every_size_class() {
    needs_kvm!();
    let (vmm, _control) = Vmm::loaded(b"R");
    let mut invoke = vmm.invoke();
    for len in [0, 1, 4095, 4096, 16 << 10, (16 << 10) + 1, 100_000, 6 << 20] {
        let payload: Vec<u8> = (0..len).map(|i: u32| (i % 251) as u8).collect();
        echo(&mut invoke, &payload);
    }
}

#[test]
fn logs_at_the_end_and_in_the_middle() {
    needs_kvm!();
    let (vmm, _control) = Vmm::loaded(b"R");
    let mut invoke = vmm.invoke();
    let back = echo(&mut invoke, b"line one\n");
    assert_eq!((back.log.as_slice(), back.done.exits), (&b"line one\n"[..], 1));
    let back = echo(&mut invoke, b"Flush");
    assert_eq!((back.log.as_slice(), back.done.exits), (&b"Flush"[..], 2));
    assert!(echo(&mut invoke, b"quiet").log.is_empty(), "logs are taken once");
    let full = vec![b'l'; 256 << 10];
    assert_eq!(echo(&mut invoke, &full).log.len(), full.len());
}

#[test]
fn requests_in_pieces_and_in_a_row() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    let mut invoke = vmm.invoke();
    let mut bytes = warren_vmm_protocol::frame::encode(&request(3, 1000)).unwrap();
    bytes.extend(b"abc");
    for byte in &bytes {
        invoke.write_all(&[*byte]).unwrap();
        status(&mut control);
    }
    assert_eq!(answer(&mut invoke).payload, b"abc");
    invoke.write_all(&[bytes.clone(), bytes].concat()).unwrap();
    assert_eq!(answer(&mut invoke).payload, b"abc");
    assert_eq!(answer(&mut invoke).payload, b"abc");
}

#[test]
fn the_function_fails_and_the_sandbox_goes_on() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    let mut invoke = vmm.invoke();
    let mut header = vec![b'h'];
    for word in [3_u32, 4, 7, 2, 0, 0, 0, 0, 0, 0] {
        header.extend(word.to_le_bytes());
    }
    let back = call(&mut invoke, &header);
    let Outcome::Function { error, exit_code, detail } = back.done.outcome else { panic!("{:?}", back.done) };
    assert_eq!((error.name(), exit_code, detail.as_str()), ("exit", 7, "no"));
    echo(&mut invoke, b".still here");
    assert_eq!(status(&mut control).invocations, 2);
}
