//! A guest that breaks the contract dies by name; the process ends with status 21, and nothing else happens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use std::io::Write;
use support::Vmm;
use support::code::{answers, descriptor, dies, jump, payload, read, sandbox, set, write};
use support::vmm::{answer, call, call_with, load, request, send, status};
use support::{sealed, spec};
use warren_abi::boot::BOOT_MAGIC;
use warren_abi::mailbox::{LOG_OFFSET, REPLY_HEADER_OFFSET};
use warren_abi::window::{BOOT, CODE, HEAP, MAILBOX, PROGRAM, STACK, SUPERVISOR, TASK};
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError, Outcome, VmState};

#[test]
fn reply_headers_that_lie() {
    needs_kvm!();
    // kind, error, exit code, detail, payload, log
    for (words, reason) in [
        ([0_u32, 0, 0, 0, 0, 0], "Kind(0)"),
        ([6, 0, 0, 0, 0, 0], "Kind(6)"),
        ([u32::MAX, 0, 0, 0, 0, 0], "Kind(4294967295)"),
        ([3, 0, 0, 0, 0, 0], "Error(0)"),
        ([3, 99, 0, 0, 0, 0], "Error(99)"),
        ([2, 0, 0, 0, (6 << 20) + 1, 0], "Payload(6291457)"),
        ([2, 0, 0, 0, u32::MAX, 0], "Payload(4294967295)"),
        ([3, 1, 0, 0x4001, 0, 0], "Detail(16385)"),
        ([2, 0, 0, 0, 0, 0x4_0001], "Log(262145)"),
        ([4, 0, 0, 0, 0, u32::MAX], "Log(4294967295)"),
        ([1, 0, 0, 0, 0, 0], "ready again"),
        ([5, 0, 0, 2, 0, 0], "guest program panicked: no"),
    ] {
        let (vmm, _control) = Vmm::loaded(b"R");
        let mut payload = vec![b'h'];
        payload.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        payload.extend([0xFF; 16]);
        let done = call(&mut vmm.invoke(), &payload).done;
        let Outcome::Guest(text) = done.outcome else { panic!("{words:?}: {:?}", done.outcome) };
        assert!(text.contains(reason), "{text:?} lacks {reason:?}");
        vmm.ends(21, reason);
    }
}

#[test]
fn memory_is_as_mapped_and_nothing_more() {
    needs_kvm!();
    let stack_top = STACK.base + STACK.max_len;
    let heap_end = HEAP.base + (32 << 20);
    for (what, code, address) in [
        ("read null", read(0), 0),
        ("read the GDT", read(SUPERVISOR.base), SUPERVISOR.base),
        ("read the IDT", read(0x2000), 0x2000),
        ("read the stubs", read(0x3000), 0x3000),
        ("write the exception stack", write(0x4800), 0x4800),
        ("read a page table", read(0x5000), 0x5000),
        ("write the boot page", write(BOOT.base), BOOT.base),
        ("write the program", write(PROGRAM.base), PROGRAM.base),
        ("write the code", write(CODE.base), CODE.base),
        ("read beyond the code", read(CODE.base + 0x1000), CODE.base + 0x1000),
        ("read the absent task archive", read(TASK.base), TASK.base),
        ("read beyond the mailbox", read(MAILBOX.base + warren_abi::mailbox::MAILBOX_LEN), 0x1E0_0000),
        ("read below the stack", read(STACK.base - 8), STACK.base - 8),
        ("read above the stack", read(stack_top), stack_top),
        ("read beyond the heap", read(heap_end), heap_end),
        ("run the heap", jump(HEAP.base), HEAP.base),
        ("run the mailbox", jump(MAILBOX.base + 0x10_0000), MAILBOX.base + 0x10_0000),
        ("run the stack", jump(STACK.base), STACK.base),
        ("run the boot page", jump(BOOT.base), BOOT.base),
    ] {
        dies(what, &code, &format!("address {address:#x}"));
    }
    assert_eq!(answers(&read(BOOT.base)), BOOT_MAGIC);
    assert_eq!(answers(&write(HEAP.base)), 0x5A);
    assert_eq!(answers(&write(heap_end - 8)), 0x5A);
    assert_eq!(answers(&write(STACK.base)), 0x5A);
}

#[test]
fn instructions_that_are_not_for_it() {
    needs_kvm!();
    for (what, code) in [
        ("ud2", vec![0x0F, 0x0B]),
        ("divide by zero", vec![0x31, 0xC9, 0xF7, 0xF1]),
        ("hlt", vec![0xF4]),
        ("rdmsr", vec![0x0F, 0x32]),
        ("wrmsr", vec![0x0F, 0x30]),
        ("mov cr3", vec![0x0F, 0x22, 0xD8]),
        ("mov rax, cr0", vec![0x0F, 0x20, 0xC0]),
        ("lgdt", vec![0x0F, 0x01, 0x14, 0x24]),
        ("ltr", vec![0x0F, 0x00, 0xD8]),
        ("invlpg", vec![0x0F, 0x01, 0x38]),
        ("wbinvd", vec![0x0F, 0x09]),
        ("syscall", vec![0x0F, 0x05]),
        ("int 0x80", vec![0xCD, 0x80]),
        ("int 14", vec![0xCD, 0x0E]),
        ("in", vec![0xE4, 0x60]),
        ("out", vec![0xE6, 0x60]),
        ("in from the doorbell", vec![0x66, 0xBA, 0x0B, 0x0D, 0xED]),
        ("out beyond the doorbell", vec![0x66, 0xBA, 0x0F, 0x0D, 0xEE]),
        ("a made-up exception", vec![0x66, 0xBA, 0x0E, 0x0D, 0xEF]),
        ("vmcall", vec![0x0F, 0x01, 0xC1]),
        ("vmmcall", vec![0x0F, 0x01, 0xD9]),
        ("vmrun", vec![0x0F, 0x01, 0xD8]),
    ] {
        let code = [set(0), code, vec![0x0F, 0x0B]].concat();
        dies(what, &code, "");
    }
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
fn init_in_every_wrong_way() {
    needs_kvm!();
    for (first, code) in [(b'E', 22), (b'P', 21), (b'r', 21), (b'f', 21), (b's', 20)] {
        let vmm = Vmm::spawn(&support::guest::elf());
        let mut control = vmm.control();
        let mut request = spec(1);
        request.init_timeout_ms = if first == b's' { 50 } else { 20_000 };
        let reply = load(&mut control, &request, &[&sealed(&[first])]);
        let ControlReply::LoadFailed { reason, .. } = reply else { panic!("{reply:?}") };
        let expected = match (first, &reason) {
            (b'E', LoadError::Function { error, detail }) => error.name() == "init" && detail == "no",
            (b'P', LoadError::Guest(text)) => text.contains("panicked: no"),
            (b'r', LoadError::Guest(text)) => text.contains("a response to no event"),
            (b'f', LoadError::Guest(text)) => text.contains("exception 6"),
            (b's', LoadError::TimedOut) => true,
            _ => false,
        };
        assert!(expected, "{}: {reason:?}", char::from(first));
        vmm.ends(code, "end: ");
    }
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
