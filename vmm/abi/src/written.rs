//! Which pages of the heap were ever written: the processor knows, and the guest may read it.
//!
//! The page tables that map [`crate::window::HEAP`] start with every dirty bit clear, nobody ever clears one again, and
//! they are mapped read-only in [`crate::window::TABLES`]. A page whose bit is clear still holds the zeros it came with.
//! That is how a guest gives an event fresh memory without zeroing what no event ever touched.
//!
//! ```text
//! TABLES.base + 4096 * n                       n < DIRECTORIES: the page directory of the heap's n-th GiB
//! TABLES.base + 4096 * (DIRECTORIES + n)       n < FINE_TABLES: the page table of the heap's n-th 2 MiB
//! ```
//! Only the heap's first [`FINE_LEN`] bytes have page tables; beyond, a directory's entry is a page of 2 MiB. (An entry
//! that is neither says nothing: what it maps may have been written.)

use crate::window::{HEAP, LARGE_PAGE_SIZE, PAGE_SIZE, TABLES};

/// Bytes of a page directory's reach.
pub const DIRECTORY_REACH: u64 = 1 << 30;
/// Pages of directories.
pub const DIRECTORIES: u64 = HEAP.max_len / DIRECTORY_REACH;
/// Bytes of the heap, from its start, that are mapped by small pages.
pub const FINE_LEN: u64 = 8 << 20;
/// Pages of tables for them.
pub const FINE_TABLES: u64 = FINE_LEN / LARGE_PAGE_SIZE;

const _: () = assert!((DIRECTORIES + FINE_TABLES) * PAGE_SIZE <= TABLES.max_len);

/// A page-table entry, as far as this contract goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// Set by the processor before the first write through the entry.
    pub const DIRTY: u64 = 1 << 6;
    /// In a directory: the entry is itself a page of 2 MiB.
    pub const LARGE: u64 = 1 << 7;

    /// Whether the page may have been written.
    #[must_use]
    pub const fn is_written(self) -> bool {
        self.0 & Self::DIRTY != 0
    }

    /// Whether a directory's entry is a page itself.
    #[must_use]
    pub const fn is_large(self) -> bool {
        self.0 & Self::LARGE != 0
    }
}
