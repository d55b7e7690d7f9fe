//! GDT, TSS and IDT as bytes. Layouts: Intel SDM volume 3, 3.4.5 (segment descriptors), 8.7 (64-bit TSS),
//! 7.14.1 (64-bit IDT gates).

use crate::plan::{EXCEPTION_STACK, GDT, STUBS};
use warren_abi::DOORBELL_PORT;

/// A segment as the processor caches it; the fields a hypervisor sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Selector with its privilege level.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes (already scaled).
    pub limit: u32,
    /// Type field.
    pub kind: u8,
    /// Code or data, not system.
    pub code_or_data: bool,
    /// Privilege level.
    pub dpl: u8,
    /// 64-bit code.
    pub long: bool,
}

/// Selector of the supervisor's code.
pub const SUPERVISOR_CODE: u16 = 0x08;
/// User data: selector 0x18 at privilege level 3.
pub const USER_DATA: Segment =
    Segment { selector: 0x1B, base: 0, limit: u32::MAX, kind: 0x3, code_or_data: true, dpl: 3, long: false };
/// User code: selector 0x20 at privilege level 3.
pub const USER_CODE: Segment =
    Segment { selector: 0x23, base: 0, limit: u32::MAX, kind: 0xB, code_or_data: true, dpl: 3, long: true };
/// The busy 64-bit TSS with its I/O bitmap.
///
/// The guest runs at IOPL 3, where the processor consults no bitmap. A KVM without hardware virtualisation runs user
/// mode with its own flags, loses the IOPL, and then asks the bitmap; there it opens the doorbell and nothing else.
pub const TASK_STATE: Segment = Segment {
    selector: 0x28,
    base: GDT.start + TSS_OFFSET as u64,
    limit: TSS_LIMIT,
    kind: 0xB,
    code_or_data: false,
    dpl: 0,
    long: false,
};

/// Limit of the GDT register.
pub const GDT_LIMIT: u16 = 7 * 8 - 1;
/// Limit of the IDT register: all 256 gates.
pub const IDT_LIMIT: u16 = 256 * 16 - 1;

/// Vectors in an IDT.
pub const VECTORS: usize = 256;
/// The fixed part, the bitmap up to the doorbell's byte, the byte after it, and the terminator.
const TSS_LEN: usize = BITMAP_OFFSET + DOORBELL_PORT as usize / 8 + 3;
const BITMAP_OFFSET: usize = 0x68;
const TSS_LIMIT: u32 = 0x68 + DOORBELL_PORT as u32 / 8 + 2;
/// The doorbell may be written with 1, 2 or 4 bytes, that is up to the port three above it.
const DOORBELL_BITS: u8 = 0b1111 << (DOORBELL_PORT % 8);
const _: () = assert!(TSS_LIMIT as usize == TSS_LEN - 1 && IDT_LIMIT as usize == IDT_LEN - 1);
const _: () = assert!(DOORBELL_PORT % 8 <= 4, "all four bits lie in one byte of the bitmap");
/// The TSS shares the GDT's page.
const TSS_OFFSET: usize = 0x100;
const IDT_LEN: usize = VECTORS * 16;

/// Bytes of the page that holds GDT and TSS: descriptors have their accessed and busy bits set, so that the page can
/// be read-only.
#[must_use]
pub fn gdt_page() -> [u8; TSS_OFFSET + TSS_LEN] {
    let tss = TASK_STATE.base;
    let entries: [u64; 7] = [
        0,
        0x00AF_9B00_0000_FFFF, // 0x08 supervisor code
        0x00CF_9300_0000_FFFF, // 0x10 supervisor data
        0x00CF_F300_0000_FFFF, // 0x18 user data
        0x00AF_FB00_0000_FFFF, // 0x20 user code
        (TSS_LEN as u64 - 1) | (tss & 0xFF_FFFF) << 16 | 0x8B << 40 | (tss >> 24 & 0xFF) << 56,
        tss >> 32,
    ];
    let mut page = [0; TSS_OFFSET + TSS_LEN];
    let (table, task) = page.split_at_mut(TSS_OFFSET);
    let (slots, _) = table.as_chunks_mut::<8>();
    for (slot, entry) in slots.iter_mut().zip(entries) {
        *slot = entry.to_le_bytes();
    }
    for (i, byte) in EXCEPTION_STACK.end.to_le_bytes().into_iter().enumerate() {
        put(task, 4 + i, byte); // RSP0
    }
    put(task, 0x66, 0x68); // BITMAP_OFFSET
    for byte in task.iter_mut().skip(BITMAP_OFFSET) {
        *byte = 0xFF;
    }
    put(task, BITMAP_OFFSET + DOORBELL_PORT as usize / 8, !DOORBELL_BITS);
    page
}

/// The IDT: every vector goes to its stub, at the supervisor's privilege, callable by nobody.
#[must_use]
pub fn idt() -> [u8; IDT_LEN] {
    let mut table = [0; IDT_LEN];
    let (gates, _) = table.as_chunks_mut::<16>();
    for (gate, vector) in gates.iter_mut().zip(0_u64..) {
        let target = STUBS.start + vector * crate::exceptions::STUB_LEN as u64;
        let low =
            (target & 0xFFFF) | u64::from(SUPERVISOR_CODE) << 16 | 0x8E << 40 | (target >> 16 & 0xFFFF) << 48;
        let (first, second) = gate.split_at_mut(8);
        first.copy_from_slice(&low.to_le_bytes());
        second.copy_from_slice(&(target >> 32).to_le_bytes());
    }
    table
}

fn put(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_point_at_their_stubs() {
        let table = idt();
        for vector in [0_usize, 6, 13, 14, 255] {
            let gate = &table[vector * 16..vector * 16 + 16];
            let target = u64::from(gate[0])
                | u64::from(gate[1]) << 8
                | u64::from(gate[6]) << 16
                | u64::from(gate[7]) << 24;
            assert_eq!(target, STUBS.start + (vector * crate::exceptions::STUB_LEN) as u64, "{vector}");
            assert_eq!(gate[5], 0x8E, "present, privilege 0, interrupt gate: {vector}");
        }
    }

    #[test]
    fn task_state_has_a_stack_and_opens_only_the_doorbell() {
        let page = gdt_page();
        let task = &page[TSS_OFFSET..];
        assert_eq!(task[4..12], EXCEPTION_STACK.end.to_le_bytes());
        assert_eq!(task[0x66..0x68], [0x68, 0]);
        let open = |port: u16| task[0x68 + usize::from(port) / 8] & (1 << (port % 8)) == 0;
        for port in 0..=DOORBELL_PORT + 8 {
            assert_eq!(open(port), (DOORBELL_PORT..DOORBELL_PORT + 4).contains(&port), "{port:#x}");
        }
        assert_eq!(task.last(), Some(&0xFF));
        let descriptor = u64::from_le_bytes(page[0x28..0x30].try_into().unwrap());
        assert_eq!(descriptor >> 16 & 0xFF_FFFF, TASK_STATE.base);
    }
}
