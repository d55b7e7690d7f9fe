//! A 16550A serial port (National Semiconductor PC16550D).
//!
//! Sending takes no time: the transmitter is always empty. The interrupt line is edge-triggered, so every operation
//! says whether the line rises.
//!
//! ```text
//! transmitter interrupt:  off --(IER bit set, or byte sent)--> pending --(IIR read, or IER bit cleared)--> off
//! receiver interrupt:     pending as long as IER allows it and input waits
//! ```

use alloc::collections::VecDeque;
use serde::{Deserialize, Serialize};

/// Bytes of input that wait; more is not taken.
pub const INPUT_MAX: usize = 64;

const DATA: u8 = 0;
const IER: u8 = 1;
const IIR_FCR: u8 = 2;
const LCR: u8 = 3;
const MCR: u8 = 4;
const LSR: u8 = 5;
const MSR: u8 = 6;
const SCR: u8 = 7;

const IER_RECEIVED: u8 = 1 << 0;
const IER_EMPTY: u8 = 1 << 1;
const IER_MASK: u8 = 0x0F;
const IIR_NONE: u8 = 0b0001;
const IIR_EMPTY: u8 = 0b0010;
const IIR_RECEIVED: u8 = 0b0100;
const IIR_FIFOS: u8 = 0b1100_0000;
const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_INPUT: u8 = 1 << 1;
const LCR_DLAB: u8 = 1 << 7;
const MCR_LOOP: u8 = 1 << 4;
const MCR_MASK: u8 = 0x1F;
const LSR_READY: u8 = 1 << 0;
/// Transmitter holding register and shift register empty.
const LSR_EMPTY: u8 = 0b0110_0000;
/// Clear to send, data set ready, carrier detect.
const MSR_CONNECTED: u8 = 0b1011_0000;

/// The port's registers, as they stand and as they are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serial {
    divisor: [u8; 2],
    ier: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    fifos: bool,
    /// The transmitter's interrupt waits to be seen.
    empty_pending: bool,
    input: VecDeque<u8>,
}

/// What a write did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// A byte was sent.
    pub sent: Option<u8>,
    /// The interrupt line rises.
    pub raise: bool,
}

impl Serial {
    /// A read of one register.
    pub fn read(&mut self, register: u8) -> u8 {
        let divisor_access = self.lcr & LCR_DLAB != 0;
        match register {
            DATA if divisor_access => self.divisor[0],
            IER if divisor_access => self.divisor[1],
            DATA => self.input.pop_front().unwrap_or(0),
            IER => self.ier,
            IIR_FCR => {
                let cause = self.cause();
                if cause == IIR_EMPTY {
                    self.empty_pending = false;
                }
                cause | if self.fifos { IIR_FIFOS } else { 0 }
            }
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => LSR_EMPTY | if self.input.is_empty() { 0 } else { LSR_READY },
            MSR => self.modem_status(),
            SCR => self.scratch,
            _ => 0xFF,
        }
    }

    /// A write of one register.
    pub fn write(&mut self, register: u8, value: u8) -> Written {
        let divisor_access = self.lcr & LCR_DLAB != 0;
        let before = self.line();
        let mut sent = None;
        match register {
            DATA if divisor_access => self.divisor[0] = value,
            IER if divisor_access => self.divisor[1] = value,
            DATA if self.mcr & MCR_LOOP != 0 => {
                let _ = self.receive(&[value]);
            }
            DATA => {
                sent = Some(value);
                self.empty_pending = self.ier & IER_EMPTY != 0;
                // The holding register was full for a moment, so the line fell and rises again.
                return Written { sent, raise: self.empty_pending };
            }
            IER => {
                let fresh = value & !self.ier & IER_EMPTY != 0;
                self.ier = value & IER_MASK;
                self.empty_pending = self.ier & IER_EMPTY != 0 && (self.empty_pending || fresh);
            }
            IIR_FCR => {
                self.fifos = value & FCR_ENABLE != 0;
                if value & FCR_CLEAR_INPUT != 0 {
                    self.input.clear();
                }
            }
            LCR => self.lcr = value,
            MCR => self.mcr = value & MCR_MASK,
            SCR => self.scratch = value,
            _ => {}
        }
        Written { sent, raise: !before && self.line() }
    }

    /// Input from outside: how many bytes were taken, and whether the interrupt line rises.
    #[must_use]
    pub fn receive(&mut self, bytes: &[u8]) -> (usize, bool) {
        let before = self.line();
        let room = INPUT_MAX.saturating_sub(self.input.len());
        self.input.extend(bytes.iter().take(room));
        (bytes.len().min(room), !before && self.line())
    }

    /// Whether a guest can have brought a port there.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.input.len() <= INPUT_MAX && self.ier & !IER_MASK == 0 && self.mcr & !MCR_MASK == 0
    }

    fn cause(&self) -> u8 {
        if self.ier & IER_RECEIVED != 0 && !self.input.is_empty() {
            IIR_RECEIVED
        } else if self.empty_pending {
            IIR_EMPTY
        } else {
            IIR_NONE
        }
    }

    fn line(&self) -> bool {
        self.cause() != IIR_NONE
    }

    /// Always connected; in loop mode the outputs come back as inputs.
    fn modem_status(&self) -> u8 {
        if self.mcr & MCR_LOOP == 0 {
            return MSR_CONNECTED;
        }
        let bit = |from: u8, to: u8| (self.mcr >> from & 1) << to;
        bit(0, 5) | bit(1, 4) | bit(2, 6) | bit(3, 7)
    }
}

#[cfg(test)]
mod tests;
