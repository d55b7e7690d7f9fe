//! A guest that touches pages and does nothing else, in a VM that waits for another.
//!
//! ```text
//!  VM that waits: scratch pages, some of those that a guest touches, too <- tables, code, list of the others
//!     vCPU: writes a zero to each page of the list, rings the doorbell
//!     scratch pages are zeroed; all are there, zero, and KVM knows them
//!  a guest is restored: its bytes are copied into pages that cost it no fault any more
//! ```
//! Where paging is nested, a guest's first touch of a page is an exit and up to two faults; which pages nearly every guest touches
//! first follows from the plan. Done while nobody waits, it is off the path of whoever adopts the VM. The touched pages are the
//! sandbox's own, some 50 of them.

use crate::entry::{EntryState, Features};
use crate::memory::GuestMemory;
use crate::paging::{Access, Mapping, PageTables, PagingError};
use crate::plan::{Base, TABLES};
use alloc::vec::Vec;
use core::ops::Range;
use warren_abi::DOORBELL_PORT;
use warren_abi::mailbox::{EVENT_HEADER_OFFSET, EVENT_OFFSET, LOG_OFFSET, REPLY_HEADER_OFFSET, REPLY_OFFSET};
use warren_abi::window::PAGE_SIZE;

/// Pages of scratch: five tables, code, list.
const SCRATCH_PAGES: u64 = 7;
/// Where in the heap the memory of a function begins.
const OWN_MEMORY: u64 = 0x20_0000;
/// Where the rehearsal sees its own code: above all memory that it touches.
const CODE_VA: u64 = 1 << 30;

/// A rehearsal that is written, and what it needs of the VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// First registers.
    pub entry: EntryState,
    /// To be zeroed afterwards, guest-physical.
    pub scratch: Range<u64>,
}

/// Pages that a guest touches between its restore and its first answer, wherever it was built from this program and placed so. Which
/// these are was seen on a host that traces KVM's faults; one too many is a page too much, one too few a fault.
fn pages(base: &Base, written: &Range<u64>) -> Vec<u64> {
    let run = |first: u64, count: u64| (0..count).map(move |page| first + page * PAGE_SIZE);
    let mailbox = base.mailbox.gpa;
    let stack_end = base.stack.gpa + base.stack.len;
    let mut pages: Vec<u64> = run(TABLES.start, 10).collect();
    // The program's own variables, which lie at both ends.
    pages.extend(
        [written.start, written.end.saturating_sub(PAGE_SIZE)]
            .into_iter()
            .filter(|page| written.contains(page)),
    );
    let parts = [EVENT_HEADER_OFFSET, REPLY_HEADER_OFFSET, LOG_OFFSET, EVENT_OFFSET, REPLY_OFFSET];
    pages.extend(parts.map(|part| mailbox + part));
    pages.extend(run(stack_end - 3 * PAGE_SIZE, 3));
    // The allocator's first pages and its ends of blocks; then the function's own memory.
    pages.extend(run(base.heap, 12));
    pages.extend([base.heap + 0xFF000, base.heap + 0x1F_F000]);
    pages.extend(run(base.heap + OWN_MEMORY, 16));
    pages
}

/// Writes a rehearsal into memory that is zero, for a program whose variables are `written` (guest-physical).
pub fn write(
    memory: &mut impl GuestMemory,
    base: &Base,
    written: &Range<u64>,
    features: Features,
) -> Result<Rehearsal, PagingError> {
    let start = base.heap + OWN_MEMORY;
    let scratch = start..start + SCRATCH_PAGES * PAGE_SIZE;
    let (code, list) = (scratch.end - 2 * PAGE_SIZE, scratch.end - PAGE_SIZE);
    let mut tables = PageTables::new(start..code);
    let all = Mapping { va: 0, gpa: 0, len: base.end, access: Access::UserWrite };
    let own = Mapping { va: CODE_VA, gpa: code, len: PAGE_SIZE, access: Access::UserExecute };
    tables.map(memory, all)?;
    tables.map(memory, own)?;
    let mut pages = pages(base, written);
    pages.retain(|page| !scratch.contains(page));
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    memory.write(list, &bytes)?;
    memory.write(code, &touching(list, pages.len()))?;
    Ok(Rehearsal { entry: EntryState::new(CODE_VA, tables.root(), features), scratch })
}

/// Writes a zero to each of so many addresses in a list, then rings.
fn touching(list: u64, count: usize) -> Vec<u8> {
    let [port_low, port_high] = DOORBELL_PORT.to_le_bytes();
    let mut code = Vec::from([0x48, 0xBE]); // mov rsi, list
    code.extend(list.to_le_bytes());
    code.push(0xB9); // mov ecx, count
    code.extend(u32::try_from(count).unwrap_or(0).to_le_bytes());
    code.extend([0x48, 0x8B, 0x06]); // next: mov rax, [rsi]
    code.extend([0xC6, 0x00, 0x00]); // mov byte [rax], 0
    code.extend([0x48, 0x83, 0xC6, 0x08]); // add rsi, 8
    code.extend([0xFF, 0xC9]); // dec ecx
    code.extend([0x75, 0xF2]); // jnz next
    code.extend([0x66, 0xBA, port_low, port_high]); // mov dx, port
    code.extend([0xEE, 0xEB, 0xFD]); // ring: out dx, al; jmp ring
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_abi::window::PROGRAM;

    /// Tables and list name what lies in the VM, the rehearsal touches each page once and never its own.
    #[test]
    fn it_touches_each_page_once_and_none_of_its_own() {
        let written = PROGRAM.base + 0x20_0000..PROGRAM.base + 0x23_1000;
        let base = Base::new(written.end, 64 << 20).unwrap();
        let mut memory = alloc::vec![0_u8; 64 << 20];
        let Rehearsal { entry, scratch } = write(&mut memory, &base, &written, Features::default()).unwrap();
        let tables = PageTables::new(entry.cr3..scratch.end);
        let seen = |va| tables.translate(&memory, va).unwrap();
        let (code, access) = seen(entry.rip).unwrap();
        assert!(access == Access::UserExecute && scratch.contains(&code));
        let list = scratch.end - PAGE_SIZE;
        let at = usize::try_from(list).unwrap();
        let mut listed: Vec<u64> = memory[at..at + 4096]
            .chunks(8)
            .map(|entry| u64::from_le_bytes(entry.try_into().unwrap()))
            .take_while(|page| *page != 0)
            .collect();
        assert!((40..60).contains(&listed.len()), "{}", listed.len());
        let parts = [base.mailbox.gpa..base.stack.gpa + base.stack.len, base.heap..base.end, TABLES, written];
        for page in &listed {
            assert!(parts.iter().any(|part| part.contains(page)) && !scratch.contains(page), "{page:x}");
            assert_eq!(seen(*page), Some((*page, Access::UserWrite)));
        }
        let count = listed.len();
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), count);
        // What is scratch is all that was written.
        for range in [0..scratch.start, scratch.end..64 << 20] {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert!(memory[range].iter().all(|byte| *byte == 0));
        }
    }
}
