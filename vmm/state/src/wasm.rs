//! What a snapshot of a Wasm guest holds, beside its memory.
//!
//! The guest is at rest: held in its doorbell, between events. Nothing is in flight, no device exists, and its own program keeps
//! nothing in vector registers there.

use crate::{Body, StateError};
use alloc::vec::Vec;
use core::ops::Range;
use serde::{Deserialize, Serialize};
use warren_abi::isa::IsaSet;
use warren_abi::window::{CODE, LARGE_PAGE_SIZE, PAGE_SIZE, PROGRAM, TASK};

/// Most runs of pages: each is a mapping of its own when it is restored.
pub const RUNS_MAX: usize = 4096;
/// First address of the high bank, and the end of the largest low one.
const HIGH_BASE: u64 = 4 << 30;
const LOW_MAX: u64 = 3 << 30;

/// A Wasm guest at rest. [`WasmState::check`] says what may be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmState {
    /// The contract that the guest was built for.
    pub abi_version: u32,
    /// Which processor it may run on.
    pub processor: Processor,
    /// Bytes of the low bank, from 0.
    pub low_len: u64,
    /// Bytes of the high bank, from 4 GiB; 0 for none.
    pub high_len: u64,
    /// Bytes of the function's memory.
    pub memory_bytes: u64,
    /// Where what nobody writes of the guest program lies; it comes from the program's file again.
    pub program: Area,
    /// Where the mailbox lies.
    pub mailbox: u64,
    /// Where the function's code lies; it comes from the artefact again.
    pub code: Area,
    /// Where the function's files lie, likewise.
    pub task: Option<Area>,
    /// The root of the page tables.
    pub root: u64,
    /// The vCPU.
    pub cpu: CpuState,
    /// Memory that is not zero, ascending.
    pub runs: Vec<Run>,
    /// How often this guest was restored already: every restore is one generation more.
    pub generation: u64,
}

/// What of a processor a guest has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// Instruction sets of the function's code.
    pub isa: IsaSet,
    /// Bits of what the entry state depends on: XSAVE, AVX, SMEP, SMAP, UMIP.
    pub features: u8,
    /// Ticks of its time-stamp counter a second: the boot page told the guest.
    pub tsc_hz: u64,
}

/// Guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    /// First byte.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
}

/// Pages that follow each other, here and in the memory's file.
pub type Run = Area;

/// Parts of a memory's file (offset and bytes) that are whole large pages of the guest's memory and of the file alike, ascending:
/// where the file's pages can be large ones, behind large ones of the guest's.
pub fn large_parts(runs: &[Run]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut offset = 0_u64;
    runs.iter().filter_map(move |run| {
        let begin = offset;
        offset = offset.saturating_add(run.len);
        let first = run.gpa.checked_next_multiple_of(LARGE_PAGE_SIZE)?;
        let end = run.range().end / LARGE_PAGE_SIZE * LARGE_PAGE_SIZE;
        let is_in_place = run.gpa % LARGE_PAGE_SIZE == begin % LARGE_PAGE_SIZE;
        (is_in_place && first < end).then(|| (begin.saturating_add(first - run.gpa), end - first))
    })
}

/// The registers that a program in user mode owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuState {
    /// rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15.
    pub general: [u64; 16],
    /// The next instruction.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// x87 control word.
    pub x87_control: u16,
    /// SSE control and status.
    pub mxcsr: u32,
}

/// Flags that user mode may have changed: arithmetic and direction. The rest is every guest's.
const USER_FLAGS: u64 = 0xCD5;
/// Reserved bit 1 and I/O privilege level 3.
const FIXED_FLAGS: u64 = 1 << 1 | 3 << 12;
/// MXCSR's bits that exist everywhere; a reserved one faults.
const MXCSR_BITS: u32 = 0xFFFF;

/// Flags of a program in user mode, whatever a KVM shows beside them (one without hardware virtualisation shows interrupts on).
#[must_use]
pub const fn user_flags(rflags: u64) -> u64 {
    rflags & USER_FLAGS | FIXED_FLAGS
}

impl Area {
    /// First byte and the one after the last.
    #[must_use]
    pub const fn range(self) -> Range<u64> {
        self.gpa..self.gpa.saturating_add(self.len)
    }

    pub(crate) const fn is_pages(self) -> bool {
        self.gpa.is_multiple_of(PAGE_SIZE) && self.len.is_multiple_of(PAGE_SIZE) && self.len > 0
    }

    const fn overlaps(self, other: Self) -> bool {
        self.range().start < other.range().end && other.range().start < self.range().end
    }
}

impl Body for WasmState {
    const MAGIC: [u8; 8] = *b"WRNSTATE";
    /// 1: with the guest program among the runs.
    const VERSION: u32 = 2;
}

impl WasmState {
    /// What lies in memory and is no part of a snapshot's: files that nobody writes to.
    pub fn apart(&self) -> impl Iterator<Item = Area> + use<> {
        [Some(self.program), Some(self.code), self.task].into_iter().flatten()
    }

    /// Judges a state against itself and the length of its memory's file: banks have sizes that exist, every area lies in one and
    /// is whole pages, runs ascend and leave program, code and files alone, and flags are a user program's.
    pub fn check(&self, memory_len: u64) -> Result<(), StateError> {
        let rule = |holds: bool, rule| if holds { Ok(()) } else { Err(StateError::Rule(rule)) };
        rule(self.abi_version == warren_abi::ABI_VERSION, "another guest's contract")?;
        let large = |len: u64| len.is_multiple_of(LARGE_PAGE_SIZE);
        rule(large(self.low_len) && self.low_len <= LOW_MAX, "a low bank of no size")?;
        rule(large(self.high_len) && self.high_len <= LOW_MAX * 4, "a high bank of no size")?;
        let banks = [Area { gpa: 0, len: self.low_len }, Area { gpa: HIGH_BASE, len: self.high_len }];
        let inside = |area: Area| {
            banks.iter().any(|bank| bank.gpa <= area.gpa && area.range().end <= bank.range().end)
        };
        let program = self.program;
        rule(
            program.is_pages() && inside(program) && program.len <= PROGRAM.max_len,
            "a program outside of memory",
        )?;
        rule(!program.overlaps(self.code), "code over the program")?;
        rule(
            self.code.is_pages() && inside(self.code) && self.code.len <= CODE.max_len,
            "code outside of memory",
        )?;
        if let Some(task) = self.task {
            rule(task.is_pages() && inside(task) && task.len <= TASK.max_len, "files outside of memory")?;
            rule(!task.overlaps(self.code) && !task.overlaps(program), "files over code")?;
        }
        rule(self.runs.len() <= RUNS_MAX, "too many runs of pages")?;
        let (mut end, mut total) = (0, 0_u64);
        for run in &self.runs {
            rule(run.is_pages() && inside(*run), "pages outside of memory")?;
            rule(run.gpa >= end, "pages out of order")?;
            rule(!self.apart().any(|area| run.overlaps(area)), "pages over files")?;
            end = run.range().end;
            total = total.saturating_add(run.len);
        }
        rule(total == memory_len, "memory of another length")?;
        let mailbox = Area { gpa: self.mailbox, len: warren_abi::mailbox::MAILBOX_LEN };
        rule(mailbox.is_pages() && inside(mailbox), "a mailbox outside of memory")?;
        rule(
            self.root.is_multiple_of(PAGE_SIZE) && inside(Area { gpa: self.root, len: PAGE_SIZE }),
            "no page tables",
        )?;
        rule(self.cpu.rflags & !USER_FLAGS == FIXED_FLAGS, "flags that are not a program's")?;
        rule(self.cpu.mxcsr & !MXCSR_BITS == 0, "reserved bits in MXCSR")
    }
}

#[cfg(test)]
mod tests;
