//! An agent that is wrong, slow, gone or back: the sandbox goes on, or refuses by name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use rustix::fd::OwnedFd;
use std::io::Write;
use support::code::{payload, sandbox};
use support::vmm::{call, echo, load, memfd, request, send, status, try_receive};
use support::{Vmm, sealed, spec};
use warren_abi::isa::IsaSet;
use warren_vmm_protocol::{
    ControlReply, ControlRequest, Hello, InvokeReply, LoadError, LoadSpec, Outcome, Role, VmState,
};

fn refused(change: impl Fn(&mut LoadSpec), descriptors: &[&OwnedFd], reason: &str) {
    let vmm = Vmm::spawn(&support::guest::elf());
    let mut control = vmm.control();
    let mut request = spec(1);
    change(&mut request);
    let reply = load(&mut control, &request, descriptors);
    let ControlReply::LoadFailed { reason: LoadError::Refused(text), .. } = reply else {
        panic!("{reply:?}")
    };
    assert!(text.contains(reason), "{text:?} lacks {reason:?}");
    vmm.ends(22, "end: load-failed");
}

#[test]
fn loads_that_are_refused() {
    needs_kvm!();
    let good = sealed(b"R");
    let pipe: OwnedFd = rustix::pipe::pipe().unwrap().0;
    let file: OwnedFd = std::fs::File::open("/proc/version").unwrap().into();
    refused(|_| (), &[], "0 descriptors came, 1 are needed");
    refused(|_| (), &[&good, &good], "2 descriptors came, 1 are needed");
    refused(|r| r.task_len = 1, &[&good], "1 descriptors came, 2 are needed");
    refused(|_| (), &[&memfd(b"R")], "not sealed");
    refused(|r| r.task_len = 1, &[&good, &memfd(b"t")], "task archive: the descriptor is not sealed");
    refused(|_| (), &[&pipe], "no memfd with seals");
    refused(|_| (), &[&file], "no memfd with seals");
    refused(|r| r.code_len = 2, &[&good], "the descriptor has 1 bytes, 2 were announced");
    refused(|r| r.code_len = 0, &[&good], "code of 0 bytes");
    refused(|r| r.memory_bytes = 0, &[&good], "memory of 0 bytes");
    refused(|r| r.memory_bytes = u64::MAX, &[&good], "memory of 18446744073709551615 bytes");
    refused(|r| r.isa = IsaSet(0), &[&good], "it must include");
    refused(|r| r.isa = IsaSet(u64::MAX), &[&good], "this host has");
    refused(|r| r.label = "../x".into(), &[&good], "label");
    let big = "x".repeat(70_000);
    refused(|r| r.function.env = vec![("BIG".into(), big.clone())], &[&good], "of 65536 bytes");
}

#[test]
fn a_second_load_is_refused_and_the_first_goes_on() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    let reply = load(&mut control, &spec(1), &[&sealed(b"R")]);
    assert!(matches!(reply, ControlReply::LoadFailed { reason: LoadError::Refused(_), .. }), "{reply:?}");
    echo(&mut vmm.invoke(), b".still");
}

#[test]
fn guest_programs_that_are_none() {
    needs_kvm!();
    let elf = support::guest::elf();
    let mut writable_code = elf.clone();
    writable_code[64 + 4] = 7;
    for (image, reason) in [
        (
            b"not an ELF file at all, but longer than a header, so that only the magic can say so".to_vec(),
            "not an ELF",
        ),
        (elf[..0x1010].to_vec(), "its bytes are not in the file"),
        (Vec::new(), "ends before"),
        (writable_code, "writable and executable"),
    ] {
        Vmm::spawn(&image).ends(23, reason);
    }
}

#[test]
fn an_agent_that_goes_away_in_the_middle_of_a_call_comes_back() {
    needs_kvm!();
    // A few hundred million turns, then ret.
    let slow = [0xB9, 0, 0, 0, 0x10, 0xFF, 0xC9, 0x75, 0xFC, 0xC3];
    let (vmm, mut control, mut invoke) = sandbox(&slow);
    send(&mut invoke, &request(9, 20_000));
    invoke.write_all(&payload()).unwrap();
    while status(&mut control).state != VmState::Busy {}
    assert_eq!(status(&mut control).running.as_deref(), Some("request-1"));
    drop((invoke, control));
    let mut control = vmm.control();
    let mut invoke = vmm.invoke();
    // Sent while the old event runs: served after it, and gets its own answer only.
    echo(&mut invoke, b".new");
    assert_eq!(status(&mut control).invocations, 2);
}

#[test]
fn a_newer_connection_replaces_the_older() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    let mut first = vmm.invoke();
    echo(&mut first, b".one");
    // Half a request on the old connection is forgotten with it.
    send(&mut first, &request(100, 1000));
    let mut second = vmm.invoke();
    echo(&mut second, b".two");
    assert!(try_receive::<InvokeReply>(&mut first).is_none());
    let mut newer = vmm.control();
    assert_eq!(status(&mut newer).invocations, 2);
    assert!(try_receive::<ControlReply>(&mut control).is_none());
}

#[test]
fn requests_out_of_protocol_cost_the_connection_only() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    let mut context = request(0, 1000);
    context.context = vec![b'x'; (64 << 10) + 1];
    for bytes in [
        warren_vmm_protocol::frame::encode(&request((6 << 20) + 1, 1000)).unwrap(),
        warren_vmm_protocol::frame::encode(&context).unwrap(),
        vec![0; 4],
        vec![0xFF; 64],
        vec![1, 0, 0, 0, 0xFF, 0xFF],
    ] {
        let mut invoke = vmm.invoke();
        invoke.write_all(&bytes).unwrap();
        assert!(try_receive::<InvokeReply>(&mut invoke).is_none(), "{bytes:x?}");
        let mut stranger = vmm.connect(Role::Control);
        stranger.write_all(&bytes).unwrap();
        assert!(try_receive::<ControlReply>(&mut stranger).is_none());
    }
    let mut old = vmm.stranger();
    send(&mut old, &Hello { version: 0, role: Role::Control });
    assert!(try_receive::<ControlReply>(&mut old).is_none());
    assert!(try_receive::<ControlReply>(&mut control).is_none(), "replaced by the strangers");
    echo(&mut vmm.invoke(), b".fine");
    assert_eq!(status(&mut vmm.control()).invocations, 1);
}

#[test]
fn silent_strangers_do_not_keep_others_out() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    let strangers: Vec<_> = (0..50).map(|_| vmm.stranger()).collect();
    echo(&mut vmm.invoke(), b".in");
    assert_eq!(status(&mut control).state, VmState::Idle);
    drop(strangers);
}

#[test]
fn descriptors_beyond_what_a_message_takes() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    let fd = sealed(b"x");
    support::vmm::send_load(&mut control, &spec(1), &[&fd, &fd, &fd, &fd]);
    assert!(try_receive::<ControlReply>(&mut control).is_none());
    echo(&mut vmm.invoke(), b".fine");
}

#[test]
fn an_agent_that_does_not_read_loses_the_result() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    let mut stuck = vmm.invoke();
    let payload = vec![b'.'; 6 << 20];
    send(&mut stuck, &request(payload.len(), 20_000));
    stuck.write_all(&payload).unwrap();
    while status(&mut control).invocations == 0 {}
    // The socket is full; a second connection waits until the first is given up.
    echo(&mut vmm.invoke(), b".next");
}

#[test]
fn shutdown_as_the_last_word() {
    needs_kvm!();
    let (vmm, mut control) = Vmm::loaded(b"R");
    send(&mut control, &ControlRequest::Shutdown);
    drop(control);
    vmm.ends(0, "end: shutdown");
}

#[test]
fn both_threads_are_sealed() {
    needs_kvm!();
    let (vmm, _control) = Vmm::loaded(b"R");
    assert_eq!(call(&mut vmm.invoke(), b".").done.outcome, Outcome::Response);
    let mut names = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", vmm.pid())).unwrap() {
        let text = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(':').trim().to_owned()
        };
        assert_eq!((field("Seccomp").as_str(), field("NoNewPrivs").as_str()), ("2", "1"), "{text}");
        assert_eq!(field("Seccomp_filters"), "2", "the start's filter and the thread's own: {text}");
        // Some kernels run a worker of KVM's as a task of the process; it is no thread of ours.
        if !field("Name").starts_with("kvm-") {
            names.push(field("Name"));
        }
    }
    names.sort();
    assert_eq!(names, ["vcpu", "warren-vmm"]);
}
