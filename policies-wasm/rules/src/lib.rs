//! The decisions of the built-in policies, pure, for Wasm and native alike.
