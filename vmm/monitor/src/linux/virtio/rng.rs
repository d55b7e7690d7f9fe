//! Entropy for the guest, from the host's kernel.

use super::{Backend, BadRequest};
use crate::ram::Ram;
use rustix::rand::{GetRandomFlags, getrandom};
use warren_devices::virtio::rng::{FILL_MAX, ID, QUEUES, fill};
use warren_devices::virtio::{Chain, Config, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Identity, Memory};

/// The device.
#[derive(Debug)]
pub struct Rng;

impl Rng {
    /// What the driver is told.
    #[must_use]
    pub fn identity() -> Identity {
        let features = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX;
        Identity { id: ID, features, queues: QUEUES.to_vec(), config: Config::default() }
    }
}

impl Backend for Rng {
    fn work(&mut self, _queue: usize, chain: &Chain, ram: &Ram) -> Result<u32, BadRequest> {
        let mut bytes = [0; FILL_MAX as usize];
        let mut written = 0;
        for range in fill(chain) {
            let Some(piece) = bytes.get_mut(..range.len as usize) else { break };
            // A host whose kernel gives none gives nothing: the driver asks again.
            let Ok(got) = getrandom(&mut *piece, GetRandomFlags::empty()) else { break };
            let piece = piece.get(..got).unwrap_or_default();
            Memory::write(ram, range.gpa, piece).map_err(|_| BadRequest("a range that is not memory"))?;
            written += u32::try_from(got).unwrap_or(0);
        }
        Ok(written)
    }
}
