//! From a ring in guest memory to requests: virtio-queue walks, this judges.
//!
//! virtio-queue ends a chain in silence where it cannot go on (a loop, an index beyond the table, a table in a table).
//! A shorter request than the driver meant must not be worked on, so every chain must end where its driver ended it.

use super::BadRequest;
use crate::ram::Ram;
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use warren_devices::virtio::transport::QueueConfig;
use warren_devices::virtio::{Chain, ChainError, F_EVENT_IDX, Memory, OutsideMemory, Range};

/// A queue of a live device.
#[derive(Debug)]
pub struct Walk {
    queue: Queue,
    /// Something was given back that the guest was not told of.
    untold: bool,
}

/// Which rule the driver broke.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A ring or the descriptor table is not memory.
    #[error("a queue that does not lie in memory")]
    Place,
    /// More available than the ring holds.
    #[error("the available index jumps from {from} to {to} in a ring of {size}")]
    Jump {
        /// Where the device is.
        from: u16,
        /// What the driver says.
        to: u16,
        /// Entries.
        size: u16,
    },
    /// A head beyond the table.
    #[error("a descriptor index beyond the table")]
    Index,
    /// A chain that does not end: a loop, an index beyond its table, or a table in a table.
    #[error("a chain of descriptors without an end")]
    Endless,
    /// Descriptors that are no request.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A request that its device cannot answer.
    #[error(transparent)]
    Request(#[from] BadRequest),
    /// virtio-queue refused.
    #[error("{0}")]
    Queue(virtio_queue::Error),
}

impl From<virtio_queue::Error> for WalkError {
    fn from(error: virtio_queue::Error) -> Self {
        Self::Queue(error)
    }
}

impl Walk {
    /// A queue as its driver froze it, `None` if it is not used. Judged here: that all of it is memory.
    pub fn new(config: &QueueConfig, features: u64, ram: &Ram) -> Result<Option<Self>, WalkError> {
        if !config.ready {
            return Ok(None);
        }
        let mut queue = Queue::new(config.size)?;
        queue.try_set_size(config.size)?;
        queue.try_set_desc_table_address(GuestAddress(config.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(config.driver))?;
        queue.try_set_used_ring_address(GuestAddress(config.device))?;
        queue.set_event_idx(features & F_EVENT_IDX != 0);
        queue.set_ready(true);
        let size = u64::from(config.size);
        let parts =
            [(config.descriptors, 16 * size), (config.driver, 6 + 2 * size), (config.device, 6 + 8 * size)];
        if !queue.is_valid(ram.regions()) || !parts.iter().all(|(gpa, len)| ram.is_plugged(*gpa, *len)) {
            return Err(WalkError::Place);
        }
        Ok(Some(Self { queue, untold: false }))
    }

    /// One that was written down after so many requests, where those that wait or were not given back are still to be had.
    pub fn resumed(
        config: &QueueConfig,
        features: u64,
        position: u16,
        ram: &Ram,
    ) -> Result<Option<Self>, WalkError> {
        let mut walk = Self::new(config, features, ram)?;
        if let Some(walk) = &mut walk {
            walk.queue.set_next_avail(position);
            walk.queue.set_next_used(position);
        }
        Ok(walk)
    }

    /// How many requests were given back, modulo 2^16. Who goes on from here takes those again that were not: they are the last
    /// that were taken, since every device gives back in order but for what it holds.
    #[must_use]
    pub fn position(&self) -> u16 {
        self.queue.next_used()
    }

    /// How many requests wait. The guest rings at the next one.
    pub fn waiting(&self, ram: &Ram) -> Result<u16, WalkError> {
        let memory = ram.regions();
        let available = self.queue.avail_idx(memory, Ordering::Acquire)?.0;
        let state = self.queue.state();
        if state.event_idx_enabled {
            // Behind the used ring's entries (2.7.8).
            let at = 4 + 8 * u64::from(state.size);
            let place = state.used_ring.checked_add(at).ok_or(WalkError::Place)?;
            ram.put(place, &available.to_le_bytes()).map_err(|_| WalkError::Place)?;
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        let now = self.queue.avail_idx(memory, Ordering::Acquire)?.0;
        Ok(now.wrapping_sub(self.queue.next_avail()))
    }

    /// Entries.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The next request and its head. `None`: nothing waits, and the guest will ring when something does.
    pub fn next(&mut self, ram: &Ram) -> Result<Option<(u16, Chain)>, WalkError> {
        loop {
            if let Some(found) = self.pop(ram)? {
                return Ok(Some(found));
            }
            // Ask to be rung, then look once more: something may have come in between.
            if !self.queue.enable_notification(ram.regions())? {
                return Ok(None);
            }
        }
    }

    fn pop(&mut self, ram: &Ram) -> Result<Option<(u16, Chain)>, WalkError> {
        let memory = ram.regions();
        let to = self.queue.avail_idx(memory, Ordering::Acquire)?.0;
        let (from, size) = (self.queue.next_avail(), self.queue.size());
        match to.wrapping_sub(from) {
            0 => return Ok(None),
            waiting if waiting > size => return Err(WalkError::Jump { from, to, size }),
            _ => {}
        }
        let mut descriptors = self.queue.pop_descriptor_chain(memory).ok_or(WalkError::Index)?;
        let head = descriptors.head_index();
        if head >= size {
            return Err(WalkError::Index);
        }
        let mut chain = Chain::default();
        let mut count = 0_u16;
        let mut ended = false;
        for descriptor in descriptors.by_ref() {
            count = count.saturating_add(1);
            // A chain is no longer than its queue, tables included (2.7.5.3.1).
            if count > size {
                return Err(WalkError::Endless);
            }
            let range = Range { gpa: descriptor.addr().0, len: descriptor.len() };
            chain.add(ram, range, descriptor.is_write_only())?;
            ended = !descriptor.has_next();
        }
        if ended { Ok(Some((head, chain))) } else { Err(WalkError::Endless) }
    }

    /// Gives a request back.
    pub fn finish(&mut self, ram: &Ram, head: u16, written: u32) -> Result<(), WalkError> {
        self.untold = true;
        Ok(self.queue.add_used(ram.regions(), head, written)?)
    }

    /// Whether the guest wants to be interrupted for what was given back since this was asked last.
    pub fn wants_interrupt(&mut self, ram: &Ram) -> Result<bool, WalkError> {
        Ok(std::mem::take(&mut self.untold) && self.queue.needs_notification(ram.regions())?)
    }
}

impl Memory for Ram {
    fn contains(&self, range: Range) -> bool {
        usize::try_from(range.len).is_ok_and(|len| {
            GuestMemoryBackend::check_range(self.regions(), GuestAddress(range.gpa), len)
                && range.gpa.checked_add(u64::from(range.len)).is_some()
                && self.is_plugged(range.gpa, range.len.into())
        })
    }

    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        self.get(gpa, bytes).map_err(|_| OutsideMemory)
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        self.put(gpa, bytes).map_err(|_| OutsideMemory)
    }
}

#[cfg(test)]
mod tests;
