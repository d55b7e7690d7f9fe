//! virtio-mmio devices: the registers on one side, a working thread on the other.
//!
//! ```text
//!  vCPU thread                        disk, worker or network thread
//!  register access -> Transport       ioeventfd -> Device::step -> walk -> Backend -> used ring -> interrupt
//!       | Activate: hands the queues over  ^
//!       | Reset: takes them back ----------+  (waits for the one step that is being made)
//! ```
//! A reset is the one place where a vCPU thread waits for another: drivers of virtio-mmio do not ask again whether a
//! reset is done, and free what the device may still be writing to.
//!
//! Modules: [`state`] a device written down and brought back, [`walk`] from rings to requests, [`balloon`], [`mem`], [`block`], [`rng`], [`net`] and [`vsock`] what is done with them, [`overlay`] disks over a base.

pub mod balloon;
pub mod block;
pub mod mem;
pub mod net;
pub mod overlay;
pub mod rng;
pub mod state;
pub mod vsock;
pub mod walk;

use super::interrupts::Line;
use crate::log;
use crate::log::Seldom;
use crate::progress::monotonic_ns;
use crate::ram::Ram;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;
use walk::{Walk, WalkError};
use warren_devices::virtio::chain::slice;
use warren_devices::virtio::transport::{Effect, INTERRUPT_CONFIG, INTERRUPT_USED, Signals};
use warren_devices::virtio::{Chain, Config, Identity, Memory, Range, Transport};

/// How long what is done may go untold, so that one interrupt tells of several requests; and how long one may have taken for
/// that: where requests are slow an interrupt each costs nothing, and a guest that waits for one must not wait for two.
const UNTOLD_NS: u64 = 200_000;
const SLOW_NS: u64 = UNTOLD_NS / 4;

/// What is done with a device's requests, where each is worked on and given back. Runs on a thread of its own (a disk) or
/// on the worker's.
pub trait Backend: Send + std::fmt::Debug {
    /// Works on one request of a queue: how many bytes were written into it.
    fn work(&mut self, queue: usize, chain: &Chain, ram: &Ram) -> Result<u32, BadRequest>;

    /// Works on what waits first in a queue, and gives it back. What holds requests back does it otherwise.
    fn step(&mut self, queue: usize, queues: &mut Queues, ram: &Ram) -> Result<Step, WalkError> {
        work_on_next(self, queue, queues, ram)
    }

    /// Whether its limits let another request begin; if not, when to ask again.
    fn ready(&mut self, _now_ns: u64) -> Result<(), u64> {
        Ok(())
    }

    /// The guest is put back to its snapshot: what was done for it since is undone.
    fn begin_again(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Works on what waits first in a queue, and gives it back.
fn work_on_next(
    backend: &mut (impl Backend + ?Sized),
    queue: usize,
    queues: &mut Queues,
    ram: &Ram,
) -> Result<Step, WalkError> {
    let Some(walk) = queues.get(queue) else { return Ok(Step::Idle) };
    let Some((head, chain)) = walk.next(ram)? else { return Ok(Step::Idle) };
    let written = backend.work(queue, &chain, ram)?;
    walk.finish(ram, head, written)?;
    Ok(Step::Done)
}

/// The request is of no shape that could be answered: the driver's fault, and the device stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request that cannot be answered: {0}")]
pub struct BadRequest(pub &'static str);

/// One device as its registers and queues; who works on the queues borrows them, step by step.
#[derive(Debug)]
pub struct Device {
    name: String,
    transport: Mutex<Transport>,
    /// Its lock is the last that anybody takes: a working thread may say something new in the middle of a step.
    config: Mutex<Config>,
    signals: Arc<Signals>,
    /// Raised to the guest.
    interrupt: Line,
    /// Rung by the guest, one a queue.
    doorbells: Vec<EventFd>,
    /// A reset waits: nobody begins another step.
    quiesce: AtomicBool,
    /// Nobody begins another step until this is over: looked at under the queues' lock.
    rests: AtomicBool,
    /// Who waits for the working half to begin again.
    again: Mutex<Option<Sender<io::Result<()>>>>,
    /// It was brought back, and its configuration is another: to be told.
    news: AtomicBool,
    queues: Mutex<Queues>,
    ram: Ram,
    broken: Seldom,
}

/// The queues while the device is live; none otherwise.
#[derive(Debug, Default)]
pub struct Queues {
    /// By number; those that the driver does not use are `None`.
    pub walks: Vec<Option<Walk>>,
    /// What the driver agreed to.
    pub features: u64,
    /// Since when something is done that the guest was not told of.
    untold: Option<u64>,
    /// The last request took long.
    slow: bool,
    /// Another number whenever a driver's queues were taken away: what was learned from them is over.
    pub era: u64,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be done now, and the guest will ring. It is told of what was done.
    Idle,
    /// Something was given back; there may be more. The guest is told at the last of several, or soon.
    Done,
}

impl Device {
    /// A device in its reset state.
    #[must_use]
    pub fn new(name: String, identity: Identity, interrupt: Line, doorbells: Vec<EventFd>, ram: Ram) -> Self {
        let config = Mutex::new(identity.config.clone());
        let transport = Transport::new(identity);
        let signals = transport.signals();
        Self {
            name,
            transport: Mutex::new(transport),
            config,
            signals,
            interrupt,
            doorbells,
            quiesce: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            again: Mutex::default(),
            news: AtomicBool::new(false),
            queues: Mutex::default(),
            ram,
            broken: Seldom::default(),
        }
    }

    /// What it is called in the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the guest rings, one a queue.
    #[must_use]
    pub fn doorbells(&self) -> &[EventFd] {
        &self.doorbells
    }

    /// Makes whoever waits on the doorbells look.
    pub fn ring(&self) {
        for bell in &self.doorbells {
            let _ = bell.write(1);
        }
    }

    /// A read of the window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if !lock(&self.config).read(offset, data) {
            lock(&self.transport).read(offset, data);
        }
    }

    /// A field of the configuration space.
    #[must_use]
    pub fn config<const N: usize>(&self, at: usize) -> [u8; N] {
        lock(&self.config).field(at)
    }

    /// Says something new in the configuration space that the driver knows already.
    pub fn correct_config(&self, at: usize, bytes: &[u8]) {
        lock(&self.config).change(at, bytes);
    }

    /// Says something new in the configuration space, and tells a driver that is there.
    pub fn change_config(&self, at: usize, bytes: &[u8]) {
        if lock(&self.config).change(at, bytes) && self.signals.live.load(Ordering::SeqCst) {
            self.raise(INTERRUPT_CONFIG);
        }
    }

    /// A write of the window; vCPU thread.
    pub fn write(&self, offset: u64, data: &[u8]) {
        // The transport stays locked until the device has followed, so that two vCPUs cannot interleave.
        let mut transport = lock(&self.transport);
        match transport.write(offset, data) {
            Effect::None => {}
            Effect::Configure => lock(&self.config).write(offset, data),
            Effect::Reset => {
                self.stop();
                lock(&self.config).reset();
            }
            Effect::Activate { features, queues } => {
                let walks = queues.iter().map(|queue| Walk::new(queue, features, &self.ram)).collect();
                match walks {
                    Ok(walks) => {
                        let mut mine = lock(&self.queues);
                        (mine.walks, mine.features) = (walks, features);
                        drop(mine);
                        // For what was made available before, or waits for a driver.
                        self.ring();
                    }
                    Err(error) => self.break_down(&error),
                }
            }
        }
    }

    /// Takes the queues back, when the step that is being made is done.
    fn stop(&self) {
        self.quiesce.store(true, Ordering::SeqCst);
        lock(&self.queues).take_away();
        self.quiesce.store(false, Ordering::SeqCst);
        // The device may have broken down on its last step: that was before the reset.
        self.signals.interrupt.store(0, Ordering::SeqCst);
        self.signals.needs_reset.store(false, Ordering::SeqCst);
        self.ring();
    }

    /// Lends the queues for one step; working thread.
    pub fn step(&self, step: impl FnOnce(&mut Queues, &Ram) -> Result<Step, WalkError>) -> Step {
        // Who resets rings afterwards.
        if self.quiesce.load(Ordering::SeqCst) {
            return Step::Idle;
        }
        let mut queues = lock(&self.queues);
        // Who lets it go on rings.
        if self.rests.load(Ordering::SeqCst) {
            return Step::Idle;
        }
        let stepped = step(&mut queues, &self.ram);
        // Under the lock: a reset that waits for it comes after, and forgives.
        let done = matches!(stepped, Ok(Step::Done));
        let told =
            if queues.is_due(done, monotonic_ns()) { queues.wants_interrupt(&self.ram) } else { Ok(false) };
        if matches!(told, Ok(true)) {
            self.raise(INTERRUPT_USED);
        }
        match stepped.and_then(|step| told.map(|_| step)) {
            Ok(step) => step,
            Err(error) => {
                queues.take_away();
                self.break_down(&error);
                Step::Idle
            }
        }
    }

    /// Works on every request that waits in a queue, as far as limits allow: when to come back; working thread. Who calls
    /// has emptied the doorbell.
    pub fn serve(&self, queue: usize, backend: &mut dyn Backend) -> Option<u64> {
        self.begin_again_if_asked(|| backend.begin_again());
        let mut wake_ns = None;
        let mut work = |queues: &mut Queues, ram: &Ram| {
            if queues.get(queue).is_none() {
                return Ok(Step::Idle);
            }
            let began = monotonic_ns();
            if let Err(later) = backend.ready(began) {
                wake_ns = Some(later);
                return Ok(Step::Idle);
            }
            let step = backend.step(queue, queues, ram)?;
            queues.slow = step == Step::Done && monotonic_ns().saturating_sub(began) >= SLOW_NS;
            Ok(step)
        };
        while self.step(&mut work) != Step::Idle {}
        wake_ns
    }

    /// The driver broke a rule: the device stops, and says that it needs a reset (2.1.2).
    fn break_down(&self, error: &WalkError) {
        if let Some(times) = self.broken.count() {
            log!("{}: the driver broke a rule: {error} (time {times})", self.name);
        }
        self.signals.needs_reset.store(true, Ordering::SeqCst);
        self.raise(INTERRUPT_CONFIG);
        self.ring();
    }

    fn raise(&self, why: u32) {
        self.signals.interrupt.fetch_or(why, Ordering::SeqCst);
        self.interrupt.raise();
    }
}

impl Step {
    /// This and another.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == Self::Idle { other } else { self }
    }
}

/// Writes bytes into some ranges, from their `at`th byte on.
fn put_at(ranges: &[Range], at: u32, bytes: &[u8], ram: &Ram) -> Result<(), BadRequest> {
    let short = BadRequest("a buffer that is too short");
    let mut rest = bytes;
    for range in slice(ranges, at, u32::try_from(bytes.len()).map_err(|_| short)?) {
        let (now, later) = rest.split_at_checked(range.len as usize).ok_or(short)?;
        Memory::write(ram, range.gpa, now).map_err(|_| short)?;
        rest = later;
    }
    if rest.is_empty() { Ok(()) } else { Err(short) }
}

impl Queues {
    /// A queue in use.
    pub fn get(&mut self, queue: usize) -> Option<&mut Walk> {
        self.walks.get_mut(queue)?.as_mut()
    }

    /// Whether the guest is to be told now, after a step.
    fn is_due(&mut self, done: bool, now: u64) -> bool {
        let slow = std::mem::take(&mut self.slow);
        if done {
            let since = *self.untold.get_or_insert(now);
            if !slow && now.saturating_sub(since) < UNTOLD_NS {
                return false;
            }
        }
        self.untold.take().is_some()
    }

    fn wants_interrupt(&mut self, ram: &Ram) -> Result<bool, WalkError> {
        let mut wants = false;
        for walk in self.walks.iter_mut().flatten() {
            wants |= walk.wants_interrupt(ram)?;
        }
        Ok(wants)
    }

    fn take_away(&mut self) {
        self.walks.clear();
        self.untold = None;
        self.era += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process (main's hook), so nobody sees what a panicked holder left.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
