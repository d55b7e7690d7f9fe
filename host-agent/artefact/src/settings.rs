//! Wasmtime settings of policy artefacts, written once for compiler and engine.
//!
//! A macro for the same reason as `warren_abi::configure_function_engine!`: this crate must not depend on Wasmtime.

/// Part of every [`crate::ArtefactKey`]: bumped whenever a setting here, in `warren_abi::engine` or in the compiler
/// changes what compiled code looks like, so that artefacts of older settings are not found any more.
pub const SETTINGS_VERSION: u32 = 2;

/// Applies every setting that is part of a policy artefact's compatibility to a `wasmtime::Config` (a `&mut Config`):
/// deterministic (NaN canonicalised, relaxed SIMD fixed), metered by fuel and interrupted by epochs.
#[macro_export]
macro_rules! configure_policy_engine {
    ($config:expr) => {{
        let config = $config;
        config.consume_fuel(true);
        config.epoch_interruption(true);
        config.wasm_relaxed_simd(true);
        config.relaxed_simd_deterministic(true);
        config.wasm_component_model(true);
        config.memory_guard_size(64 << 10);
    }};
}
