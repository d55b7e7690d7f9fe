//! The real guest program under the real monitor. The suite needs two programs that are built elsewhere, the guest and
//! `warren-compile`: `cargo xtask build` collects them, `WARREN_GUEST_IMAGE` and `WARREN_COMPILE` name others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use support::real::{compile, error_of, function, load_code};
use support::vmm::{call, call_with, send, status};
use support::{Life, sealed, spec};
use warren_vmm_protocol::{ControlReply, ControlRequest, FunctionError, LoadError, Outcome, VmState};

in_every_life!(
    no_event_sees_a_byte_of_another,
    a_failure_told_at_length_fits,
    echoes_from_nothing_to_six_mebibytes,
    a_thousand_warm_events_and_a_clean_end,
    the_functions_own_failures_leave_the_sandbox,
    logs_come_out,
    a_function_that_spins_is_stopped,
);

/// Copies stdin to stdout in pieces of 60,000 bytes.
const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\00\01\00\00\60\ea\00\00")
  (func (export "_start") (loop $more
    (i32.store (i32.const 4) (i32.const 60000))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (if (i32.load (i32.const 8)) (then
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $more))))))"#;
const TRAP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;
const RECURSE: &str = r#"(module (memory (export "memory") 1) (func $f (export "_start") (call $f)))"#;
const LOG: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00") (data (i32.const 16) "hello\n")
  (func (export "_start") (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// Event `w`: writes every byte of its memory beyond the first page, after growing it. Event `r`: grows the same way and
/// answers how many bytes there are not zero. Both answer eight bytes.
const SECRETS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 180)
  (table 64 funcref) (elem func $noop) (func $noop)
  (global $kept (mut i64) (i64.const 0))
  (data (i32.const 0) "\10\00\00\00\08\00\00\00")
  (func (export "_start") (local $at i32) (local $end i32) (local $sum i64)
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (memory.grow (i32.const 20)))
    (local.set $end (i32.mul (memory.size) (i32.const 65536)))
    (if (i32.eq (i32.load8_u (i32.const 16)) (i32.const 119))
      (then
        (global.set $kept (i64.const 7))
        (table.set (i32.const 3) (ref.func $noop))
        (memory.fill (i32.const 65536) (i32.const 165) (i32.sub (local.get $end) (i32.const 65536))))
      (else
        (local.set $at (i32.const 65536))
        (local.set $sum (i64.add (global.get $kept) (i64.extend_i32_u
          (i32.eqz (ref.is_null (table.get (i32.const 3)))))))
        (loop $more
          (local.set $sum (i64.add (local.get $sum)
            (i64.extend_i32_u (i32.ne (i32.load8_u (local.get $at)) (i32.const 0)))))
          (br_if $more (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $end))))))
    (i64.store (i32.const 16) (local.get $sum))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

fn no_event_sees_a_byte_of_another(life: Life) {
    let code = compile(SECRETS);
    let mut spec = spec(code.len());
    spec.memory_bytes = 64 << 20;
    spec.function.memory_limit_bytes = 32 << 20;
    let (vmm, _control) = life.give(&spec, &[&sealed(&code)]);
    let mut invoke = vmm.invoke();
    // Before anything was written, after everything was, and after the clean-up of what a reader left.
    for event in ["r", "w", "r", "r", "w", "w", "r"] {
        assert_eq!(call(&mut invoke, event.as_bytes()).payload, [0; 8], "{event}");
    }
}

fn a_failure_told_at_length_fits(life: Life) {
    // Names are the function's own; twenty frames of this one are more than there is memory for.
    let name = "n".repeat(90_000);
    let text = format!(
        r#"(module (memory (export "memory") 1) (func ${name} (param i32)
          (if (local.get 0) (then (call ${name} (i32.sub (local.get 0) (i32.const 1)))) (else unreachable)))
          (func (export "_start") (call ${name} (i32.const 40))))"#
    );
    let (vmm, _control) = function(life, &text);
    let mut invoke = vmm.invoke();
    for _ in 0..3 {
        let outcome = call(&mut invoke, b"").done.outcome;
        assert_eq!(error_of(&outcome), FunctionError::Trap);
        let Outcome::Function { detail, .. } = outcome else { unreachable!() };
        assert!(detail.len() <= 16 << 10 && detail.contains("nnnn"), "{}", detail.len());
    }
}

fn echoes_from_nothing_to_six_mebibytes(life: Life) {
    let (vmm, _control) = function(life, ECHO);
    let mut invoke = vmm.invoke();
    for len in [0_u32, 1, 5, 70_000, 6 << 20] {
        let payload: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
        let back = call(&mut invoke, &payload);
        assert_eq!(back.done.outcome, Outcome::Response);
        assert!(back.payload == payload, "{len}");
        assert_eq!(back.done.exits, 1);
    }
}

fn a_thousand_warm_events_and_a_clean_end(life: Life) {
    let (vmm, mut control) = function(life, ECHO);
    let mut invoke = vmm.invoke();
    for i in 0..1000_u32 {
        assert_eq!(call(&mut invoke, &i.to_le_bytes()).payload, i.to_le_bytes());
    }
    let now = status(&mut control);
    let exits = if life == Life::Built { 1001 } else { 1000 };
    assert_eq!((now.state, now.invocations, now.exits), (VmState::Idle, 1000, exits));
    send(&mut control, &ControlRequest::Shutdown);
    vmm.ends(0, "end: shutdown");
}

fn the_functions_own_failures_leave_the_sandbox(life: Life) {
    for (text, error) in [(TRAP, FunctionError::Trap), (RECURSE, FunctionError::StackOverflow)] {
        let (vmm, _control) = function(life, text);
        let mut invoke = vmm.invoke();
        for _ in 0..3 {
            assert_eq!(error_of(&call(&mut invoke, b"").done.outcome), error);
        }
    }
}

fn logs_come_out(life: Life) {
    let (vmm, _control) = function(life, LOG);
    let back = call(&mut vmm.invoke(), b"");
    assert_eq!((back.log.as_slice(), back.payload.as_slice()), (&b"hello\n"[..], &b""[..]));
}

fn a_function_that_spins_is_stopped(life: Life) {
    let (vmm, _control) = function(life, SPIN);
    assert_eq!(call_with(&mut vmm.invoke(), b"", 50).done.outcome, Outcome::TimedOut);
    vmm.ends(20, "end: timed-out");
}

#[test]
fn code_that_is_none_is_the_functions_fault() {
    needs_kvm!();
    let whole = compile(ECHO);
    for code in [vec![0; 4096], whole[..whole.len() / 2].to_vec()] {
        let (vmm, _control, reply) = load_code(&code);
        let ControlReply::LoadFailed { reason, .. } = reply else { panic!("{reply:?}") };
        assert!(matches!(reason, LoadError::Function { .. } | LoadError::Guest(_)), "{reason:?}");
        let (status, log) = vmm.wait();
        assert!(matches!(status, 21 | 22), "{status} {log}");
    }
}
