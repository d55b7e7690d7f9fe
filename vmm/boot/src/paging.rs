//! Four-level page tables, written table by table.
//!
//! Intermediate entries are permissive and the leaf decides, so a leaf is the only place to look for a permission.
//! Accessed and dirty bits are set in advance, so that the processor never has to write a table; but for the heap, whose
//! dirty bits tell the guest what was ever written ([`warren_abi::written`]).
//! Entry bits: Intel SDM volume 3, 5.5.4, table 5-20.

use crate::memory::{GuestMemory, OutOfRange};
use warren_abi::window::{LARGE_PAGE_SIZE, PAGE_SIZE};
use warren_abi::written::Entry;

/// Entries in a table.
const ENTRIES: usize = 512;
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = Entry::DIRTY;
const LARGE: u64 = Entry::LARGE;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// First address beyond the lower half.
const VA_END: u64 = 1 << 47;

/// Who may do what with a page. There is no writable and executable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Supervisor, read-only data.
    SupervisorRead,
    /// Supervisor, code.
    SupervisorExecute,
    /// Supervisor, writable data.
    SupervisorWrite,
    /// User, read-only data.
    UserRead,
    /// User, code.
    UserExecute,
    /// User, writable data.
    UserWrite,
}

impl Access {
    fn bits(self) -> u64 {
        let user = match self {
            Self::SupervisorRead | Self::SupervisorExecute | Self::SupervisorWrite => 0,
            Self::UserRead | Self::UserExecute | Self::UserWrite => USER,
        };
        let kind = match self {
            Self::SupervisorRead | Self::UserRead => NO_EXECUTE,
            Self::SupervisorExecute | Self::UserExecute => 0,
            Self::SupervisorWrite | Self::UserWrite => WRITABLE | NO_EXECUTE,
        };
        PRESENT | ACCESSED | DIRTY | user | kind
    }

    fn from_bits(bits: u64) -> Self {
        match (bits & USER != 0, bits & WRITABLE != 0, bits & NO_EXECUTE != 0) {
            (true, true, _) => Self::UserWrite,
            (true, false, true) => Self::UserRead,
            (true, false, false) => Self::UserExecute,
            (false, true, _) => Self::SupervisorWrite,
            (false, false, true) => Self::SupervisorRead,
            (false, false, false) => Self::SupervisorExecute,
        }
    }
}

/// A run of virtual addresses and the guest-physical ones behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First virtual address.
    pub va: u64,
    /// First guest-physical address.
    pub gpa: u64,
    /// Bytes; page-aligned like the addresses.
    pub len: u64,
    /// Permission of every page in it.
    pub access: Access,
}

/// Why a mapping was not written. What was written before it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PagingError {
    /// An address or the length is not page-aligned, or a range wraps or leaves the lower half.
    #[error("mapping {0:x?} is misaligned or out of range")]
    Shape(Mapping),
    /// A page of it is mapped already.
    #[error("mapping overlaps another at {va:#x}")]
    Overlap {
        /// The page.
        va: u64,
    },
    /// No room for another table.
    #[error("page tables are full")]
    Full,
    /// The table area is not memory.
    #[error(transparent)]
    Memory(#[from] OutOfRange),
}

/// A tree of tables that grows through an area of guest-physical pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTables {
    root: u64,
    next: u64,
    end: u64,
}

impl PageTables {
    /// An empty tree whose tables come from `area`, page-aligned guest-physical memory **that is zero**.
    #[must_use]
    pub const fn new(area: core::ops::Range<u64>) -> Self {
        Self { root: area.start, next: area.start + PAGE_SIZE, end: area.end }
    }

    /// What CR3 holds.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// Maps a run, with 2 MiB pages wherever both addresses allow.
    pub fn map(&mut self, memory: &mut impl GuestMemory, mapping: Mapping) -> Result<(), PagingError> {
        self.map_leaves(memory, mapping, mapping.access.bits(), mapping.va)
    }

    /// The same with clear dirty bits, and with small pages alone below the virtual address `fine_end`.
    pub fn map_noting_writes(
        &mut self,
        memory: &mut impl GuestMemory,
        mapping: Mapping,
        fine_end: u64,
    ) -> Result<(), PagingError> {
        self.map_leaves(memory, mapping, mapping.access.bits() & !DIRTY, fine_end)
    }

    fn map_leaves(
        &mut self,
        memory: &mut impl GuestMemory,
        mapping: Mapping,
        bits: u64,
        fine_end: u64,
    ) -> Result<(), PagingError> {
        let Mapping { va, gpa, len, .. } = mapping;
        let in_range = va.checked_add(len).is_some_and(|end| end <= VA_END)
            && gpa.checked_add(len).is_some_and(|end| end <= ADDRESS);
        if !in_range || (va | gpa | len) % PAGE_SIZE != 0 {
            return Err(PagingError::Shape(mapping));
        }
        let mut done = 0;
        while done < len {
            let (va, gpa, left) = (va + done, gpa + done, len - done);
            let large = va >= fine_end && (va | gpa) % LARGE_PAGE_SIZE == 0 && left >= LARGE_PAGE_SIZE;
            let (level, step) = if large { (2, LARGE_PAGE_SIZE) } else { (1, PAGE_SIZE) };
            let room = (ENTRIES - index(va, level)) as u64;
            // A run of small pages ends where a large one can take over.
            let run = if large { left } else { left.min(LARGE_PAGE_SIZE - va % LARGE_PAGE_SIZE) };
            let count = room.min(run / step);
            let leaf = gpa | bits | if large { LARGE } else { 0 };
            let table = self.table(memory, va, level)?;
            Leaves { table, first: index(va, level), count, leaf, step }.write(memory, va)?;
            done += count * step;
        }
        Ok(())
    }

    /// The guest-physical address and the permission behind a virtual address.
    pub fn translate(&self, memory: &impl GuestMemory, va: u64) -> Result<Option<(u64, Access)>, OutOfRange> {
        let mut table = self.root;
        for level in (1..=4).rev() {
            let entry = read_entry(memory, table, index(va, level))?;
            if entry & PRESENT == 0 {
                return Ok(None);
            }
            if level == 1 || (level == 2 && entry & LARGE != 0) {
                let offset = va % if level == 1 { PAGE_SIZE } else { LARGE_PAGE_SIZE };
                return Ok(Some(((entry & ADDRESS) + offset, Access::from_bits(entry))));
            }
            table = entry & ADDRESS;
        }
        Ok(None)
    }

    /// The guest-physical address of the table of `level` that covers `va`, if there is one: 1 for a page table, 2 for a
    /// page directory.
    pub fn table_of(
        &self,
        memory: &impl GuestMemory,
        va: u64,
        level: u32,
    ) -> Result<Option<u64>, OutOfRange> {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            let entry = read_entry(memory, table, index(va, above))?;
            if entry & PRESENT == 0 || entry & LARGE != 0 {
                return Ok(None);
            }
            table = entry & ADDRESS;
        }
        Ok(Some(table))
    }

    /// The table of `level` that covers `va`, made with its parents where it is missing.
    fn table(&mut self, memory: &mut impl GuestMemory, va: u64, level: u32) -> Result<u64, PagingError> {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            let slot = index(va, above);
            let entry = read_entry(memory, table, slot)?;
            if entry & LARGE != 0 {
                return Err(PagingError::Overlap { va });
            }
            table = if entry & PRESENT == 0 {
                let fresh = self.next;
                if fresh >= self.end {
                    return Err(PagingError::Full);
                }
                self.next = fresh + PAGE_SIZE;
                let link = fresh | PRESENT | WRITABLE | USER | ACCESSED;
                memory.write(table + slot as u64 * 8, &link.to_le_bytes())?;
                fresh
            } else {
                entry & ADDRESS
            };
        }
        Ok(table)
    }
}

/// A run of leaves in one table.
struct Leaves {
    table: u64,
    first: usize,
    count: u64,
    /// The first one; each next one is a `step` further.
    leaf: u64,
    step: u64,
}

impl Leaves {
    /// Reads the slots, insists that they are free, writes them.
    fn write(&self, memory: &mut impl GuestMemory, va: u64) -> Result<(), PagingError> {
        let mut bytes = [0_u8; ENTRIES * 8];
        let at = self.table + self.first as u64 * 8;
        let len = usize::try_from(self.count * 8).unwrap_or(usize::MAX);
        let run = bytes.get_mut(..len).ok_or(PagingError::Full)?;
        memory.read(at, run)?;
        let (slots, _) = run.as_chunks_mut::<8>();
        for (slot, distance) in slots.iter_mut().zip((0..).step_by(usize::try_from(self.step).unwrap_or(1))) {
            if *slot != [0; 8] {
                return Err(PagingError::Overlap { va: va + distance });
            }
            *slot = (self.leaf + distance).to_le_bytes();
        }
        memory.write(at, run)?;
        Ok(())
    }
}

fn read_entry(memory: &impl GuestMemory, table: u64, slot: usize) -> Result<u64, OutOfRange> {
    let mut bytes = [0; 8];
    memory.read(table + slot as u64 * 8, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The slot of `va` in a table of `level` (4 is the root).
fn index(va: u64, level: u32) -> usize {
    let slot = (va >> (12 + 9 * (level - 1))) & 0x1FF;
    usize::try_from(slot).unwrap_or(0)
}

#[cfg(test)]
mod tests;
