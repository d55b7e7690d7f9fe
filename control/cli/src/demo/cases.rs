//! The demo's functions: what goes in, and what must come out.

use super::generate;
use std::path::Path;
use warren_client::{Failure, Outcome};

/// One function.
pub(crate) struct Case {
    /// Its name when deployed.
    pub name: &'static str,
    /// The module's file name without `.wasm`.
    pub module: &'static str,
    /// Memory it is given.
    pub memory_mib: u32,
    /// Arguments after the program's name.
    pub args: &'static [&'static str],
    /// Makes the event; gets the directory of samples.
    pub input: fn(&Path) -> Outcome<Vec<u8>>,
    /// Says what is wrong with an answer to that event.
    pub check: fn(&[u8], &[u8]) -> Result<(), String>,
}

/// Entries of the generated catalogue: about 4 MB of JSON.
const CATALOGUE: u64 = 40_000;

/// All of them, in the order of the demo.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "hello",
        module: "hello",
        memory_mib: 128,
        args: &[],
        input: |_| Ok(br#"{"name":"Warren"}"#.to_vec()),
        check: |_, output| contains(output, "Warren"),
    },
    Case {
        name: "thumbnail",
        module: "thumbnail",
        memory_mib: 256,
        args: &[],
        input: |samples| sample(samples, "photo.jpg"),
        check: smaller_png,
    },
    Case {
        name: "markdown",
        module: "markdown",
        memory_mib: 128,
        args: &[],
        // The project's own front page.
        input: |samples| sample(samples, "../../../README.md"),
        check: |_, output| contains(output, "<h1>Warren</h1>"),
    },
    Case {
        name: "jq",
        module: "jq",
        memory_mib: 512,
        // An unmodified published program: its filter is an argument, the document comes on standard input.
        args: &["-c", "[.items[] | select(.stock > 500) | .price] | {count: length, sum: add}"],
        input: |_| Ok(generate::catalogue(CATALOGUE)),
        check: |_, output| contains(output, &generate::answer(CATALOGUE)),
    },
    Case {
        name: "fib",
        module: "fib",
        memory_mib: 128,
        args: &[],
        input: |_| Ok(br#"{"n":25}"#.to_vec()),
        check: |_, output| contains(output, "75025"),
    },
];

/// A file of the samples.
fn sample(samples: &Path, name: &str) -> Outcome<Vec<u8>> {
    let path = samples.join(name);
    std::fs::read(&path).map_err(|error| Failure::io(format!("cannot read {}", path.display()), error))
}

fn contains(output: &[u8], needle: &str) -> Result<(), String> {
    let text = std::str::from_utf8(output).map_err(|_| "not UTF-8".to_owned())?;
    if text.contains(needle) {
        Ok(())
    } else {
        Err(format!("{needle:?} is not in {:?}", generate::start(text)))
    }
}

/// A PNG by its signature and header (PNG specification, sections 5.2 and 11.2.2), its longer side 128 pixels.
fn smaller_png(_: &[u8], output: &[u8]) -> Result<(), String> {
    let header = output.get(..24).ok_or("too short for a PNG")?;
    if !header.starts_with(b"\x89PNG\r\n\x1a\n") || header.get(12..16) != Some(b"IHDR") {
        return Err("no PNG".into());
    }
    let side = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    };
    match (side(16), side(20)) {
        (width @ 1..=128, height @ 1..=128) if width == 128 || height == 128 => Ok(()),
        (width, height) => Err(format!("a PNG of {width} x {height}")),
    }
}
