//! The first vCPU's registers, its GDT, and the page tables of the 64-bit entry.

use super::image::Entry;
use super::layout::{BOOT_PARAMS, GDT, PVH_INFO, TABLES};
use crate::descriptors::Segment;
use crate::{GuestMemory, OutOfRange};
use alloc::vec::Vec;

const PROTECTED: u64 = 1 << 0;
const EXTENSION_TYPE: u64 = 1 << 4;
const PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
/// Long mode enabled and active.
const EFER_LONG: u64 = 1 << 8 | 1 << 10;
/// Reserved bit 1 only: interrupts are off.
const RFLAGS: u64 = 1 << 1;
/// Present, writable, and for leaves large.
const TABLE: u64 = 0b11;
const LARGE: u64 = TABLE | 1 << 7;
const ENTRIES: u64 = 512;

/// `__BOOT_CS` in 64-bit mode.
const CODE_64: Segment =
    Segment { selector: 0x10, base: 0, limit: u32::MAX, kind: 0xB, code_or_data: true, dpl: 0, long: true };
/// The same, 32-bit.
const CODE_32: Segment = Segment { long: false, ..CODE_64 };
/// `__BOOT_DS`.
const DATA: Segment = Segment { selector: 0x18, kind: 0x3, long: false, ..CODE_64 };
/// A task state nobody uses: the processor wants one, and PVH says which.
const TASK: Segment =
    Segment { selector: 0x20, base: 0, limit: 0x67, kind: 0xB, code_or_data: false, dpl: 0, long: false };

/// Registers at the first instruction; those it does not name are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// CS.
    pub code: Segment,
    /// SS, DS, ES, FS, GS.
    pub data: Segment,
    /// TR.
    pub task: Segment,
    /// GDTR: base and limit.
    pub gdt: (u64, u16),
    /// First instruction.
    pub rip: u64,
    /// PVH: the start info.
    pub rbx: u64,
    /// 64-bit entry: `boot_params`.
    pub rsi: u64,
    /// Flags.
    pub rflags: u64,
}

impl Registers {
    /// The state that starts a kernel by `entry`.
    #[must_use]
    pub fn new(entry: Entry) -> Self {
        let protected = Self {
            cr0: PROTECTED | EXTENSION_TYPE,
            cr3: 0,
            cr4: 0,
            efer: 0,
            code: CODE_32,
            data: DATA,
            task: TASK,
            gdt: (GDT, 5 * 8 - 1),
            rip: 0,
            rbx: 0,
            rsi: 0,
            rflags: RFLAGS,
        };
        match entry {
            Entry::Pvh(rip) => Self { rip, rbx: PVH_INFO, ..protected },
            Entry::Long(rip) => Self {
                cr0: protected.cr0 | PAGING,
                cr3: TABLES.start,
                cr4: CR4_PAE,
                efer: EFER_LONG,
                code: CODE_64,
                rip,
                rsi: BOOT_PARAMS,
                ..protected
            },
        }
    }
}

/// Writes the GDT, and page tables that map the first 4 GiB to themselves.
pub fn write_tables(memory: &mut impl GuestMemory, entry: Entry) -> Result<(), OutOfRange> {
    let code = if matches!(entry, Entry::Long(_)) { 0x00AF_9B00_0000_FFFF } else { 0x00CF_9B00_0000_FFFF };
    let gdt: [u64; 5] = [0, 0, code, 0x00CF_9300_0000_FFFF, 0x0000_8B00_0000_0067];
    memory.write(GDT, &bytes(gdt))?;
    let pointers = TABLES.start + 0x1000;
    memory.write(TABLES.start, &bytes([pointers | TABLE]))?;
    memory.write(pointers, &bytes([1, 2, 3, 4].map(|n| (pointers + n * 0x1000) | TABLE)))?;
    let leaves: Vec<u8> = (0..4 * ENTRIES).flat_map(|page| (page << 21 | LARGE).to_le_bytes()).collect();
    memory.write(pointers + 0x1000, &leaves)
}

fn bytes<const N: usize>(words: [u64; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_map_low_memory_to_itself_and_fit_their_place() {
        let mut memory = alloc::vec![0; usize::try_from(TABLES.end).unwrap()];
        write_tables(&mut memory, Entry::Long(0)).unwrap();
        let word = |at: u64| {
            let at = usize::try_from(at).unwrap();
            u64::from_le_bytes(memory[at..at + 8].try_into().unwrap())
        };
        for va in [0_u64, 0x10_0000, 0x100_0000, 0xBFFF_F000, 0xFFFF_F000] {
            let mut table = TABLES.start;
            for shift in [39, 30] {
                let entry = word(table + (va >> shift) % ENTRIES * 8);
                assert_eq!(entry & 0xFFF, TABLE, "{va:#x}");
                table = entry & !0xFFF;
            }
            assert_eq!(word(table + (va >> 21) % ENTRIES * 8), va >> 21 << 21 | LARGE, "{va:#x}");
        }
    }

    #[test]
    fn the_two_entries_differ_as_their_protocols_say() {
        let long = Registers::new(Entry::Long(0x100_0200));
        assert_eq!(
            (long.rip, long.rsi, long.code.selector, long.code.long),
            (0x100_0200, 0x7000, 0x10, true)
        );
        assert_ne!(long.cr0 & PAGING, 0);
        let pvh = Registers::new(Entry::Pvh(0x100_0000));
        assert_eq!((pvh.rip, pvh.rbx, pvh.rsi, pvh.code.long), (0x100_0000, 0x6000, 0, false));
        assert_eq!((pvh.cr0 & PAGING, pvh.cr4, pvh.efer), (0, 0, 0));
    }
}
