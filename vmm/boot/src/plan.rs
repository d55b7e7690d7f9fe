//! Where everything lies in guest-physical memory.
//!
//! ```text
//! low bank, from 0 (one memory slot, made before anything is known of the function)
//!   0x00_0000  unused page
//!   0x00_1000  GDT and TSS | IDT | stubs | exception stack      virtual = physical
//!   0x00_5000  page tables                                      no virtual address at all
//!   0x10_0000  boot pages                                       virtual = physical
//!   0x20_0000  guest program                                    virtual = physical
//!   then, each at a 2 MiB boundary: mailbox, stack, the heap's beginning, code, task archive, heap
//! high bank, from 4 GiB (a second slot, only when the low bank is too small): what did not fit, heap last
//! ```
//! The order is compact because KVM keeps metadata for every page of a slot, used or not. Only the heap is ever split.

use crate::paging::{Access, Mapping};
use alloc::vec::Vec;
use core::ops::Range;
use warren_abi::window::{
    BOOT, CODE, HEAP, LARGE_PAGE_SIZE, MAILBOX, PAGE_SIZE, PROGRAM, STACK, SUPERVISOR, TASK, Window,
};

/// Page of the GDT and the TSS.
pub const GDT: Range<u64> = 0x1000..0x2000;
/// Page of the IDT.
pub const IDT: Range<u64> = 0x2000..0x3000;
/// Page of the exception stubs.
pub const STUBS: Range<u64> = 0x3000..0x4000;
/// Page of the stack that exceptions use.
pub const EXCEPTION_STACK: Range<u64> = 0x4000..0x5000;
/// Pages for page tables.
pub const TABLES: Range<u64> = 0x5000..SUPERVISOR.end();
/// Where the high bank starts.
pub const HIGH_BASE: u64 = 4 << 30;
/// Most bytes of the low bank: above it lie the addresses that processors and chipsets keep for themselves.
pub const LOW_MAX: u64 = 3 << 30;
/// Bytes at the heap's beginning that lie at the same place whatever the function: what is touched first can be made ready before it
/// is known ([`crate::rehearsal`]).
pub const HEAP_BEGINNING: u64 = 4 << 20;
/// Bytes of stack a guest gets.
pub const STACK_LEN: u64 = STACK.max_len;

/// What the plan has to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of code, more than 0.
    pub code: u64,
    /// Bytes of the task archive, 0 for none.
    pub task: u64,
    /// Bytes of heap, more than 0.
    pub heap: u64,
}

/// The parts that do not depend on the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The mailbox.
    pub mailbox: Mapping,
    /// The stack.
    pub stack: Mapping,
    /// Where the heap begins, for [`HEAP_BEGINNING`] bytes.
    pub heap: u64,
    /// First guest-physical address after them.
    pub end: u64,
}

/// Where a function's parts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The function's code.
    pub code: Mapping,
    /// Its files.
    pub task: Option<Mapping>,
    /// Its heap, in one to three pieces.
    pub heap: Vec<Mapping>,
    /// Bytes of high bank needed, 0 for none.
    pub high_len: u64,
}

/// Why sizes cannot be placed: always the caller's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A part is empty that must not be, or larger than its window.
    #[error("{part} of {len} bytes: allowed are {min} to {max}")]
    Size {
        /// Which part.
        part: &'static str,
        /// What was asked.
        len: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// The low bank is smaller than the fixed parts, or larger than [`LOW_MAX`].
    #[error("a class of {len} bytes: allowed are {min} to {max}")]
    Class {
        /// What was asked.
        len: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
}

/// Supervisor pages; page tables are left out on purpose.
pub const SUPERVISOR_MAPPINGS: [Mapping; 4] = [
    identity(&GDT, Access::SupervisorRead),
    identity(&IDT, Access::SupervisorRead),
    identity(&STUBS, Access::SupervisorExecute),
    identity(&EXCEPTION_STACK, Access::SupervisorWrite),
];

/// The boot pages for a boot area of `len` bytes.
#[must_use]
pub const fn boot_mapping(len: u64) -> Mapping {
    Mapping { va: BOOT.base, gpa: BOOT.base, len: page_up(len), access: Access::UserRead }
}

impl Base {
    /// Places mailbox and stack after a guest program that ends at `program_end`, in a low bank of `low_len` bytes.
    pub fn new(program_end: u64, low_len: u64) -> Result<Self, PlanError> {
        let mut next = large_up(program_end.clamp(PROGRAM.base, PROGRAM.end()));
        let mut place = |window: Window, len| {
            let mapping = Mapping { va: window.base, gpa: next, len, access: Access::UserWrite };
            next = large_up(next + len);
            mapping
        };
        let mailbox = place(MAILBOX, warren_abi::mailbox::MAILBOX_LEN);
        let stack = place(STACK, STACK_LEN);
        let base = Self { mailbox, stack, heap: next, end: next + HEAP_BEGINNING };
        if low_len < base.end || low_len > LOW_MAX || !low_len.is_multiple_of(LARGE_PAGE_SIZE) {
            return Err(PlanError::Class { len: low_len, min: base.end, max: LOW_MAX });
        }
        Ok(base)
    }

    /// Places a function's parts.
    pub fn place(&self, sizes: Sizes, low_len: u64) -> Result<Plan, PlanError> {
        let code = checked("code", sizes.code, 1, CODE)?;
        let task = checked("task archive", sizes.task, 0, TASK)?;
        let heap = checked("memory", sizes.heap, 1, HEAP)?;
        let mut banks = Banks { low: self.end..low_len, high: HIGH_BASE };
        let code = banks.whole(CODE.base, code, Access::UserExecute);
        let task = (task > 0).then(|| banks.whole(TASK.base, task, Access::UserRead));
        let (first, rest) = (heap.min(HEAP_BEGINNING), heap.saturating_sub(HEAP_BEGINNING));
        let beginning = Mapping { va: HEAP.base, gpa: self.heap, len: first, access: Access::UserWrite };
        let mut heap = Vec::from([beginning]);
        heap.extend(banks.split(HEAP.base + first, rest, Access::UserWrite));
        Ok(Plan { code, task, heap, high_len: banks.high - HIGH_BASE })
    }
}

/// What is free: a range below, and everything from a point above.
struct Banks {
    low: Range<u64>,
    high: u64,
}

impl Banks {
    fn whole(&mut self, va: u64, len: u64, access: Access) -> Mapping {
        if self.low.end - self.low.start >= large_up(len) {
            self.take_low(va, len, access)
        } else {
            self.take_high(va, len, access)
        }
    }

    fn split(&mut self, va: u64, len: u64, access: Access) -> Vec<Mapping> {
        let low = len.min(self.low.end - self.low.start);
        let mut pieces = Vec::with_capacity(2);
        if low > 0 {
            pieces.push(self.take_low(va, low, access));
        }
        if low < len {
            pieces.push(self.take_high(va + low, len - low, access));
        }
        pieces
    }

    fn take_low(&mut self, va: u64, len: u64, access: Access) -> Mapping {
        let gpa = self.low.start;
        self.low.start = large_up(gpa + len).min(self.low.end);
        Mapping { va, gpa, len, access }
    }

    fn take_high(&mut self, va: u64, len: u64, access: Access) -> Mapping {
        let gpa = self.high;
        self.high = large_up(gpa + len);
        Mapping { va, gpa, len, access }
    }
}

fn checked(part: &'static str, len: u64, min: u64, window: Window) -> Result<u64, PlanError> {
    if (min..=window.max_len).contains(&len) {
        Ok(page_up(len))
    } else {
        Err(PlanError::Size { part, len, min, max: window.max_len })
    }
}

const fn identity(range: &Range<u64>, access: Access) -> Mapping {
    Mapping { va: range.start, gpa: range.start, len: range.end - range.start, access }
}

/// Rounds up to a page; lengths here are bounded by windows, far below overflow.
#[must_use]
pub const fn page_up(len: u64) -> u64 {
    len.saturating_add(PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE
}

/// Rounds up to a large page.
#[must_use]
pub const fn large_up(len: u64) -> u64 {
    len.saturating_add(LARGE_PAGE_SIZE - 1) / LARGE_PAGE_SIZE * LARGE_PAGE_SIZE
}

#[cfg(test)]
mod tests;
