//! The module of a function that keeps four megabytes in a file in `/tmp`, and what that file holds.

/// Bytes of the file.
pub(crate) const BYTES: u32 = 4 << 20;

/// As text. Event: offset and length, four bytes each; of length 0, the file is written. The answer: so many bytes of it.
pub(crate) const KEEPER: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 20)
  (data (i32.const 0) "data")
  (func $must (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
  (func $vector (param i32 i32)
    (i32.store (i32.const 16) (local.get 0))
    (i32.store (i32.const 20) (local.get 1)))
  (func $fill (param $word i32) (local $at i32)
    (loop $next
      (i32.store (i32.add (i32.const 65536) (local.get $at)) (local.get $word))
      (local.set $word (i32.add (i32.mul (local.get $word) (i32.const 1664525)) (i32.const 1013904223)))
      (local.set $at (i32.add (local.get $at) (i32.const 4)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 65536)))))
  (func (export "_start") (local $file i32) (local $block i32)
    (call $vector (i32.const 32) (i32.const 8))
    (call $must (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
    (call $must (call $open (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 4)
      (i32.eqz (i32.load (i32.const 36))) (i64.const 0x66) (i64.const 0) (i32.const 0) (i32.const 28)))
    (local.set $file (i32.load (i32.const 28)))
    (if (i32.eqz (i32.load (i32.const 36)))
      (then
        (loop $blocks
          (call $fill (i32.add (local.get $block) (i32.const 1)))
          (call $vector (i32.const 65536) (i32.const 65536))
          (call $must (call $write (local.get $file) (i32.const 16) (i32.const 1) (i32.const 24)))
          (local.set $block (i32.add (local.get $block) (i32.const 1)))
          (br_if $blocks (i32.lt_u (local.get $block) (i32.const 64)))))
      (else
        (call $must (call $seek (local.get $file) (i64.extend_i32_u (i32.load (i32.const 32)))
          (i32.const 0) (i32.const 40)))
        (call $vector (i32.const 131072) (i32.load (i32.const 36)))
        (call $must (call $read (local.get $file) (i32.const 16) (i32.const 1) (i32.const 24)))
        (call $vector (i32.const 131072) (i32.load (i32.const 24)))
        (call $must (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))))"#;

/// What the file holds.
pub(crate) fn expected(offset: u32, len: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in offset / 65_536..(offset + len).div_ceil(65_536) {
        let mut word = block + 1;
        for _ in 0..65_536 / 4 {
            bytes.extend(word.to_le_bytes());
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        }
    }
    let from = (offset % 65_536) as usize;
    bytes[from..from + len as usize].to_vec()
}
