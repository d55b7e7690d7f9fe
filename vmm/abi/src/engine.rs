//! The Wasmtime settings that compiler and guest must agree on, written once.
//!
//! A macro, because the two sides use the same `wasmtime::Config` built with different features, in different
//! workspaces, and this crate must not depend on either.

/// Bytes of stack Wasm may use; the rest of the stack window belongs to the guest program.
pub const MAX_WASM_STACK: usize = 1 << 20;

/// The Cranelift target of function code.
pub const TARGET: &str = "x86_64-unknown-none";

/// Applies every setting that is part of an artefact's compatibility to a `wasmtime::Config` (a `&mut Config`).
///
/// No signals (bounds checks and traps are explicit), no guard regions, no copy-on-write images: there is no kernel
/// and no MMU work in the guest.
#[macro_export]
macro_rules! configure_function_engine {
    ($config:expr) => {{
        let config = $config;
        config.signals_based_traps(false);
        config.memory_reservation(0);
        config.memory_reservation_for_growth(0);
        config.memory_guard_size(0);
        config.memory_init_cow(false);
        config.max_wasm_stack($crate::engine::MAX_WASM_STACK);
        config.wasm_simd(true);
        config.wasm_relaxed_simd(true);
        config.relaxed_simd_deterministic(true);
        config.wasm_bulk_memory(true);
        config.wasm_multi_value(true);
        config.wasm_multi_memory(true);
        config.wasm_tail_call(true);
        config.wasm_extended_const(true);
        config.generate_address_map(false);
    }};
}
