//! virtio (OASIS Virtual I/O Device 1.2): the transport and the devices on it.

pub mod balloon;
pub mod block;
pub mod chain;
pub mod config;
pub mod mem;
pub mod net;
pub mod overlay;
pub mod rng;
pub mod transport;
pub mod vsock;

pub use chain::{Chain, ChainError, Memory, OutsideMemory, Range};
pub use config::Config;
pub use transport::{Identity, Transport};

/// Feature: descriptors may point to tables of descriptors (6, VIRTIO_F_INDIRECT_DESC).
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Feature: notifications are suppressed by index (VIRTIO_F_EVENT_IDX).
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Feature: not the legacy interface (VIRTIO_F_VERSION_1). Offered always, refused never.
pub const F_VERSION_1: u64 = 1 << 32;
