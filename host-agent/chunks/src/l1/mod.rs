//! The first tier: this worker's own memory and disk.
//!
//! [`memory`] holds sealed bytes in a bounded map, [`disk`] in a bounded folder; [`index`] is the disk's decisions
//! without a disk, [`local`] both as one.

pub mod disk;
pub mod index;
pub mod local;
pub mod memory;

pub use disk::{Disk, DiskError, Found, Pinned, Put};
pub use local::{Local, Own};
pub use memory::Memory;
