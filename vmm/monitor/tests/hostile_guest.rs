//! What a guest may do that looks hostile, and what is left of one that is stopped: its log, its flags, its timers. What it may not do
//! is the table of `tests/hostile-guest`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use std::io::Write;
use support::Vmm;
use support::code::{answers, descriptor, payload, read, sandbox, set, write};
use support::vmm::{answer, call, call_with, load, request, send, status};
use support::{sealed, spec};
use warren_abi::boot::BOOT_MAGIC;
use warren_abi::mailbox::{LOG_OFFSET, REPLY_HEADER_OFFSET};
use warren_abi::window::{BOOT, HEAP, MAILBOX, STACK, TASK};
use warren_vmm_protocol::{ControlReply, ControlRequest, Outcome, VmState};

#[test]
fn what_is_mapped_is_there_to_its_last_byte() {
    needs_kvm!();
    assert_eq!(answers(&read(BOOT.base)), BOOT_MAGIC);
    assert_eq!(answers(&write(HEAP.base)), 0x5A);
    assert_eq!(answers(&write(HEAP.base + (32 << 20) - 8)), 0x5A);
    assert_eq!(answers(&write(STACK.base)), 0x5A);
}

#[test]
fn flags_and_segments_are_its_own_affair() {
    needs_kvm!();
    // cli, std, pushf, pop rax, ret: whatever the flags, the next event works.
    let (_vmm, _control, mut invoke) = sandbox(&[0xFD, 0x9C, 0x58, 0xFC, 0xC3]);
    for _ in 0..3 {
        assert_eq!(call(&mut invoke, &payload()).done.outcome, Outcome::Response);
    }
}

#[test]
fn vector_instructions_work_and_state_survives() {
    needs_kvm!();
    if !std::is_x86_feature_detected!("avx") {
        return;
    }
    // vpcmpeqd xmm1,xmm1,xmm1; vpaddq xmm0,xmm1,xmm1; vmovq rax,xmm0: -1 + -1
    let code = [0xC5, 0xF1, 0x76, 0xC9, 0xC5, 0xF1, 0xD4, 0xC1, 0xC4, 0xE1, 0xF9, 0x7E, 0xC0, 0xC3];
    assert_eq!(answers(&code), u64::MAX - 1);
    // vaddps ymm0,ymm1,ymm1 uses the upper halves.
    assert_eq!(answers(&[&[0xC5, 0xF4, 0x58, 0xC1][..], &set(7), &[0xC3]].concat()), 7);
}

#[test]
fn a_second_slot_when_the_class_is_too_small() {
    needs_kvm!();
    let vmm = Vmm::spawn_with(&support::guest::elf(), &["--class-mib", "32"]);
    let memory: u64 = 80 << 20;
    // Touches the last page of a heap that is split over both banks.
    let code = descriptor(&write(HEAP.base + memory - 8));
    let (task, code_fd) = (sealed(b"archive!"), sealed(&code));
    let mut request = spec(code.len());
    (request.memory_bytes, request.task_len) = (memory, 8);
    let reply = load(&mut vmm.control(), &request, &[&code_fd, &task]);
    assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
    let mut invoke = vmm.invoke();
    for _ in 0..2 {
        assert_eq!(call(&mut invoke, &payload()).payload[0], 0x5A);
    }
}

#[test]
fn files_are_where_they_should_be() {
    needs_kvm!();
    let vmm = Vmm::spawn(&support::guest::elf());
    let code = descriptor(&read(TASK.base));
    let mut request = spec(code.len());
    request.task_len = 8;
    load(&mut vmm.control(), &request, &[&sealed(&code), &sealed(b"archive!")]);
    assert_eq!(call(&mut vmm.invoke(), &payload()).payload, b"archive!");
}

#[test]
fn a_spinning_guest_is_stopped_and_its_log_saved() {
    needs_kvm!();
    // Writes "Z" to the log area and 1 to log_len, then spins.
    let log = MAILBOX.base + LOG_OFFSET;
    let len = MAILBOX.base + REPLY_HEADER_OFFSET + 20;
    let code = [set(log), vec![0xC6, 0, b'Z'], set(len), vec![0xC6, 0, 1, 0xEB, 0xFE]].concat();
    let (vmm, _control, mut invoke) = sandbox(&code);
    let back = call_with(&mut invoke, &payload(), 50);
    assert_eq!((back.done.outcome, back.log.as_slice()), (Outcome::TimedOut, &b"Z"[..]));
    assert!(back.done.handler_us >= 50_000);
    vmm.ends(20, "end: timed-out");
}

#[test]
fn a_timer_left_over_from_an_earlier_event_stops_nothing() {
    needs_kvm!();
    let (vmm, _control) = Vmm::loaded(b"R");
    let mut invoke = vmm.invoke();
    assert_eq!(call_with(&mut invoke, b".", 30).done.outcome, Outcome::Response);
    let done = call_with(&mut invoke, b"s", 200).done;
    assert_eq!(done.outcome, Outcome::TimedOut);
    assert!(done.handler_us >= 200_000, "stopped by the first event's timer: {done:?}");
}

#[test]
fn huge_pages_are_only_advice() {
    needs_kvm!();
    let vmm = Vmm::spawn_with(&support::guest::elf(), &["--huge-pages"]);
    let code = descriptor(&write(HEAP.base + 0x12_3000));
    let reply = load(&mut vmm.control(), &spec(code.len()), &[&sealed(&code)]);
    assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
    assert_eq!(call(&mut vmm.invoke(), &payload()).payload[0], 0x5A);
}

#[test]
fn a_flood_of_log_flushes_ends_with_the_deadline() {
    needs_kvm!();
    // kind = 4, log_len = 1, doorbell, again and again.
    let header = MAILBOX.base + REPLY_HEADER_OFFSET;
    let code = [
        set(header),
        vec![0xC7, 0x00, 4, 0, 0, 0, 0xC7, 0x40, 20, 1, 0, 0, 0],
        vec![0x66, 0xBA, 0x0B, 0x0D, 0xEE, 0xEB, 0xEC],
    ]
    .concat();
    let (vmm, _control, mut invoke) = sandbox(&code);
    let back = call_with(&mut invoke, &payload(), 100);
    assert_eq!(back.done.outcome, Outcome::TimedOut);
    assert!(back.log.len() > 10 && back.done.exits >= back.log.len() as u64, "{:?}", back.done);
    vmm.ends(20, "end: timed-out");
}

#[test]
fn shutdown_in_every_state() {
    needs_kvm!();
    // Empty, initialising, idle, busy.
    for state in [VmState::Empty, VmState::Initialising, VmState::Idle, VmState::Busy] {
        let vmm = Vmm::spawn(&support::guest::elf());
        let mut control = vmm.control();
        let mut invoke = vmm.invoke();
        if state != VmState::Empty {
            let first = if state == VmState::Initialising { b"s" } else { b"R" };
            let code = sealed(first);
            support::vmm::send_load(&mut control, &spec(1), &[&code]);
            if state != VmState::Initialising {
                support::vmm::receive::<ControlReply>(&mut control);
            }
        }
        if state == VmState::Busy {
            send(&mut invoke, &request(1, 20_000));
            invoke.write_all(b"s").unwrap();
        }
        while status(&mut control).state != state {}
        send(&mut control, &ControlRequest::Shutdown);
        assert_eq!(support::vmm::receive::<ControlReply>(&mut control), ControlReply::Stopping);
        if state == VmState::Busy {
            assert_eq!(answer(&mut invoke).done.outcome, Outcome::Stopped);
        }
        vmm.ends(0, "end: shutdown");
    }
}
