//! Where things are in a checkout.

use std::path::{Path, PathBuf};

/// Target of everything that ships.
pub(crate) const MUSL: &str = "x86_64-unknown-linux-musl";
/// Target of the guest.
pub(crate) const BARE: &str = "x86_64-unknown-none";
/// Target of policies.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";
/// Target of functions.
pub(crate) const WASI: &str = "wasm32-wasip1";

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    // tests/xtask -> tests -> root; known at compile time, because xtask is rebuilt in each checkout.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or_else(|| Path::new(".")).to_owned()
}

/// Cargo's output directory of the main workspace.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// What `build` collects: `bin/`, `policies/`, `functions/`.
pub(crate) fn collected() -> PathBuf {
    root().join("target/warren")
}

/// One collected program.
pub(crate) fn program(name: &str) -> PathBuf {
    collected().join("bin").join(name)
}

/// One program of the workspace, where cargo puts it.
pub(crate) fn built(name: &str) -> PathBuf {
    target().join(MUSL).join("debug").join(name)
}
