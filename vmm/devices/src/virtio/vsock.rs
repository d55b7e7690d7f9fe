//! The socket device (virtio 1.2, 5.10): streams between the host (CID 2) and its guest.
//!
//! What is here judges packets and keeps the books; bytes and sockets are the caller's. A packet's header is copied out of
//! guest memory once, as a [`Header`].
//!
//! Modules: [`packet`] the header, [`credit`] who may send how much, [`mux`] the table of connections.

pub mod credit;
pub mod mux;
pub mod packet;

pub use credit::Credit;
pub use mux::{Key, Mux, Next, Received};
pub use packet::{HEADER_LEN, Header};

use alloc::vec::Vec;

/// Device id (5).
pub const ID: u32 = 19;
/// Its queues' largest sizes: to the guest, from the guest, events.
pub const QUEUES: [u16; 3] = [256, 256, 16];
/// The queue of packets to the guest.
pub const RX: usize = 0;
/// The queue of packets from the guest.
pub const TX: usize = 1;
/// The queue of events.
pub const EVENTS: usize = 2;
/// The host's address (5.10.4).
pub const HOST_CID: u64 = 2;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (5.10.6.7): every connection is gone, the guest's address is to be read again.
pub const EVENT_TRANSPORT_RESET: u32 = 0;

/// The configuration space: the guest's address.
#[must_use]
pub fn config(guest_cid: u32) -> Vec<u8> {
    u64::from(guest_cid).to_le_bytes().to_vec()
}
