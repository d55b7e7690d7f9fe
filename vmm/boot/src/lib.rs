//! What a guest's memory holds before its first instruction, and where each part lies in guest-physical memory: for a
//! Wasm guest page tables, descriptor tables, exception stubs and the program's segments; for a Linux guest ([`linux`])
//! the kernel, its initrd and what the boot protocol and ACPI hand it.
//!
//! It deliberately does *not* know KVM, host mappings, sockets or the function: given numbers and a [`GuestMemory`]
//! it writes bytes, and the same input always gives the same bytes.
//!
//! Principles:
//! - W^X is a type: [`paging::Access`] has no variant that is both writable and executable.
//! - Page tables lie in guest-physical memory that no virtual address reaches, not even the supervisor's.
//! - Everything from a file is refused unless it is exactly what the contract (`warren_abi::entry`) says.
//!
//! Modules: [`plan`] guest-physical placement, [`paging`] page tables, [`descriptors`] GDT, TSS and IDT,
//! [`exceptions`] stubs and their frame, [`elf`] the guest program, [`entry`] first register state, [`rehearsal`] a guest that
//! only touches pages, [`memory`] the trait everything is written through; [`linux`] all of it for Linux guests.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod descriptors;
pub mod elf;
pub mod entry;
pub mod exceptions;
pub mod linux;
pub mod memory;
pub mod paging;
pub mod plan;
pub mod rehearsal;

pub use memory::{GuestMemory, OutOfRange};
pub use paging::{Access, Mapping, PageTables};
pub use plan::{Plan, Sizes};
