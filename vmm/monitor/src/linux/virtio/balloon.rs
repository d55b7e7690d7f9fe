//! The balloon: pages that a guest lends or reports as free go back to the host; on the worker's thread.
//!
//! ```text
//!  main thread                            worker
//!  Handle::set_target --configuration-->  (the guest's driver) --pages--> Balloon::work --> Ram::give_back
//!  Handle::status ------wanted, bell--->  the buffer of statistics goes back, the guest fills it anew
//!       ^-------------- Told <----------------'
//! ```
//! Nobody waits for a guest: a status is what it said last, and asks for more.

use super::walk::WalkError;
use super::{Backend, BadRequest, Device, Queues, Step, lock, work_on_next};
use crate::log;
use crate::log::Seldom;
use crate::ram::Ram;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use warren_boot::linux::layout::KEPT;
use warren_devices::virtio::balloon::{
    ACTUAL_AT, CONFIG_LEN, F_REPORTING, FEATURES, ID, PAGE, PAGES_A_MIB, QUEUES, Queue, Run, STATISTICS,
    Statistics, TARGET_AT, lent, reported, statistics, tag,
};
use warren_devices::virtio::{Chain, Config, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Identity};
use warren_vmm_protocol::linux::{BalloonStatus, GuestMemory};

/// The device's working half.
#[derive(Debug)]
pub struct Balloon {
    reports_free: bool,
    shared: Arc<Shared>,
    /// The guest's buffer of statistics, and of which driver's queues it is.
    held: Option<(u64, u16)>,
    failed: Seldom,
}

/// Its half on the main thread.
#[derive(Debug)]
pub struct Handle {
    device: Arc<Device>,
    shared: Arc<Shared>,
    memory_bytes: u64,
}

/// What both halves know.
#[derive(Debug, Default)]
struct Shared {
    /// Somebody wants new statistics.
    wanted: AtomicBool,
    said: Mutex<Said>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    returned_bytes: u64,
    told: u64,
    statistics: Statistics,
}

impl Balloon {
    /// Nothing lent. Whether the guest also gives back what is free.
    #[must_use]
    pub fn new(reports_free: bool) -> Self {
        Self { reports_free, shared: Arc::default(), held: None, failed: Seldom::default() }
    }

    /// What the driver is told.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let reporting = if self.reports_free { F_REPORTING } else { 0 };
        Identity {
            id: ID,
            features: F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | FEATURES | reporting,
            queues: QUEUES.to_vec(),
            config: Config::writable(vec![0; CONFIG_LEN], ACTUAL_AT..CONFIG_LEN),
        }
    }

    /// The other half, for a guest with so much memory.
    #[must_use]
    pub fn handle(&self, device: Arc<Device>, memory_bytes: u64) -> Handle {
        Handle { device, shared: Arc::clone(&self.shared), memory_bytes }
    }

    /// Gives pages back, one call a run.
    fn give_back(&mut self, runs: &[Run], ram: &Ram) {
        let mut returned = 0;
        for run in runs {
            match ram.give_back(run.gpa, run.len) {
                Ok(()) => returned += run.len,
                // The guest's business is done all the same: what it lends it does not use.
                Err(error) => {
                    if let Some(times) = self.failed.count() {
                        log!("balloon: {:#x} keeps its pages: {error} (time {times})", run.gpa);
                    }
                }
            }
        }
        let mut said = lock(&self.shared.said);
        said.returned_bytes = said.returned_bytes.saturating_add(returned);
    }

    /// The buffer of statistics goes back when somebody wants new ones. A driver that offers a second one gets its first back.
    fn step_statistics(&mut self, queues: &mut Queues, ram: &Ram) -> Result<Step, WalkError> {
        let era = queues.era;
        let Some(walk) = queues.get(STATISTICS) else { return Ok(Step::Idle) };
        let mut buffer = self.held.filter(|(of, _)| *of == era).map(|(_, head)| head);
        let back = if buffer.is_some() && self.shared.wanted.swap(false, Ordering::SeqCst) {
            buffer.take()
        } else {
            // Asks to be rung for the next one, too.
            let Some((head, chain)) = walk.next(ram)? else { return Ok(Step::Idle) };
            let mut said = lock(&self.shared.said);
            said.statistics = statistics(&chain, ram);
            said.told += 1;
            buffer.replace(head)
        };
        self.held = buffer.map(|head| (era, head));
        back.map(|head| walk.finish(ram, head, 0)).transpose()?;
        Ok(Step::Done)
    }
}

impl Backend for Balloon {
    fn work(&mut self, queue: usize, chain: &Chain, ram: &Ram) -> Result<u32, BadRequest> {
        match Queue::of(queue) {
            Queue::Inflate => self.give_back(&lent(chain, ram, &[KEPT]), ram),
            Queue::Reporting if self.reports_free => self.give_back(&reported(chain, &[KEPT]), ram),
            // What is taken back comes when it is touched.
            _ => {}
        }
        Ok(0)
    }

    fn begin_again(&mut self) -> io::Result<()> {
        lock(&self.shared.said).statistics = Statistics::default();
        Ok(())
    }

    fn step(&mut self, queue: usize, queues: &mut Queues, ram: &Ram) -> Result<Step, WalkError> {
        match Queue::of(queue) {
            Queue::Statistics => self.step_statistics(queues, ram),
            _ => work_on_next(self, queue, queues, ram),
        }
    }
}

/// More than the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{target_mib} MiB: the guest has {memory_mib}")]
pub struct TooMuch {
    target_mib: u32,
    memory_mib: u64,
}

impl Handle {
    /// Asks the guest to lend so much. A guest without a driver finds it when it has one.
    pub fn set_target(&self, target_mib: u32) -> Result<(), TooMuch> {
        let memory_mib = self.memory_bytes >> 20;
        let pages = target_mib.checked_mul(PAGES_A_MIB);
        let pages = pages.filter(|_| u64::from(target_mib) <= memory_mib);
        let pages = pages.ok_or(TooMuch { target_mib, memory_mib })?;
        self.device.change_config(TARGET_AT, &pages.to_le_bytes());
        Ok(())
    }

    /// What is lent and what the guest said last, and asks it to say it anew.
    #[must_use]
    pub fn status(&self) -> BalloonStatus {
        let bytes = |at| u64::from(u32::from_le_bytes(self.device.config(at))) * PAGE;
        let said = *lock(&self.shared.said);
        self.shared.wanted.store(true, Ordering::SeqCst);
        if let Some(bell) = self.device.doorbells().get(STATISTICS) {
            let _ = bell.write(1);
        }
        let [swapped_in, swapped_out, major_faults, minor_faults, free, total, available, caches] =
            said.statistics;
        const { assert!(tag::SWAP_IN == 0 && tag::FREE == 4 && tag::CACHES == 7) };
        BalloonStatus {
            target_bytes: bytes(TARGET_AT),
            actual_bytes: bytes(ACTUAL_AT),
            returned_bytes: said.returned_bytes,
            told: said.told,
            guest: GuestMemory {
                total,
                free,
                available,
                caches,
                swapped_in,
                swapped_out,
                major_faults,
                minor_faults,
            },
        }
    }
}
