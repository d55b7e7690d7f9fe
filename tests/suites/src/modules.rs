//! WASI preview 1 modules that behave in one certain way, as text.

/// Everything of WASI a module here uses, one page of memory, and a `_start` with this body.
fn program(body: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "{{\"ok\":true}}")
  (data (i32.const 128) "\ff\fe\fd")
  ;; Writes [$at, $at + $length) to descriptor $fd.
  (func $write (param $fd i32) (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func (export "_start") {body}))"#
    )
}

/// Answers `{"ok":true}`.
#[must_use]
pub fn good() -> String {
    program("(call $write (i32.const 1) (i32.const 64) (i32.const 11))")
}

/// Traps.
#[must_use]
pub fn trap() -> String {
    program("unreachable")
}

/// Never ends.
#[must_use]
pub fn spin() -> String {
    program("(loop $again (br $again))")
}

/// Traps when the event is `t`, spins when it is `s`, exits with 7 when it is `e`; else answers well.
#[must_use]
pub fn obedient() -> String {
    program(
        r"(local $byte i32)
    (i32.store (i32.const 0) (i32.const 256))
    (i32.store (i32.const 4) (i32.const 1))
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $byte (i32.load8_u (i32.const 256)))
    (if (i32.eq (local.get $byte) (i32.const 116)) (then unreachable))
    (if (i32.eq (local.get $byte) (i32.const 115)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $byte) (i32.const 101)) (then (call $proc_exit (i32.const 7))))
    (call $write (i32.const 1) (i32.const 64) (i32.const 11))",
    )
}

/// Takes memory until there is none, then traps.
#[must_use]
pub fn hoard() -> String {
    program(
        r"(local $at i32)
    (loop $again
      (local.set $at (memory.grow (i32.const 16)))
      (if (i32.ne (local.get $at) (i32.const -1))
        (then
          (i32.store (i32.mul (local.get $at) (i32.const 65536)) (i32.const 1))
          (br $again))))
    unreachable",
    )
}

/// Calls itself without end.
#[must_use]
pub fn recurse() -> String {
    program("(drop (call $recurse (i32.const 0)))")
}

/// Writes without end to standard output.
#[must_use]
pub fn flood() -> String {
    program("(loop $again (call $write (i32.const 1) (i32.const 0) (i32.const 65536)) (br $again))")
}

/// Exits with this code.
#[must_use]
pub fn exit(code: u8) -> String {
    program(&format!("(call $proc_exit (i32.const {code}))"))
}

/// Answers bytes that are no UTF-8.
#[must_use]
pub fn not_utf8() -> String {
    program("(call $write (i32.const 1) (i32.const 128) (i32.const 3))")
}

/// Writes one line to standard error, then answers well.
#[must_use]
pub fn talk() -> String {
    program(
        r"(i32.store8 (i32.const 75) (i32.const 10))
    (call $write (i32.const 2) (i32.const 64) (i32.const 12))
    (call $write (i32.const 1) (i32.const 64) (i32.const 11))",
    )
}

/// Answers sixteen random bytes, then the wall clock in nanoseconds.
pub const DRAWS: &str = r#"(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\18\00\00\00")
  (func (export "_start")
    (drop (call $random (i32.const 16) (i32.const 16)))
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 32)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// A component with this `init`, which may draw (`$random`: how many, where to) and leaves bytes from 64 on; every event is
/// answered with eight of them.
fn component(init: &str) -> String {
    format!(
        r#"(component
  (type $t (instance
    (type (record (field "request-id" string) (field "function-name" string)
      (field "function-version" u64) (field "remaining-ns" u64) (field "memory-mib" u32)))
    (export "context" (type (eq 0)))))
  (import "warren:function/types@0.1.0" (instance $types (type $t)))
  (alias export $types "context" (type $context))
  (import "warren:function/host@0.1.0" (instance $host
    (export "random" (func (param "len" u32) (result (list u8))))))
  (core module $library
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $library (instantiate $library))
  (core func $random (canon lower (func $host "random") (memory $library "memory")
    (realloc (func $library "realloc"))))
  (core module $function
    (import "library" "memory" (memory 2))
    (import "host" "random" (func $random (param i32 i32)))
    (data (i32.const 64) "warrened")
    (func $well (param $at i32) (param $len i32) (result i32)
      (i32.store8 (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (local.get $at))
      (i32.store (i32.const 24) (local.get $len))
      (i32.const 16))
    (func (export "init") (result i32) (local $n i64) {init}
      (call $well (i32.const 0) (i32.const 0)))
    (func (export "handle") (param i32 i32 i32 i32 i32 i32 i64 i64 i32) (result i32)
      (call $well (i32.const 64) (i32.const 8))))
  (core instance $i (instantiate $function
    (with "library" (instance $library))
    (with "host" (instance (export "random" (func $random))))))
  (func (export "init") (result (result (error string)))
    (canon lift (core func $i "init") (memory $library "memory") (realloc (func $library "realloc"))))
  (func (export "handle") (param "event" (list u8)) (param "context" $context)
      (result (result (list u8) (error string)))
    (canon lift (core func $i "handle") (memory $library "memory") (realloc (func $library "realloc")))))"#
    )
}

/// A component that answers what it drew in `init`.
#[must_use]
pub fn drawn_in_init() -> String {
    component(
        "(call $random (i32.const 8) (i32.const 40))
      (i64.store (i32.const 64) (i64.load (i32.load (i32.const 40))))",
    )
}

/// A component that holds two MiB that are not zero after `init`.
#[must_use]
pub fn large_after_init() -> String {
    component(
        "(drop (memory.grow (i32.const 32)))
      (memory.fill (i32.const 131072) (i32.const 7) (i32.const 2097152))",
    )
}

/// A component whose `init` traps.
#[must_use]
pub fn traps_in_init() -> String {
    component("unreachable")
}

/// A component whose `init` never ends.
#[must_use]
pub fn endless_in_init() -> String {
    component("(loop $again (br $again))")
}

/// A component whose `init` takes a while; it answers `warrened`.
#[must_use]
pub fn slow_in_init() -> String {
    component(
        "(loop $again
      (local.set $n (i64.add (local.get $n) (i64.const 1)))
      (br_if $again (i64.lt_u (local.get $n) (i64.const 2000000000))))",
    )
}

/// Imports what nobody offers.
pub const ODD_IMPORT: &str = r#"(module (import "env" "secret" (func)) (memory (export "memory") 1)
  (func (export "_start")))"#;

/// Exports no handler.
pub const NO_HANDLER: &str = r#"(module (memory (export "memory") 1) (func (export "other")))"#;

/// Wants 512 MiB from its first moment.
pub const WANTS_MUCH: &str = r#"(module (memory (export "memory") 8192) (func (export "_start")))"#;

/// One function that takes a compiler very long: half a million locals' worth of live values across nested loops.
#[must_use]
pub fn compile_bomb() -> String {
    let depth = 3_000;
    let open = "(block (loop (br_if 1 (local.get 0)) ".repeat(depth);
    let work = "(local.set 1 (i64.mul (i64.add (local.get 1) (local.get 2)) (i64.xor (local.get 3) (local.get 1))))\n"
        .repeat(120_000);
    let close = "(br_if 0 (local.get 0))))".repeat(depth);
    format!(
        r#"(module (memory (export "memory") 1)
  (func $f (param i32 i64 i64 i64) {open}{work}{close})
  (func (export "_start") (call $f (i32.const 1) (i64.const 1) (i64.const 2) (i64.const 3))))"#
    )
}

/// Components in components, deeper than anything needs.
#[must_use]
pub fn nested_components() -> String {
    // The assembler itself goes no deeper than a hundred.
    let depth = 50;
    format!("{}{}", "(component ".repeat(depth), ")".repeat(depth))
}

/// A component of a thousand core modules.
#[must_use]
pub fn many_modules() -> String {
    format!("(component {})", "(core module)".repeat(1_000))
}

/// A component with a type section of a hundred thousand types.
#[must_use]
pub fn many_types() -> String {
    format!("(component {})", "(type (func))".repeat(100_000))
}

/// A component that is small but for one function, on which a compiler works for very long.
#[must_use]
pub fn component_bomb() -> String {
    compile_bomb().replacen("(module ", "(component (core module ", 1) + ")"
}

/// Text to binary.
pub fn assemble(text: &str) -> anyhow::Result<Vec<u8>> {
    Ok(wat::parse_str(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_assemble() {
        for text in
            [good(), trap(), spin(), obedient(), hoard(), recurse(), flood(), exit(3), not_utf8(), talk()]
        {
            assemble(&text).unwrap();
        }
        for text in [
            ODD_IMPORT,
            NO_HANDLER,
            WANTS_MUCH,
            &compile_bomb(),
            &nested_components(),
            &many_modules(),
            &many_types(),
            &component_bomb(),
            DRAWS,
            &drawn_in_init(),
            &slow_in_init(),
            &traps_in_init(),
            &endless_in_init(),
        ] {
            assemble(text).unwrap();
        }
    }
}
