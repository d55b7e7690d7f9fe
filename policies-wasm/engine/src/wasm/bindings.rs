//! The contract as Rust, generated from the WIT. The `unsafe` in it (the marker traits of the canonical ABI) is
//! generated as well; none of it is written by hand.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated code"
)]

pub(crate) mod packing {
    wasmtime::component::bindgen!({
        path: "../wit/policy",
        world: "packing",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(crate) mod placement {
    wasmtime::component::bindgen!({
        path: "../wit/policy",
        world: "placement",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(crate) mod routing {
    wasmtime::component::bindgen!({
        path: "../wit/policy",
        world: "routing",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}
