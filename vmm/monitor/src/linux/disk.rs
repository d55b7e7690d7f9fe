//! A disk's thread: its ring, its file, and nothing else, so that what blocks there delays that disk alone.
//!
//! ```text
//!  waits for its disk --order--> serves --ring empty--> reads the doorbell (blocks) --rung--> serves ...
//!                                   '------ a limit --> waits for the doorbell, no longer than the limit ----^
//! ```
//! The doorbell is read, not watched: to wait for it and to empty it is one system call.

use super::worker::Work;
use crate::orders::Incoming;
use crate::progress::{milliseconds, monotonic_ns};
use std::io;
use std::os::fd::AsRawFd;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// The queue of a disk's requests.
const REQUESTS: usize = 0;

/// A disk's thread that has yet to be started.
#[derive(Debug)]
pub struct Disk {
    orders: Incoming<Vec<Work>>,
    epoll: Epoll,
}

impl Disk {
    /// Makes what the thread itself may no longer make once it is narrowed.
    pub fn new(orders: Incoming<Vec<Work>>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, orders.bell().as_raw_fd(), event)?;
        Ok(Self { orders, epoll })
    }

    /// Works until the process ends, or waiting fails.
    #[must_use]
    pub fn work(self) -> anyhow::Error {
        let Err(error) = self.serve();
        anyhow::Error::new(error).context("a disk's thread cannot wait")
    }

    fn serve(&self) -> io::Result<std::convert::Infallible> {
        let (device, mut backend) = loop {
            if let Some(work) = self.orders.next().and_then(|work| work.into_iter().next()) {
                break work;
            }
            self.wait(-1)?;
        };
        let bell = device.doorbells().first().ok_or(io::ErrorKind::NotFound)?;
        // From here on nothing but the doorbell comes.
        self.epoll.ctl(ControlOperation::Delete, self.orders.bell().as_raw_fd(), EpollEvent::default())?;
        self.epoll.ctl(ControlOperation::Add, bell.as_raw_fd(), EpollEvent::new(EventSet::IN, 0))?;
        loop {
            match device.serve(REQUESTS, backend.as_mut()) {
                None => empty(bell)?,
                Some(wake) => {
                    if self.wait(milliseconds(wake.saturating_sub(monotonic_ns())))? {
                        empty(bell)?;
                    }
                }
            }
        }
    }

    /// Whether something came before the time was over.
    fn wait(&self, patience_ms: i32) -> io::Result<bool> {
        match self.epoll.wait(patience_ms, &mut [EpollEvent::default()]) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Waits for a doorbell and empties it.
fn empty(bell: &EventFd) -> io::Result<()> {
    match bell.read() {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        // Rung, or interrupted: to look once more harms nobody.
        _ => Ok(()),
    }
}
