//! The guest program of this tree and functions compiled for it, both collected by `cargo xtask build`.

use super::vmm::load;
use super::{Life, Vmm, sealed, spec};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use warren_vmm_protocol::{ControlReply, FunctionError, Outcome};

/// A program that another part of the tree builds: named by `variable`, or collected by `cargo xtask build`.
pub fn path(variable: &str, name: &str) -> PathBuf {
    let collected = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/warren").join(name);
    let path = std::env::var_os(variable).map_or(collected, PathBuf::from);
    assert!(path.is_file(), "{} is not there: run `cargo xtask build`, or set {variable}", path.display());
    path
}

pub fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| std::fs::read(path("WARREN_GUEST_IMAGE", "bin/warren-guest")).unwrap())
}

/// A function of `tests/functions`, as `cargo xtask build` left it; `variable` names another place.
pub fn module(variable: &str, name: &str) -> Vec<u8> {
    std::fs::read(path(variable, &format!("functions/{name}.wasm"))).unwrap()
}

/// Compiles text or binary; the compiler's words if it refuses.
pub fn try_compile(module: &[u8]) -> Result<Vec<u8>, String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = COUNT.fetch_add(1, Ordering::Relaxed);
    let base = std::env::temp_dir().join(format!("warren-guest-test-{}-{id}", std::process::id()));
    let (file, code) = (base.with_extension("wasm"), base.with_extension("code"));
    std::fs::write(&file, wat::parse_bytes(module).unwrap()).unwrap();
    let run = std::process::Command::new(path("WARREN_COMPILE", "bin/warren-compile"))
        .args(["file", "--isa", "baseline", "--purpose", "function", "--out"])
        .args([&code, &file])
        .output()
        .unwrap();
    std::fs::remove_file(file).unwrap();
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned());
    }
    let bytes = std::fs::read(&code).unwrap();
    std::fs::remove_file(code).unwrap();
    Ok(bytes)
}

pub fn compile(text: &str) -> Vec<u8> {
    try_compile(text.as_bytes()).unwrap()
}

pub fn load_code(code: &[u8]) -> (Vmm, UnixStream, ControlReply) {
    let vmm = Vmm::spawn(image());
    let mut control = vmm.control();
    let reply = load(&mut control, &spec(code.len()), &[&sealed(code)]);
    (vmm, control, reply)
}

/// A sandbox of the function in `text`.
pub fn function(life: Life, text: &str) -> (Vmm, UnixStream) {
    let code = compile(text);
    life.give(&spec(code.len()), &[&sealed(&code)])
}

/// Which failure of the function's own an outcome is.
pub fn error_of(outcome: &Outcome) -> FunctionError {
    match outcome {
        Outcome::Function { error, .. } => *error,
        other => panic!("{other:?}"),
    }
}
