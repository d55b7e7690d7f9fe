//! virtio-mmio devices: the registers on one side, the worker thread on the other.
//!
//! ```text
//!  vCPU thread                        worker thread
//!  register access -> Transport       ioeventfd -> Active.queue -> walk -> Backend -> used ring -> irqfd
//!       | Activate: hands the queues over  ^
//!       | Reset: takes them back ----------+  (waits for the one request that is being worked on)
//! ```
//! A reset is the one place where a vCPU thread waits for a worker: drivers of virtio-mmio do not ask again whether a
//! reset is done, and free what the device may still be writing to.
//!
//! Modules: [`walk`] from rings to requests, [`block`] and [`rng`] what is done with them.

pub mod block;
pub mod rng;
pub mod walk;

use crate::log;
use crate::ram::Ram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;
use walk::{Walk, WalkError};
use warren_devices::virtio::transport::{Effect, INTERRUPT_CONFIG, INTERRUPT_USED, Signals};
use warren_devices::virtio::{Chain, Identity, Transport};

/// What is done with a device's requests. Runs on the worker thread.
pub trait Backend: Send + std::fmt::Debug {
    /// Works on one request of a queue: how many bytes were written into it.
    fn work(&mut self, queue: usize, chain: &Chain, ram: &Ram) -> Result<u32, BadRequest>;
}

/// The request is of no shape that could be answered: the driver's fault, and the device stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request that cannot be answered: {0}")]
pub struct BadRequest(pub &'static str);

/// One device.
#[derive(Debug)]
pub struct Device {
    name: String,
    transport: Mutex<Transport>,
    signals: Arc<Signals>,
    /// Raised to the guest.
    interrupt: EventFd,
    /// Rung by the guest, one a queue.
    doorbells: Vec<EventFd>,
    /// A reset waits: the worker must come out between two requests.
    quiesce: AtomicBool,
    active: Mutex<Active>,
    ram: Ram,
}

/// What the worker works with; queues only while the device is live.
#[derive(Debug)]
struct Active {
    queues: Vec<Option<Walk>>,
    backend: Box<dyn Backend>,
}

impl Device {
    /// A device in its reset state.
    #[must_use]
    pub fn new(
        name: String,
        identity: Identity,
        interrupt: EventFd,
        doorbells: Vec<EventFd>,
        backend: Box<dyn Backend>,
        ram: Ram,
    ) -> Self {
        let transport = Transport::new(identity);
        let signals = transport.signals();
        Self {
            name,
            transport: Mutex::new(transport),
            signals,
            interrupt,
            doorbells,
            quiesce: AtomicBool::new(false),
            active: Mutex::new(Active { queues: Vec::new(), backend }),
            ram,
        }
    }

    /// What the guest rings, one a queue.
    #[must_use]
    pub fn doorbells(&self) -> &[EventFd] {
        &self.doorbells
    }

    /// A read of the window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        lock(&self.transport).read(offset, data);
    }

    /// A write of the window; vCPU thread.
    pub fn write(&self, offset: u64, data: &[u8]) {
        // The transport stays locked until the device has followed, so that two vCPUs cannot interleave.
        let mut transport = lock(&self.transport);
        match transport.write(offset, data) {
            Effect::None => {}
            Effect::Reset => self.stop(),
            Effect::Activate { features, queues } => {
                let walks = queues.iter().map(|queue| Walk::new(queue, features, &self.ram)).collect();
                match walks {
                    Ok(walks) => {
                        lock(&self.active).queues = walks;
                        // What was made available before the worker looks.
                        for bell in &self.doorbells {
                            let _ = bell.write(1);
                        }
                    }
                    Err(error) => self.break_down(&error),
                }
            }
        }
    }

    /// Takes the queues back, when the request that is being worked on is done.
    fn stop(&self) {
        self.quiesce.store(true, Ordering::SeqCst);
        lock(&self.active).queues.clear();
        self.quiesce.store(false, Ordering::SeqCst);
        // The worker may have broken down on its last request: that was before the reset.
        self.signals.interrupt.store(0, Ordering::SeqCst);
        self.signals.needs_reset.store(false, Ordering::SeqCst);
    }

    /// Works on what waits in a queue; worker thread.
    pub fn serve(&self, queue: usize) {
        if let Some(bell) = self.doorbells.get(queue) {
            let _ = bell.read();
        }
        loop {
            if self.quiesce.load(Ordering::SeqCst) {
                return;
            }
            let mut active = lock(&self.active);
            let Active { queues, backend } = &mut *active;
            let Some(Some(walk)) = queues.get_mut(queue) else { return };
            match Self::step(walk, backend.as_mut(), queue, &self.ram) {
                Ok(Step::Idle) => return,
                Ok(Step::Done { notify: false }) => {}
                Ok(Step::Done { notify: true }) => self.raise(INTERRUPT_USED),
                Err(error) => {
                    queues.clear();
                    drop(active);
                    self.break_down(&error);
                    return;
                }
            }
        }
    }

    fn step(walk: &mut Walk, backend: &mut dyn Backend, queue: usize, ram: &Ram) -> Result<Step, WalkError> {
        let Some((head, chain)) = walk.next(ram)? else {
            return Ok(Step::Idle);
        };
        let written = backend.work(queue, &chain, ram)?;
        Ok(Step::Done { notify: walk.finish(ram, head, written)? })
    }

    /// The driver broke a rule: the device stops, and says that it needs a reset (2.1.2).
    fn break_down(&self, error: &WalkError) {
        log!("{}: the driver broke a rule: {error}", self.name);
        self.signals.needs_reset.store(true, Ordering::SeqCst);
        self.raise(INTERRUPT_CONFIG);
    }

    fn raise(&self, why: u32) {
        self.signals.interrupt.fetch_or(why, Ordering::SeqCst);
        // The counter cannot be full: KVM takes what is in it at once.
        let _ = self.interrupt.write(1);
    }
}

/// What one step of the worker did.
enum Step {
    /// Nothing waits, and the guest will ring.
    Idle,
    /// A request is finished.
    Done {
        /// The guest wants to know.
        notify: bool,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process (main's hook), so nobody sees what a panicked holder left.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
