//! The contract as Rust, generated from the WIT: canonical-ABI glue, the one place of the SDK with `unsafe` in it, none
//! of it written by hand.
#![allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated code"
)]

pub mod packing {
    wit_bindgen::generate!({
        path: "../wit/policy",
        world: "packing",
        pub_export_macro: true,
        export_macro_name: "export_packer",
        default_bindings_module: "::warren_policy_sdk::glue::packing",
    });
}

pub mod placement {
    wit_bindgen::generate!({
        path: "../wit/policy",
        world: "placement",
        with: { "warren:policy/types@0.2.0": crate::bindings::packing::warren::policy::types },
        pub_export_macro: true,
        export_macro_name: "export_placer",
        default_bindings_module: "::warren_policy_sdk::glue::placement",
    });
}

pub mod routing {
    wit_bindgen::generate!({
        path: "../wit/policy",
        world: "routing",
        pub_export_macro: true,
        export_macro_name: "export_router",
        default_bindings_module: "::warren_policy_sdk::glue::routing",
    });
}
