//! Functions of the component world under the real guest: good ones, and those that fail in every way they can.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use rustix::fs::ftruncate;
use support::real::{compile, error_of, image, module, try_compile};
use support::vmm::{Invocation, call, call_with, load, memfd, receive, send_with};
use support::{Life, Vmm, sealed, spec};
use warren_vmm_protocol::{ControlReply, ControlRequest, FunctionError, LoadError, LoadSpec, Outcome, World};

in_every_life!(
    the_real_one_keeps_its_state,
    failures_leave_the_sandbox,
    nothing_that_is_handed_out_needs_memory_that_is_not_there,
    a_handler_that_spins_is_stopped,
);

/// A component whose `init` is `INIT` and whose `handle` does what the first byte of its event says.
const COMPONENT: &str = r#"(component
  (type $t (instance
    (type (record (field "request-id" string) (field "function-name" string)
      (field "function-version" u64) (field "remaining-ns" u64) (field "memory-mib" u32)))
    (export "context" (type (eq 0)))))
  (import "warren:function/types@0.1.0" (instance $types (type $t)))
  (alias export $types "context" (type $context))
  (import "warren:function/host@0.1.0" (instance $host
    (export "log" (func (param "line" string)))
    (export "random" (func (param "len" u32) (result (list u8))))
    (export "write-file" (func (param "path" string) (param "contents" (list u8))
      (result (result (error string)))))))
  (core module $library
    (memory (export "memory") 2)
    (global $next (export "next") (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $library (instantiate $library))
  (core func $log (canon lower (func $host "log") (memory $library "memory")))
  (core func $write (canon lower (func $host "write-file") (memory $library "memory")
    (realloc (func $library "realloc"))))
  (core func $random (canon lower (func $host "random") (memory $library "memory")
    (realloc (func $library "realloc"))))
  (core module $function
    (import "library" "memory" (memory 2))
    (import "library" "next" (global $next (mut i32)))
    (import "host" "log" (func $log (param i32 i32)))
    (import "host" "random" (func $random (param i32 i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32 i32)))
    (data (i32.const 64) "fine")
    (data (i32.const 80) "/tmp/f")
    (data (i32.const 96) "\ff\fe")
    (func $answer (param $kind i32) (param $at i32) (param $len i32) (result i32)
      (global.set $next (i32.const 4096))
      (i32.store8 (i32.const 16) (local.get $kind))
      (i32.store (i32.const 20) (local.get $at))
      (i32.store (i32.const 24) (local.get $len))
      (i32.const 16))
    (func $eat (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))))
    (func (export "init") (result i32) INIT)
    (func $is (param i32 i32) (result i32) (i32.eq (i32.load8_u (local.get 0)) (local.get 1)))
    (func (export "handle") (param $event i32) (param i32 i32 i32 i32 i32 i64 i64 i32) (result i32)
      (if (call $is (local.get $event) (i32.const 0x74)) (then unreachable))
      (if (call $is (local.get $event) (i32.const 0x65)) (then (return (call $answer (i32.const 1) (i32.const 64) (i32.const 4)))))
      (if (call $is (local.get $event) (i32.const 0x62)) (then
        (drop (memory.grow (i32.const 110)))
        (return (call $answer (i32.const 0) (i32.const 0) (i32.const 6291457)))))
      (if (call $is (local.get $event) (i32.const 0x42)) (then
        (drop (memory.grow (i32.const 256)))
        (return (call $answer (i32.const 0) (i32.const 0) (i32.const 16000000)))))
      (if (call $is (local.get $event) (i32.const 0x6d)) (then
        (call $eat) (return (call $answer (i32.const 0) (i32.const 0) (i32.const 6291456)))))
      (if (call $is (local.get $event) (i32.const 0x4d)) (then
        (call $eat) (return (call $answer (i32.const 1) (i32.const 4096) (i32.const 6000000)))))
      (if (call $is (local.get $event) (i32.const 0x6c)) (then
        (call $eat) (call $log (i32.const 4096) (i32.const 6000000))))
      (if (call $is (local.get $event) (i32.const 0x77)) (then
        (call $eat) (call $write (i32.const 80) (i32.const 6) (i32.const 4096) (i32.const 6000000) (i32.const 32))
        (return (call $answer (i32.load8_u (i32.const 32)) (i32.const 64) (i32.const 4)))))
      (if (call $is (local.get $event) (i32.const 0x57)) (then
        (call $eat) (call $write (i32.const 4096) (i32.const 6000000) (i32.const 80) (i32.const 6) (i32.const 32))
        (return (call $answer (i32.load8_u (i32.const 32)) (i32.const 64) (i32.const 4)))))
      (if (call $is (local.get $event) (i32.const 0x75)) (then (return (call $answer (i32.const 1) (i32.const 96) (i32.const 2)))))
      (if (call $is (local.get $event) (i32.const 0x78)) (then (return (call $answer (i32.const 0) (i32.const -9) (i32.const 100)))))
      (if (call $is (local.get $event) (i32.const 0x73)) (then (loop $spin (br $spin))))
      (call $answer (i32.const 0) (i32.const 64) (i32.const 4))))
  (core instance $i (instantiate $function
    (with "library" (instance $library))
    (with "host" (instance (export "log" (func $log)) (export "random" (func $random)) (export "write" (func $write))))))
  (func (export "init") (result (result (error string)))
    (canon lift (core func $i "init") (memory $library "memory") (realloc (func $library "realloc")) ENCODING))
  HANDLE)"#;
const HANDLE: &str = r#"(func (export "handle") (param "event" (list u8)) (param "context" $context)
    (result (result (list u8) (error string)))
    (canon lift (core func $i "handle") (memory $library "memory") (realloc (func $library "realloc")) ENCODING))"#;
/// `init` that succeeds.
const WELL: &str = "(call $answer (i32.const 0) (i32.const 0) (i32.const 0))";

fn text(init: &str, handle: &str, encoding: &str) -> String {
    COMPONENT.replace("HANDLE", handle).replace("INIT", init).replace("ENCODING", encoding)
}

fn component(code: &[u8]) -> LoadSpec {
    let mut spec = spec(code.len());
    spec.function.world = World::Component;
    spec.memory_bytes = 64 << 20;
    spec.function.memory_limit_bytes = 64 << 20;
    spec.function.tmp_quota_bytes = 16 << 20;
    spec
}

fn started(life: Life, code: &[u8]) -> Vmm {
    life.give(&component(code), &[&sealed(code)]).0
}

fn is_fine(back: &Invocation) {
    assert_eq!((&back.done.outcome, back.payload.as_slice()), (&Outcome::Response, &b"fine"[..]));
}

fn the_real_one_keeps_its_state(life: Life) {
    let code = try_compile(&module("WARREN_HELLO_COMPONENT", "hello-component")).unwrap();
    let vmm = started(life, &code);
    let mut invoke = vmm.invoke();
    for seen in 1..=3 {
        let back = call(&mut invoke, b"Ada");
        assert_eq!(back.payload, format!(r#"{{"message":"Hello, Ada!","seen":{seen}}}"#).as_bytes());
        assert_eq!(back.done.exits, 1);
        assert!(String::from_utf8(back.log).unwrap().contains("greets Ada"));
    }
    assert_eq!(error_of(&call(&mut invoke, b"").done.outcome), FunctionError::Handler);
    assert_eq!(error_of(&call(&mut invoke, b"trap").done.outcome), FunctionError::Trap);
    // A new instance after the trap, in the same sandbox.
    assert!(call(&mut invoke, b"Ada").payload.ends_with(br#""seen":1}"#));
}

fn failures_leave_the_sandbox(life: Life) {
    let vmm = started(life, &compile(&text(WELL, HANDLE, "")));
    let mut invoke = vmm.invoke();
    is_fine(&call(&mut invoke, b"o"));
    for (event, error, words) in [
        ("t", FunctionError::Trap, "unreachable"),
        ("e", FunctionError::Handler, "fine"),
        ("b", FunctionError::ResponseTooLarge, "6291457"),
        ("B", FunctionError::ResponseTooLarge, "6 MiB"),
        ("u", FunctionError::Trap, "utf-8"),
        ("x", FunctionError::Trap, "out of bounds"),
    ] {
        let outcome = call(&mut invoke, event.as_bytes()).done.outcome;
        assert_eq!(error_of(&outcome), error, "{event}: {outcome:?}");
        assert!(format!("{outcome:?}").contains(words), "{event}: {outcome:?}");
        is_fine(&call(&mut invoke, b"o"));
    }
}

fn nothing_that_is_handed_out_needs_memory_that_is_not_there(life: Life) {
    let vmm = started(life, &compile(&text(WELL, HANDLE, "")));
    let mut invoke = vmm.invoke();
    // Each first takes all the memory it can get. `t` throws the instance away, and its memory with it.
    for round in 0..2 {
        let whole = call(&mut invoke, b"m");
        assert_eq!((&whole.done.outcome, whole.payload.len()), (&Outcome::Response, 6 << 20), "{round}");
        assert_eq!(error_of(&call(&mut invoke, b"M").done.outcome), FunctionError::Handler);
        is_fine(&call(&mut invoke, b"l"));
        for full in ["w", "W"] {
            // No room for the file, or no such path: the component's own answer, with the handler's error.
            assert_eq!(error_of(&call(&mut invoke, full.as_bytes()).done.outcome), FunctionError::Handler);
        }
        is_fine(&call(&mut invoke, b"o"));
        assert_eq!(error_of(&call(&mut invoke, b"t").done.outcome), FunctionError::Trap);
        is_fine(&call(&mut invoke, b"o"));
    }
}

#[test]
fn init_can_fail() {
    needs_kvm!();
    for (init, words) in [
        ("unreachable", "unreachable"),
        ("(call $answer (i32.const 1) (i32.const 64) (i32.const 4))", "fine"),
    ] {
        let code = compile(&text(init, HANDLE, ""));
        let vmm = Vmm::spawn(image());
        let reply = load(&mut vmm.control(), &component(&code), &[&sealed(&code)]);
        let ControlReply::LoadFailed { reason: LoadError::Function { error, detail }, .. } = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(error, FunctionError::Init);
        assert!(detail.contains(words), "{detail}");
        vmm.ends(22, "end: load-failed");
    }
}

/// What init drew, every copy would have.
#[test]
fn who_drew_in_init_is_not_written_down() {
    needs_kvm!();
    let drew = format!("(call $random (i32.const 8) (i32.const 40)) {WELL}");
    for (init, is_written) in [(WELL, true), (drew.as_str(), false)] {
        let code = compile(&text(init, HANDLE, ""));
        let (vmm, mut control) = Life::Built.give(&component(&code), &[&sealed(&code)]);
        let memory = memfd(&[]);
        ftruncate(&memory, 1 << 30).unwrap();
        send_with(&mut control, &ControlRequest::Snapshot, &[&memory]);
        match receive(&mut control) {
            ControlReply::Snapshot { .. } => assert!(is_written),
            ControlReply::NoSnapshot { reason } => {
                assert!(!is_written && reason.contains("random"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        is_fine(&call(&mut vmm.invoke(), b"o"));
    }
}

fn a_handler_that_spins_is_stopped(life: Life) {
    let vmm = started(life, &compile(&text(WELL, HANDLE, "")));
    assert_eq!(call_with(&mut vmm.invoke(), b"s", 50).done.outcome, Outcome::TimedOut);
    vmm.ends(20, "end: timed-out");
}

#[test]
fn the_compiler_refuses_what_the_guest_relies_on() {
    needs_kvm!();
    for (component, words) in [
        (text(WELL, "", ""), "handle"),
        (text(WELL, HANDLE, "string-encoding=utf16"), "UTF-8"),
        (text(WELL, HANDLE, "string-encoding=latin1+utf16"), "UTF-8"),
    ] {
        let refusal = try_compile(component.as_bytes()).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}
