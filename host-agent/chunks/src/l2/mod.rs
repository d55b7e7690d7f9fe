//! The second tier: other workers of the fleet, asked over gRPC for what they have themselves.
//!
//! A worker is asked only for its own memory and disk, never to ask on, so a question costs at most two answers. Which two is
//! [`rendezvous`]; whom to leave alone for a while is [`health`]; [`peers`] asks, [`service`] answers. Nothing a peer says is
//! believed: its bytes are held against their name.

pub mod health;
pub mod peers;
pub mod rendezvous;
pub mod service;

/// Generated messages, client and server of `warren.chunks.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    unused_qualifications,
    clippy::all,
    clippy::pedantic
)]
pub mod v1 {
    tonic::include_proto!("warren.chunks.v1");
}

pub use peers::{Answer, Peer, PeerLimits, Peers};
pub use service::Service;

/// Most bytes of an object that goes between workers: a chunk, not a large manifest.
pub const MAX_OBJECT_BYTES: usize = crate::pages::MAX_CHUNK_BYTES + crate::seal::TAG_BYTES;
/// Most bytes of a piece of an answer.
pub const PIECE_BYTES: usize = 64 << 10;
