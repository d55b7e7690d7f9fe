//! Virtual address windows of the Wasm guest.
//!
//! ```text
//! 0x0000_0000  unmapped                                   null pointers fault
//! 0x0000_1000  supervisor: GDT, IDT, TSS, stubs, tables   not user-accessible
//! 0x0010_0000  boot page(s)                               r--
//! 0x0020_0000  guest program                              by ELF segment: r-x, r--, rw-
//! 0x0100_0000  mailbox                                    rw-
//! 0x0220_0000  stack (guard below is unmapped)            rw-
//! 0x0300_0000  the heap's own page tables, to be read      r--
//! 0x0400_0000  function code: the precompiled artefact    r-x
//! 0x2000_0000  /var/task archive                          r--
//! 0x4000_0000  heap and linear memories                   rw-
//! ```
//! Only what a function needs is mapped in each window; the rest faults.

/// A window: its first address and how many bytes may be mapped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First virtual address.
    pub base: u64,
    /// Most bytes that may be mapped from `base` on.
    pub max_len: u64,
}

impl Window {
    /// The first address after the window.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.base + self.max_len
    }
}

/// Bytes in a small page.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes in a large page.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Descriptor tables, exception stubs and page tables; not accessible in user mode.
pub const SUPERVISOR: Window = Window { base: 0x1000, max_len: 0xF_F000 };
/// The boot page, see [`crate::boot`].
pub const BOOT: Window = Window { base: 0x10_0000, max_len: 0x1_0000 };
/// The guest program's ELF segments.
pub const PROGRAM: Window = Window { base: 0x20_0000, max_len: 0xE0_0000 };
/// The mailbox, see [`crate::mailbox`].
pub const MAILBOX: Window = Window { base: 0x100_0000, max_len: 0x100_0000 };
/// The guest program's stack; the page below `base` is never mapped.
pub const STACK: Window = Window { base: 0x220_0000, max_len: 0x20_0000 };
/// The page tables of [`HEAP`], see [`crate::written`].
pub const TABLES: Window = Window { base: 0x300_0000, max_len: 0x10_0000 };
/// The precompiled function, mapped read-execute as it lies in the artefact file.
pub const CODE: Window = Window { base: 0x400_0000, max_len: 0x1C00_0000 };
/// The function's files (`/var/task`), a ustar archive.
pub const TASK: Window = Window { base: 0x2000_0000, max_len: 0x2000_0000 };
/// Heap of the guest program and linear memories of the function; its length is the function's memory.
pub const HEAP: Window = Window { base: 0x4000_0000, max_len: 11 << 30 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_ordered_disjoint_and_page_aligned() {
        let all = [SUPERVISOR, BOOT, PROGRAM, MAILBOX, STACK, TABLES, CODE, TASK, HEAP];
        for window in all {
            assert_eq!(window.base % PAGE_SIZE, 0, "{window:x?}");
            assert_eq!(window.max_len % PAGE_SIZE, 0, "{window:x?}");
        }
        for pair in all.windows(2) {
            assert!(pair[0].end() <= pair[1].base, "{pair:x?}");
        }
        assert!(STACK.base - MAILBOX.end() >= PAGE_SIZE, "guard below the stack");
    }
}
