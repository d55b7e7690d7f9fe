//! The pager: memory of restored VMs, brought page by page from chunks while they run.
//!
//! It opens manifests with keys that the agent hands over, and puts pages into VMMs that offered their memory (userfaultfd). It
//! deliberately does *not* map guest memory, write to the origin, open anything but files in folders that it was given, know a guest, or decide who may have which image. The
//! jailer starts it, for the agent.
//!
//! Principles:
//! - A VMM is believed nothing: which image it gets was said by who started it, and whatever it offers is its own memory.
//! - A page is its image's, or the VM ends by name. Chunks are held against their names and seals (`warren-chunks`).
//! - One thread a VM: what one makes the kernel do costs no other.
//! - Decisions are plain functions over plain data ([`regions`], [`bundles`], [`memory`]); ioctls and sockets are shells.
//!
//! Modules: [`regions`] what a VMM offers, [`bundles`] which chunk brings which page, [`memory`] a VM's memory and the drawing of its
//! pages' states, [`journal`] what was touched and what it cost; [`uffd`] everything unsafe, [`fetch`] the store for threads, [`packet`] sockets, [`seal`] what the process
//! leaves itself, [`upstream`] what the agent brings, [`sys`] what it was started with, [`serve`] one VM's thread, [`protocol`] and
//! [`host`] the agent's side.

pub mod bundles;
pub mod fetch;
pub mod host;
pub mod journal;
pub mod memory;
pub mod packet;
pub mod protocol;
pub mod regions;
pub mod seal;
pub mod serve;
pub mod sys;
pub mod uffd;
pub mod upstream;

pub use host::Pager;
pub use journal::{Entry, Figures, Journal};
pub use memory::{Bring, Manner};
