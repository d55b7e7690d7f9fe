//! The logic of a Linux guest's devices: what an access to a register means, what a request asks for.
//!
//! It deliberately does *not* know KVM, files, sockets, threads or how rings are walked: registers come in as numbers,
//! requests as [`virtio::Chain`]s of ranges, and what is to be done goes out as a value. The monitor does it.
//!
//! Principles:
//! - The driver is the attacker. Every number it gives has one place where it is judged; arithmetic on it is checked.
//! - What a request's header says is copied once and never read again.
//! - A device's answer is data: nothing here performs I/O, raises interrupts or blocks.
//!
//! Modules: [`serial`] the 16550 and [`console`] the bounded log behind it, [`ioapic`] interrupt lines,
//! [`keyboard`] and [`power`] reset and soft-off, [`rate`] limits, [`vmclock`] when the clock was disturbed, [`virtio`] the transport and the devices on it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod console;
pub mod ioapic;
pub mod keyboard;
pub mod power;
pub mod rate;
pub mod serial;
pub mod virtio;
pub mod vmclock;
