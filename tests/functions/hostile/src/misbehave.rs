//! The ways to misbehave.

use serde_json::{Value, json};
use std::hint::black_box;
use std::io::{self, Write as _};

/// The trap itself, without a panic's message before it.
pub(crate) fn unreachable() -> ! {
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    std::process::abort();
}

/// Reads the last bytes of the 32-bit address space, which no memory here has.
#[allow(unsafe_code, reason = "a wild read is the point")]
pub(crate) fn read_out_of_bounds() -> u64 {
    let address = black_box(0xFFFF_FFF0_usize);
    // SAFETY: none is claimed. WebAssembly traps on this read; that it does is what a test looks at.
    unsafe { core::ptr::read_volatile(core::ptr::with_exposed_provenance(address)) }
}

pub(crate) fn recurse_without_end() -> u64 {
    // Neither a tail call nor an accumulator, so no compiler makes a loop of it.
    fn deeper(depth: u64, end: u64) -> u64 {
        if depth == end { depth } else { deeper(depth + 1, end).rotate_left(7) ^ depth }
    }
    deeper(0, black_box(u64::MAX))
}

pub(crate) fn spin() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

/// Keeps every megabyte it gets, touched; ends in the allocator's abort.
pub(crate) fn allocate_without_end() -> usize {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![0xA5_u8; 1 << 20]);
        if black_box(&kept).len() == usize::MAX {
            return kept.len();
        }
    }
}

/// The same, but takes a refusal for an answer: how many bytes there were.
pub(crate) fn allocate_checked() -> usize {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut block = Vec::new();
        if kept.try_reserve(1).is_err() || block.try_reserve_exact(1 << 20).is_err() {
            let blocks = kept.len();
            drop(kept);
            return blocks << 20;
        }
        block.resize(1 << 20, 0x5A);
        kept.push(black_box(block));
    }
}

pub(crate) fn flood_stdout() {
    let block = vec![b'x'; 64 << 10];
    let mut out = io::stdout().lock();
    while out.write_all(&block).is_ok() {}
    eprintln!("standard output refused more");
}

pub(crate) fn flood_stderr(mib: u64) {
    let mut line = vec![b'y'; 1023];
    line.push(b'\n');
    let mut log = io::stderr().lock();
    for _ in 0..mib << 10 {
        if log.write_all(&line).is_err() {
            return;
        }
    }
}

/// A JSON string of exactly this many bytes, quotes included.
pub(crate) fn answer_of(bytes: usize) {
    let mut text = vec![b'z'; bytes];
    if let [first, .., last] = text.as_mut_slice() {
        (*first, *last) = (b'"', b'"');
    }
    super::write_bytes(&text);
}

/// Writes files to /tmp until it is refused; says how far it came and removes them.
pub(crate) fn fill_tmp() -> Value {
    let block = vec![b't'; 1 << 20];
    let mut written = 0;
    let mut names = Vec::new();
    let error = loop {
        let name = format!("/tmp/fill-{}", names.len());
        let attempt = std::fs::write(&name, &block);
        names.push(name);
        match attempt {
            Ok(()) if names.len() < 16_384 => written += block.len(),
            Ok(()) => break "never refused".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    let removed = names.iter().filter(|name| std::fs::remove_file(name).is_ok()).count();
    json!({"written": written, "error": error, "files": names.len(), "removed": removed})
}

/// Log lines that are no lines and no text.
pub(crate) fn odd_log() {
    let mut log = io::stderr().lock();
    let _ = log.write_all(b"\xFF\xFE is not UTF-8\n\n\0 a zero, a bell \x07, an escape \x1b[31m\r\n");
    let _ = log.write_all(&vec![b'l'; 100_000]);
    let _ = log.write_all(b"\nno newline at the end");
}
