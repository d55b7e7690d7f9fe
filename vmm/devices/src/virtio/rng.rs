//! The entropy device (virtio 1.2, 5.4): one queue of buffers to fill.

use super::chain::{Chain, Range, slice};
use alloc::vec::Vec;

/// Device id (5).
pub const ID: u32 = 4;
/// Its queues' largest sizes.
pub const QUEUES: [u16; 1] = [64];
/// Most bytes given for one request; the driver asks again.
pub const FILL_MAX: u32 = 4096;

/// What to fill with random bytes: at most [`FILL_MAX`] of them.
#[must_use]
pub fn fill(chain: &Chain) -> Vec<Range> {
    slice(chain.writable(), 0, FILL_MAX)
}
