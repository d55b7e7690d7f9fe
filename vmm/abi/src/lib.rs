//! The contract between the Wasm guest (`vmm/guest`) and the monitor (`warren-vmm`), versioned as one number.
//!
//! Both sides compile this crate, so a layout can only change for both at once; [`ABI_VERSION`] stands in the
//! guest's ELF note, in the boot page and in the control protocol, and each is checked.
//!
//! It deliberately does *not* know KVM, page tables, WASI or Wasmtime.
//!
//! Principles:
//! - Virtual addresses are fixed windows ([`window`]); guest-physical placement is the monitor's own business.
//! - Everything the guest writes is untrusted: the monitor copies the reply header once, then validates it
//!   ([`mailbox::Reply::validate`]).
//! - One doorbell write hands over a reply and takes the next event: one exit an invocation.
//!
//! Modules: [`window`] address windows, [`written`] which pages of the heap were ever written, [`entry`] the guest's ELF file and first registers, [`boot`] the boot page, [`mailbox`] events and replies, [`isa`] the
//! instruction sets compiled code may use, [`engine`] Wasmtime settings, [`wasi`] import names, [`outcome`] how an
//! invocation can end.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod boot;
pub mod engine;
pub mod entry;
pub mod isa;
pub mod mailbox;
pub mod outcome;
pub mod wasi;
pub mod window;
pub mod written;

/// The version of everything in this crate. Bumped on any change of layout or meaning.
pub const ABI_VERSION: u32 = 3;

/// The I/O port of the doorbell. The guest runs at IOPL 3, so the write is one exit and no fault.
pub const DOORBELL_PORT: u16 = 0x0D0B;

/// The I/O port on which the supervisor stubs report an exception vector (a `u32` write, low byte the vector).
pub const EXCEPTION_PORT: u16 = 0x0D0E;

/// The Wasmtime release whose precompiled code the guest accepts; host and guest pin the same one.
pub const WASMTIME_VERSION: &str = "48.0.8";
