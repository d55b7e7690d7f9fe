//! Memory that is plugged while the guest runs; on the worker's thread.
//!
//! Whether a block is there, the guest's view of it says ([`Ram::plug`]): one that is not cannot be touched, and a guest that
//! tries comes to a named end. So no guest holds more than was acknowledged to it, whatever its driver does.

use super::{Backend, BadRequest, Device, put_at};
use crate::log;
use crate::log::Seldom;
use crate::ram::Ram;
use std::sync::Arc;
use warren_devices::virtio::mem::{
    ANSWER_LEN, Answer, Blocks, Change, F_UNPLUGGED_INACCESSIBLE, ID, PLUGGED_AT, QUEUES, REQUESTED_AT,
    Request, Verdict,
};
use warren_devices::virtio::{Chain, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Identity};
use warren_vmm_protocol::linux::MemoryStatus;

/// The device's working half.
#[derive(Debug)]
pub struct Mem {
    blocks: Blocks,
    /// Its configuration holds what the host wants.
    device: Arc<Device>,
    failed: Seldom,
}

/// Its half on the main thread.
#[derive(Debug)]
pub struct Handle(Arc<Device>);

/// What the driver is told.
#[must_use]
pub fn identity(blocks: &Blocks, requested: u64) -> Identity {
    Identity {
        id: ID,
        features: F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | F_UNPLUGGED_INACCESSIBLE,
        queues: QUEUES.to_vec(),
        config: blocks.config(requested).into(),
    }
}

impl Mem {
    /// Over the device made of [`identity`].
    #[must_use]
    pub fn new(blocks: Blocks, device: Arc<Device>) -> Self {
        Self { blocks, device, failed: Seldom::default() }
    }

    /// The other half.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.device))
    }

    fn make(&mut self, change: &Change, ram: &Ram) -> Answer {
        let (at, len) = self.blocks.bytes(&change.blocks);
        match ram.plug(at, len, change.plug) {
            Ok(()) => {
                self.blocks.made(change);
                // The driver counts along: it need not be told.
                self.device.correct_config(PLUGGED_AT, &self.blocks.plugged().to_le_bytes());
                Answer::Ack
            }
            Err(error) => {
                if let Some(times) = self.failed.count() {
                    log!("memory: {len:#x} bytes cannot be changed: {error} (time {times})");
                }
                Answer::Busy
            }
        }
    }
}

impl Backend for Mem {
    fn work(&mut self, _queue: usize, chain: &Chain, ram: &Ram) -> Result<u32, BadRequest> {
        let request = Request::read(chain, ram).ok_or(BadRequest("a request that is too short"))?;
        let requested = u64::from_le_bytes(self.device.config(REQUESTED_AT));
        let answer = match self.blocks.judge(request, requested) {
            Verdict::Say(answer) => answer,
            Verdict::Do(change) => self.make(&change, ram),
        };
        put_at(chain.writable(), 0, &answer.bytes(), ram)?;
        Ok(u32::try_from(ANSWER_LEN).unwrap_or(0))
    }
}

/// A size that the region cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} MiB: a multiple of {block} MiB, at most {region}, can be plugged")]
pub struct NoSuchSize {
    wanted: u32,
    block: u64,
    region: u64,
}

/// A size that a region's blocks can have, in bytes.
pub fn checked(wanted_mib: u32, region: u64, block: u64) -> Result<u64, NoSuchSize> {
    let bytes = u64::from(wanted_mib) << 20;
    if bytes <= region && bytes.is_multiple_of(block) {
        return Ok(bytes);
    }
    Err(NoSuchSize { wanted: wanted_mib, block: block >> 20, region: region >> 20 })
}

impl Handle {
    /// Wants so much to be plugged. A guest without a driver finds it when it has one.
    pub fn want(&self, wanted_mib: u32) -> Result<(), NoSuchSize> {
        let now = self.status();
        let bytes = checked(wanted_mib, now.region_bytes, now.block_bytes)?;
        self.0.change_config(REQUESTED_AT, &bytes.to_le_bytes());
        Ok(())
    }

    /// What is wanted and what is there.
    #[must_use]
    pub fn status(&self) -> MemoryStatus {
        let word = |at| u64::from_le_bytes(self.0.config(at));
        MemoryStatus {
            block_bytes: word(0),
            region_bytes: word(24),
            plugged_bytes: word(PLUGGED_AT),
            requested_bytes: word(REQUESTED_AT),
        }
    }
}
