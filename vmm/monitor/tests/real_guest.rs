//! The real guest program under the real monitor. The suite needs two programs that are built elsewhere, the guest and
//! `warren-compile`: `cargo xtask build` collects them, `WARREN_GUEST_IMAGE` and `WARREN_COMPILE` name others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use support::vmm::{Invocation, call, call_with, load, send, status};
use support::{Vmm, sealed, spec};
use warren_vmm_protocol::{ControlReply, ControlRequest, FunctionError, LoadError, Outcome, VmState};

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

/// A program that another part of the tree builds: named by `variable`, or collected by `cargo xtask build`.
fn path(variable: &str, name: &str) -> PathBuf {
    let collected = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/warren/bin").join(name);
    let path = std::env::var_os(variable).map_or(collected, PathBuf::from);
    assert!(path.is_file(), "{} is not there: run `cargo xtask build`, or set {variable}", path.display());
    path
}

fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| std::fs::read(path("WARREN_GUEST_IMAGE", "warren-guest")).unwrap())
}

fn compile(text: &str) -> Vec<u8> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let id = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let base = std::env::temp_dir().join(format!("warren-guest-test-{}-{id}", std::process::id()));
    let (module, code) = (base.with_extension("wasm"), base.with_extension("code"));
    std::fs::write(&module, wat::parse_str(text).unwrap()).unwrap();
    let run = std::process::Command::new(path("WARREN_COMPILE", "warren-compile"))
        .args(["file", "--isa", "baseline", "--purpose", "function", "--out"])
        .args([&code, &module])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let bytes = std::fs::read(&code).unwrap();
    for file in [module, code] {
        std::fs::remove_file(file).unwrap();
    }
    bytes
}

fn load_code(code: &[u8]) -> (Vmm, std::os::unix::net::UnixStream, ControlReply) {
    let vmm = Vmm::spawn(image());
    let mut control = vmm.control();
    let reply = load(&mut control, &spec(code.len()), &[&sealed(code)]);
    (vmm, control, reply)
}

fn function(text: &str) -> (Vmm, std::os::unix::net::UnixStream) {
    let (vmm, control, reply) = load_code(&compile(text));
    assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
    (vmm, control)
}

fn error_of(back: Invocation) -> FunctionError {
    match back.done.outcome {
        Outcome::Function { error, .. } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn echoes_from_nothing_to_six_mebibytes() {
    needs_kvm!();
    let (vmm, _control) = function(ECHO);
    let mut invoke = vmm.invoke();
    for len in [0_u32, 1, 5, 70_000, 6 << 20] {
        let payload: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
        let back = call(&mut invoke, &payload);
        assert_eq!(back.done.outcome, Outcome::Response);
        assert!(back.payload == payload, "{len}");
        assert_eq!(back.done.exits, 1);
    }
}

#[test]
fn a_thousand_warm_events_and_a_clean_end() {
    needs_kvm!();
    let (vmm, mut control) = function(ECHO);
    let mut invoke = vmm.invoke();
    for i in 0..1000_u32 {
        assert_eq!(call(&mut invoke, &i.to_le_bytes()).payload, i.to_le_bytes());
    }
    let now = status(&mut control);
    assert_eq!((now.state, now.invocations, now.exits), (VmState::Idle, 1000, 1001));
    send(&mut control, &ControlRequest::Shutdown);
    vmm.ends(0, "end: shutdown");
}

#[test]
fn the_functions_own_failures_leave_the_sandbox() {
    needs_kvm!();
    for (text, error) in [(TRAP, FunctionError::Trap), (RECURSE, FunctionError::StackOverflow)] {
        let (vmm, _control) = function(text);
        let mut invoke = vmm.invoke();
        for _ in 0..3 {
            assert_eq!(error_of(call(&mut invoke, b"")), error);
        }
    }
}

#[test]
fn logs_come_out() {
    needs_kvm!();
    let (vmm, _control) = function(LOG);
    let back = call(&mut vmm.invoke(), b"");
    assert_eq!((back.log.as_slice(), back.payload.as_slice()), (&b"hello\n"[..], &b""[..]));
}

#[test]
fn a_function_that_spins_is_stopped() {
    needs_kvm!();
    let (vmm, _control) = function(SPIN);
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
