//! The worker: a thread for the requests of devices that need no file (disks have threads of their own, [`super::disk`]).
//!
//! A limit is waited for by the event loop's own timeout.

use super::virtio::{Backend, Device};
use crate::log;
use crate::orders::Incoming;
use crate::progress::{milliseconds, monotonic_ns};
use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// The bell of new devices; devices' doorbells come after it.
const ORDERS: u32 = 0;

/// A device and what is done with its requests.
pub type Work = (Arc<Device>, Box<dyn Backend>);

/// What the worker waits for.
#[derive(Debug)]
struct Doors {
    orders: Incoming<Vec<Work>>,
    devices: Vec<Work>,
    /// Device and queue by token, from 1.
    by_token: Vec<(usize, usize)>,
    /// When a limit lets a door's requests go on.
    wakes: BTreeMap<usize, u64>,
}

/// A worker whose thread has yet to be started.
pub struct Worker(EventManager<Doors>, SubscriberId);

impl Worker {
    /// Makes what the thread itself may no longer make once it is narrowed.
    pub fn new(orders: Incoming<Vec<Work>>) -> anyhow::Result<Self> {
        let mut manager =
            EventManager::new().map_err(|error| anyhow::anyhow!("make the event loop: {error:?}"))?;
        let doors = Doors { orders, devices: Vec::new(), by_token: Vec::new(), wakes: BTreeMap::new() };
        let id = manager.add_subscriber(doors);
        Ok(Self(manager, id))
    }

    /// Works until the process ends, or the event loop fails.
    #[must_use]
    pub fn work(mut self) -> anyhow::Error {
        loop {
            let waited = match self.0.subscriber_mut(self.1) {
                Ok(doors) => doors.serve_late(),
                Err(error) => return anyhow::anyhow!("event loop: {error:?}"),
            };
            if let Err(error) = self.0.run_with_timeout(waited) {
                return anyhow::anyhow!("event loop: {error:?}");
            }
        }
    }
}

impl Doors {
    fn take_devices(&mut self, ops: &mut EventOps<'_>) {
        while let Some(devices) = self.orders.next() {
            for (device, backend) in devices {
                for (queue, bell) in device.doorbells().iter().enumerate() {
                    self.by_token.push((self.devices.len(), queue));
                    let token = u32::try_from(self.by_token.len()).unwrap_or(u32::MAX);
                    if let Err(error) = ops.add(Events::with_data(bell, token, EventSet::IN)) {
                        log!("a device's queue cannot be watched: {error:?}");
                    }
                }
                self.devices.push((device, backend));
            }
        }
    }

    fn serve(&mut self, door: usize) -> Option<()> {
        let (device, queue) = *self.by_token.get(door)?;
        let (device, backend) = self.devices.get_mut(device)?;
        if let Some(bell) = device.doorbells().get(queue) {
            let _ = bell.read();
        }
        match device.serve(queue, backend.as_mut()) {
            Some(wake) => self.wakes.insert(door, wake),
            None => self.wakes.remove(&door),
        };
        Some(())
    }

    /// Serves the doors whose limits let go on; how many milliseconds nothing else may happen.
    fn serve_late(&mut self) -> i32 {
        if self.wakes.is_empty() {
            return -1;
        }
        let now = monotonic_ns();
        let due: Vec<usize> =
            self.wakes.iter().filter(|(_, wake)| **wake <= now).map(|(door, _)| *door).collect();
        for door in due {
            let _ = self.serve(door);
        }
        self.wakes.values().min().map_or(-1, |wake| milliseconds(wake.saturating_sub(now)))
    }
}

impl MutEventSubscriber for Doors {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let bell = self.orders.bell().as_raw_fd();
        if let Err(error) = ops.add(Events::with_data_raw(bell, ORDERS, EventSet::IN)) {
            log!("the worker cannot wait: {error:?}");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match usize::try_from(events.data()).ok().and_then(|token| token.checked_sub(1)) {
            None => self.take_devices(ops),
            Some(door) => {
                let _ = self.serve(door);
            }
        }
    }
}
