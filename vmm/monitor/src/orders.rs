//! What the two threads tell each other: a queue each way, with an eventfd as its bell.

use crate::end::End;
use crate::link::Link;
use crate::machine::Start;
use crate::snapshot::Resume;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use warren_state::wasm::CpuState;
use warren_vmm_protocol::LoadError;

/// Main thread to vCPU thread. To stop is no order: it must also reach a running vCPU, see `progress`.
#[derive(Debug)]
pub enum Order {
    /// Run this function.
    Start(Box<Start>),
    /// Use this invoke connection from now on.
    Link(Link),
    /// Go on with this guest instead.
    Resume(Box<Resume>),
    /// When idle: say the registers, and touch nothing until [`Order::Release`].
    Hold,
    /// Go on after [`Order::Hold`].
    Release,
    /// When idle: forget what the guest did, and touch nothing until [`Order::Resume`].
    Reset,
}

/// vCPU thread to main thread.
#[derive(Debug)]
pub enum Report {
    /// Init is done.
    Loaded {
        /// When, on the monotonic clock.
        at_ns: u64,
        /// What was logged.
        log: Vec<u8>,
    },
    /// Init failed; `Ended` follows.
    LoadFailed {
        /// How.
        reason: LoadError,
        /// What was logged.
        log: Vec<u8>,
    },
    /// The guest is held with these registers, or cannot be.
    Held(Result<CpuState, String>),
    /// The guest was forgotten: its memory can be put back.
    Forgotten,
    /// The thread is done.
    Ended(End),
}

/// The sending end of a queue.
#[derive(Debug)]
pub struct Outgoing<T> {
    sender: Sender<T>,
    bell: Arc<OwnedFd>,
}

/// The receiving end.
#[derive(Debug)]
pub struct Incoming<T> {
    receiver: Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// The vCPU thread's end of the orders.
pub type Orders = Incoming<Order>;
/// The vCPU thread's end of the reports.
pub type Reports = Outgoing<Report>;

/// Makes a queue.
pub fn queue<T>() -> rustix::io::Result<(Outgoing<T>, Incoming<T>)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = channel();
    Ok((Outgoing { sender, bell: Arc::clone(&bell) }, Incoming { receiver, bell }))
}

impl<T> Outgoing<T> {
    /// Sends and rings. If the other end is gone the process is ending, and nobody needs it.
    pub fn send(&self, item: T) {
        let _ = self.sender.send(item);
        self.ring();
    }

    /// Rings only.
    pub fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl<T> Incoming<T> {
    /// What to wait for.
    #[must_use]
    pub fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// The next item, if there is one.
    #[must_use]
    pub fn next(&self) -> Option<T> {
        if let Ok(item) = self.receiver.try_recv() {
            return Some(item);
        }
        // Empty the bell first, then look again: an item sent in between rings once more.
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        self.receiver.try_recv().ok()
    }
}
