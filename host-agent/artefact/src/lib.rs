//! Precompiled artefacts: envelope, key and signature.

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
