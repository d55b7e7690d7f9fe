//! The serial port as a vCPU reaches it, and the log behind it.
//!
//! A vCPU thread only moves bytes between registers and memory here; the main thread passes lines on.

use super::interrupts::Line;
use crate::orders::Outgoing;
use crate::progress::monotonic_ns;
use std::sync::{Mutex, MutexGuard, PoisonError};
use warren_devices::console::ConsoleLog;
use warren_devices::serial::Serial;
use warren_state::linux::device::ConsoleState;

/// A guest's console.
#[derive(Debug)]
pub struct Console {
    inner: Mutex<Inner>,
    interrupt: Line,
    bell: Outgoing<()>,
}

#[derive(Debug, Default)]
struct Inner {
    port: Serial,
    log: ConsoleLog,
}

impl Console {
    /// A port with nobody at it. `interrupt` raises its line, `bell` tells that there are lines.
    #[must_use]
    pub fn new(interrupt: Line, bell: Outgoing<()>) -> Self {
        Self { inner: Mutex::default(), interrupt, bell }
    }

    /// As it stands.
    #[must_use]
    pub fn state(&self) -> ConsoleState {
        let inner = self.lock();
        ConsoleState { port: inner.port.clone(), line: inner.log.open_line().to_vec() }
    }

    /// Goes on where one was written down. A line that was begun here is whole then.
    pub fn resume(&self, state: ConsoleState) {
        let mut inner = self.lock();
        inner.port = state.port;
        if !inner.log.open_line().is_empty() {
            inner.log.push(b'\n');
        }
        for byte in state.line {
            inner.log.push(byte);
        }
    }

    /// A read of a register.
    pub fn read(&self, register: u8) -> u8 {
        self.lock().port.read(register)
    }

    /// A write of a register.
    pub fn write(&self, register: u8, value: u8) {
        let mut inner = self.lock();
        let written = inner.port.write(register, value);
        let line = written.sent.is_some_and(|byte| inner.log.push(byte));
        drop(inner);
        if written.raise {
            self.interrupt.raise();
        }
        if line {
            self.bell.ring();
        }
    }

    /// Passes on what waits; main thread.
    pub fn pass_on(&self, mut show: impl FnMut(&str)) {
        let now = monotonic_ns();
        loop {
            let line = self.lock().log.take(now);
            match line {
                Some(line) => show(&line),
                None => break,
            }
        }
        let dropped = self.lock().log.take_dropped();
        if dropped > 0 {
            show(&format!("({dropped} lines dropped: the guest prints faster than it may)"));
        }
    }

    /// The last lines.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.lock().log.last().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every register access leaves the port consistent, so a panicked holder leaves nothing to repair.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
