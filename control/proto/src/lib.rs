//! The gRPC contract of Warren, generated from `proto/warren/v1/*.proto`, and the typed errors every service speaks.
//!
//! It deliberately contains no logic of any service.
#![forbid(unsafe_code)]

/// Generated messages, clients and servers of `warren.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    unused_qualifications,
    clippy::all,
    clippy::pedantic
)]
pub mod v1 {
    tonic::include_proto!("warren.v1");
}

pub mod error;
pub mod reason;

/// The encoded file descriptor set, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("warren_v1");

/// Most bytes of a gRPC message: 250 MiB of a Linux function's files (or 64 MiB of code and 64 MiB of files of a Wasm
/// function), and room for the rest.
pub const MAX_MESSAGE_BYTES: usize = 254 << 20;

/// Most bytes of an invocation's payload, each way.
pub const MAX_PAYLOAD_BYTES: usize = 6 << 20;
