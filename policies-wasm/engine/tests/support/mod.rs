//! Makes policies the way a host does, minus the jail: built for Wasm, componentised, compiled, signed.
#![allow(dead_code, reason = "no test file uses all of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use warren_artefact::settings::SETTINGS_VERSION;
use warren_artefact::{Artefact, Digest, Metadata, Purpose, SigningKey, VerifyingKey};
use warren_policy_engine::rules::Health;
use warren_policy_engine::{HostReport, Inventory, Kind, Limits, Policy, Runtime};

/// One runtime for all tests of a file, as in a process. The deadline is the longest there is: tests run on busy
/// machines and count failures, and none may come from a machine that was too busy to run a blameless policy.
pub(crate) static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| {
    let limits = Limits { decision_ms: Limits::LONGEST_MS, ..Limits::default() };
    Runtime::start(limits).expect("the runtime starts")
});

/// The built-in policy of that kind, loaded.
pub(crate) fn builtin(kind: Kind) -> Arc<Policy> {
    open(&component(&format!("warren-policy-{}", kind.as_str()), &[]))
}

/// The hostile policy of that kind, loaded.
pub(crate) fn hostile(kind: Kind) -> Arc<Policy> {
    open(&component("warren-policy-hostile", &["--features", kind.as_str()]))
}

/// Compiles, signs and opens a component.
pub(crate) fn open(component: &[u8]) -> Arc<Policy> {
    let (envelope, key) = artefact(component);
    Policy::open(&RUNTIME, "test", envelope, &[key]).expect("the policy opens")
}

/// Compiles a component and signs the code.
pub(crate) fn artefact(component: &[u8]) -> (Vec<u8>, VerifyingKey) {
    let isa = warren_compile::engine::host_isa();
    let (facts, code) =
        warren_compile::compile(component, Purpose::Policy, isa).expect("the component compiles");
    let metadata = Metadata {
        purpose: Purpose::Policy,
        world: facts.world,
        source: Digest::of(component),
        code: Digest::of(&code),
        code_len: facts.code_len,
        isa,
        wasmtime: "48.0.8".to_owned(),
        settings: SETTINGS_VERSION,
        memory: facts.memory,
        imports: facts.imports,
        created_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    let key = SigningKey::from_secret(&zeroize::Zeroizing::new([7; 32]));
    let artefact = Artefact::sign(&metadata, &code, &key).expect("the artefact is signed");
    (artefact.envelope().to_vec(), key.verifying_key())
}

/// Builds a policy crate of this workspace into a component.
pub(crate) fn component(package: &str, options: &[&str]) -> Vec<u8> {
    // One output file for all features of a crate: build and read are one step.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = Command::new(env!("CARGO"))
        .current_dir(&workspace)
        .args(["rustc", "--quiet", "--package", package, "--release"])
        .args(["--target", "wasm32-unknown-unknown", "--crate-type", "cdylib"])
        .args(options)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "{package} does not build");
    let name = format!("{}.wasm", package.replace('-', "_"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from);
    let module =
        std::fs::read(target.join("wasm32-unknown-unknown/release").join(name)).expect("it is there");
    warren_policy_tool::componentize(&module).expect("it makes a component").component
}

/// `count` hosts in three zones, a third of them in use.
pub(crate) fn fleet(count: u32) -> Arc<Inventory> {
    let inventory = Inventory::new();
    for number in 0..count {
        inventory.report(&format!("host-{number}"), host(number)).expect("there is room");
    }
    inventory
}

/// A host that differs from the others in a way its number says.
pub(crate) fn host(number: u32) -> HostReport {
    let used = if number.is_multiple_of(3) { 256 * (1 + number % 13) } else { 0 };
    HostReport {
        zone: number % 3,
        health: Health::Ready,
        memory_mib: 16_384,
        free_memory_mib: 16_384 - used,
        cpu_millis: 16_000,
        free_cpu_millis: 16_000 - used,
        used_p50_mib: used / 2,
        used_spread_mib: used / 8,
        sandboxes: used / 256,
        busy: number % 2 * used / 512,
    }
}
