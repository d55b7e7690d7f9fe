//! What a Linux guest's memory and first vCPU hold before its first instruction.
//!
//! It deliberately does *not* read files, know KVM or choose devices: a kernel is judged through
//! [`FileBytes`](crate::elf::FileBytes), and everything is written through [`GuestMemory`](crate::GuestMemory).
//!
//! Principles:
//! - A kernel or initrd is untrusted until [`image::KernelImage::parse`] and [`place::Placement::new`] have judged it;
//!   holding their results proves that every range lies in guest memory and that no two overlap.
//! - Every refusal says what is wrong and with whose file or number.
//! - One table of addresses ([`layout`]), one table of devices ([`acpi`]): nothing is declared twice.
//!
//! Modules: [`image`] the kernel's file ([`bzimage`], [`vmlinux`]), [`layout`] fixed addresses and the memory map,
//! [`place`] where kernel and initrd go, [`command_line`], [`params`] what the kernel is handed, [`registers`] the first
//! vCPU, [`acpi`] the tables, `events` devices by which the host tells the guest something.

pub mod acpi;
pub mod bzimage;
pub mod command_line;
mod events;
pub mod image;
pub mod layout;
pub mod params;
pub mod place;
pub mod registers;
pub mod vmlinux;

pub use command_line::CommandLine;
pub use image::{Entry, ImageError, KernelImage};
pub use place::{Placement, PlacementError};
