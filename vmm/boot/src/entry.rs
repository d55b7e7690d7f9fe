//! The registers of a vCPU that starts directly in 64-bit user mode.

use crate::descriptors::{GDT_LIMIT, IDT_LIMIT, Segment, TASK_STATE, USER_CODE, USER_DATA};
use crate::plan::{GDT, IDT, STACK_LEN};
use warren_abi::entry::STACK_TOP_GAP;
use warren_abi::window::{BOOT, STACK};

/// Protected mode, coprocessor present, numeric errors native, write protect, alignment mask, paging.
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18 | 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_UMIP: u64 = 1 << 11;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
/// Long mode enabled and active, no-execute; system calls stay off.
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
/// Reserved bit 1, and I/O privilege level 3: the doorbell needs no bitmap.
const RFLAGS: u64 = 1 << 1 | 3 << 12;
const XCR0_X87_SSE: u64 = 0b011;
const XCR0_AVX: u64 = 0b100;

/// What the processor offers the guest, as far as the entry state depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "CPUID bits, independent of each other")]
pub struct Features {
    /// XSAVE: XCR0 exists.
    pub xsave: bool,
    /// AVX state can be enabled.
    pub avx: bool,
    /// Supervisor-mode execution prevention.
    pub smep: bool,
    /// Supervisor-mode access prevention.
    pub smap: bool,
    /// User-mode instruction prevention.
    pub umip: bool,
}

/// Register state for the first instruction; registers it does not name are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// CR0.
    pub cr0: u64,
    /// CR3: the root of the page tables.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// XCR0, where it exists.
    pub xcr0: Option<u64>,
    /// CS.
    pub code: Segment,
    /// SS, DS, ES, FS, GS.
    pub data: Segment,
    /// TR.
    pub task: Segment,
    /// GDTR: base and limit.
    pub gdt: (u64, u16),
    /// IDTR: base and limit.
    pub idt: (u64, u16),
    /// First instruction.
    pub rip: u64,
    /// Stack.
    pub rsp: u64,
    /// First argument: the boot page.
    pub rdi: u64,
    /// Flags.
    pub rflags: u64,
}

impl EntryState {
    /// The state that runs `entry` over the page tables at `root`.
    #[must_use]
    pub fn new(entry: u64, root: u64, features: Features) -> Self {
        let optional = [
            (features.xsave, CR4_OSXSAVE),
            (features.smep, CR4_SMEP),
            (features.smap, CR4_SMAP),
            (features.umip, CR4_UMIP),
        ];
        let base = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
        let cr4 = optional.into_iter().fold(base, |cr4, (has, bit)| if has { cr4 | bit } else { cr4 });
        let avx = if features.avx { XCR0_AVX } else { 0 };
        Self {
            cr0: CR0,
            cr3: root,
            cr4,
            efer: EFER,
            xcr0: features.xsave.then_some(XCR0_X87_SSE | avx),
            code: USER_CODE,
            data: USER_DATA,
            task: TASK_STATE,
            gdt: (GDT.start, GDT_LIMIT),
            idt: (IDT.start, IDT_LIMIT),
            rip: entry,
            rsp: STACK.base + STACK_LEN - STACK_TOP_GAP,
            rdi: BOOT.base,
            rflags: RFLAGS,
        }
    }
}
