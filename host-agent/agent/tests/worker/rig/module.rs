//! Test functions, as text.

use std::fmt::Write as _;

/// A WASI preview 1 program that does what the first byte of its event says:
/// `t` trap, `s` spin, `e` exit 7, `n` invalid UTF-8, `l` log two lines and answer, `b` answer 7 MiB, `f` log 3 MiB,
/// `r` recurse, `m` take memory without end, `h` run for a quarter of a second, else echo the event.
pub(crate) fn obedient() -> Vec<u8> {
    obedient_as(0)
}

/// The same, of other bytes.
pub(crate) fn obedient_as(number: u32) -> Vec<u8> {
    let text = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
  (memory (export "memory") 130)
  (data (i32.const 64) "one\ntwo \ff\n")
  (func $write (param $fd i32) (param $at i32) (param $len i32)
    (local $rest i32)
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $len)))
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $len))
      (br_if $done (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
      (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 8))))
      (br $more))))
  (func $clock (result i64)
    (drop (call $now (i32.const 1) (i64.const 1) (i32.const 16)))
    (i64.load (i32.const 16)))
  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func (export "_start")
    (local $len i32) (local $what i32) (local $until i64) (local $page i32)
    (block $end (loop $more
      (i32.store (i32.const 0) (i32.add (i32.const 65536) (local.get $len)))
      (i32.store (i32.const 4) (i32.sub (i32.const 8388608) (local.get $len)))
      (br_if $end (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $end (i32.eqz (i32.load (i32.const 8))))
      (local.set $len (i32.add (local.get $len) (i32.load (i32.const 8))))
      (br $more)))
    (local.set $what (i32.load8_u (i32.const 65536)))
    (if (i32.eq (local.get $what) (i32.const 116)) (then unreachable))
    (if (i32.eq (local.get $what) (i32.const 115)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $what) (i32.const 101)) (then (call $proc_exit (i32.const 7))))
    (if (i32.eq (local.get $what) (i32.const 110))
      (then (call $write (i32.const 1) (i32.const 72) (i32.const 1)) (return)))
    (if (i32.eq (local.get $what) (i32.const 108))
      (then (call $write (i32.const 2) (i32.const 64) (i32.const 10))))
    (if (i32.eq (local.get $what) (i32.const 98))
      (then (call $write (i32.const 1) (i32.const 65536) (i32.const 7340032)) (return)))
    (if (i32.eq (local.get $what) (i32.const 102))
      (then (memory.fill (i32.const 65536) (i32.const 10) (i32.const 3145728))
            (call $write (i32.const 2) (i32.const 65536) (i32.const 3145728))))
    (if (i32.eq (local.get $what) (i32.const 114)) (then (drop (call $recurse (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 109))
      (then (loop $again
        (local.set $page (memory.grow (i32.const 16)))
        (if (i32.ne (local.get $page) (i32.const -1))
          (then (i32.store (i32.mul (local.get $page) (i32.const 65536)) (i32.const 1)) (br $again))))
        unreachable))
    (if (i32.eq (local.get $what) (i32.const 104))
      (then
        (local.set $until (i64.add (call $clock) (i64.const 250000000)))
        (loop $again (br_if $again (i64.lt_u (call $clock) (local.get $until))))))
    (call $write (i32.const 1) (i32.const 65536) (local.get $len))))"#;
    let text = text.replacen("(memory", &format!("(global i32 (i32.const {number})) (memory"), 1);
    wat::parse_str(text).unwrap()
}

/// Not the same code, for a version of its own.
pub(crate) fn variant(number: usize) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module (memory (export "memory") 1) (func (export "_start")) (global i32 (i32.const {number})))"#
    ))
    .unwrap()
}

pub(crate) const ODD_IMPORT: &str =
    r#"(module (import "env" "secret" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
pub(crate) const NO_HANDLER: &str = r#"(module (memory (export "memory") 1) (func (export "other")))"#;
pub(crate) const WANTS_MUCH: &str = r#"(module (memory (export "memory") 8192) (func (export "_start")))"#;

pub(crate) fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// One function that takes long to compile: loops in loops in loops.
pub(crate) fn slow_to_compile() -> Vec<u8> {
    let depth = 2_000;
    let (open, close) = ("(block (loop (br_if 1 (local.get 0)) ", "(br_if 0 (local.get 0))))");
    one_function(&format!("{}{}{}", open.repeat(depth), STEP.repeat(60_000), close.repeat(depth)))
}

/// One function that takes much memory to compile: thousands of values that live at once.
pub(crate) fn large_to_compile() -> Vec<u8> {
    let mut values = String::new();
    for at in 0..6_000 {
        write!(values, "(i64.load offset={at} (local.get 0)) ").unwrap();
    }
    one_function(&format!("{values} {} (local.set 1)", "i64.add ".repeat(5_999)))
}

/// A module whose artefact is larger than 128 KiB.
pub(crate) fn bulky() -> Vec<u8> {
    let data = "0123456789abcdef".repeat(16 << 10);
    wat(&format!(
        r#"(module (memory (export "memory") 8) (data (i32.const 0) "{data}") (func (export "_start")))"#
    ))
}

const STEP: &str =
    "(local.set 1 (i64.mul (i64.add (local.get 1) (local.get 2)) (i64.xor (local.get 3) (local.get 1))))";

fn one_function(body: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module (memory (export "memory") 1) (func $f (param i32 i64 i64 i64) {body})
           (func (export "_start") (call $f (i32.const 1) (i64.const 1) (i64.const 2) (i64.const 3))))"#
    ))
}
