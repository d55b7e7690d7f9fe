//! Makes the functions that a plain build of this workspace does not, into `target/assembled`:
//! `hello-component.wasm` (a core module turned into a component) and `jq.wasm` (a published crate, built unmodified).
//!
//! Run as `cargo run --release --package assemble --target host-tuple`; work that is done is not done again.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The published program: `jaq` is a jq in Rust. Later releases carry a line editor that does not build for WASI; this
/// one builds as it is, without its allocator (a C library).
const PUBLISHED: &str = "jaq";
const PUBLISHED_VERSION: &str = "1.6.0";

fn main() -> Result<()> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = workspace.join("target");
    let assembled = target.join("assembled");
    fs::create_dir_all(&assembled)?;
    component(&workspace, &target, &assembled.join("hello-component.wasm"))?;
    published(&workspace, &target, &assembled.join("jq.wasm"))
}

/// wasm32-unknown-unknown has no WASI in it, so the component imports `warren:function/host` and nothing else.
fn component(workspace: &Path, target: &Path, out: &Path) -> Result<()> {
    let triple = "wasm32-unknown-unknown";
    cargo(workspace, &["build", "--release", "--package", "hello-component", "--target", triple])?;
    let module = fs::read(target.join(triple).join("release/hello_component.wasm"))?;
    let component = wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    replace(out, &component)
}

fn published(workspace: &Path, target: &Path, out: &Path) -> Result<()> {
    let root = target.join("published").join(format!("{PUBLISHED}-{PUBLISHED_VERSION}"));
    let built = root.join("bin").join(format!("{PUBLISHED}.wasm"));
    if !built.exists() {
        let version = ["--version", PUBLISHED_VERSION, "--locked", "--no-default-features"];
        let place = ["--target", "wasm32-wasip1", "--target-dir", text(target)?, "--root", text(&root)?];
        let words: Vec<&str> = ["install", PUBLISHED].into_iter().chain(version).chain(place).collect();
        cargo(workspace, &words)?;
    }
    replace(out, &fs::read(&built).with_context(|| format!("{} was not built", built.display()))?)
}

fn cargo(workspace: &Path, words: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(cargo).args(words).current_dir(workspace).status().context("cargo does not start")?;
    ensure!(status.success(), "cargo {} failed", words.join(" "));
    Ok(())
}

/// Leaves the file, and its time, alone when it has these contents already.
fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, contents)?;
    fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}
