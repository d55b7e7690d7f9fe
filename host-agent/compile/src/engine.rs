//! Wasmtime's settings for each purpose, and the call into it.

use crate::inspect::Kind;
use warren_abi::isa::IsaSet;
use warren_artefact::{CompileError, Purpose};
use wasmtime::{Config, Engine, OptLevel};

/// The Cranelift target of policy code: the engine is part of our own static binaries.
const POLICY_TARGET: &str = "x86_64-unknown-linux-musl";

/// Compiles a module that [`crate::inspect::inspect`] accepted.
pub fn precompile(module: &[u8], kind: Kind, purpose: Purpose, isa: IsaSet) -> Result<Vec<u8>, CompileError> {
    let engine = engine(purpose, isa).map_err(|error| internal(&error))?;
    let attempt = || match kind {
        Kind::Module => engine.precompile_module(module),
        Kind::Component => engine.precompile_component(module),
    };
    // A panic of the compiler is an answer like any other: this process ends after it anyhow.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)) {
        Ok(Ok(code)) => Ok(code),
        Ok(Err(error)) => Err(refusal(&error)),
        Err(_) => Err(CompileError::Internal { detail: "the code generator panicked on this module".into() }),
    }
}

fn engine(purpose: Purpose, isa: IsaSet) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    let target = match purpose {
        Purpose::Function => {
            warren_abi::configure_function_engine!(&mut config);
            warren_abi::engine::TARGET
        }
        Purpose::Policy => {
            warren_artefact::configure_policy_engine!(&mut config);
            // Replays must agree to the bit. Here and not in the macro: only a compiler has this setting.
            config.cranelift_nan_canonicalization(true);
            POLICY_TARGET
        }
    };
    // An explicit target also switches off Cranelift's guess from this machine's CPUID: only `isa` counts.
    config.target(target)?;
    config.cranelift_opt_level(OptLevel::Speed);
    crate::sys::enable_isa(&mut config, isa);
    Engine::new(&config)
}

/// A module that passed validation and still does not compile has hit one of the code generator's own limits.
fn refusal(error: &wasmtime::Error) -> CompileError {
    let detail = crate::inspect::shorten(&format!("{error:#}"), 400);
    if detail.contains("limit") || detail.contains("too large") {
        CompileError::TooComplex { what: detail, found: 0, limit: 0 }
    } else {
        CompileError::Internal { detail }
    }
}

fn internal(error: &wasmtime::Error) -> CompileError {
    CompileError::Internal { detail: crate::inspect::shorten(&format!("{error:#}"), 400) }
}

/// What this machine's processor can do, of the extensions Warren knows.
#[must_use]
pub fn host_isa() -> IsaSet {
    use std::arch::is_x86_feature_detected as has;
    IsaSet::detect(|name| match name {
        "sse3" => has!("sse3"),
        "ssse3" => has!("ssse3"),
        "sse4.1" => has!("sse4.1"),
        "sse4.2" => has!("sse4.2"),
        "popcnt" => has!("popcnt"),
        "lzcnt" => has!("lzcnt"),
        "bmi1" => has!("bmi1"),
        "bmi2" => has!("bmi2"),
        "avx" => has!("avx"),
        "avx2" => has!("avx2"),
        "fma" => has!("fma"),
        _ => false,
    })
}
