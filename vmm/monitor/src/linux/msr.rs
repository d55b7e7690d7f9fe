//! The model-specific registers a Linux guest may touch. Everything else raises #GP in the guest, which stock kernels
//! expect: they probe.
//!
//! x2APIC registers (0x800 to 0x8FF) are KVM's own and past any filter.

use crate::machine::MachineError;
use kvm_ioctls::{Cap, Kvm, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};
use std::ops::RangeInclusive;

/// First register, how many, and what they are. Intel SDM volume 4; AMD APM volume 2, appendix A; Linux,
/// Documentation/virt/kvm/x86/msr.rst.
const ALLOWED: [(u32, u32, &str); 31] = [
    (0x10, 1, "time stamp counter"),
    (0x11, 2, "KVM clock, first interface"),
    (0x1B, 1, "APIC base"),
    (0x3B, 1, "time stamp counter adjustment"),
    (0x48, 2, "speculation control, prediction barrier"),
    (0x8B, 1, "microcode revision"),
    (0xFE, 1, "memory type range capabilities"),
    (0x10A, 2, "architectural capabilities, L1D flush"),
    (0x122, 1, "transactional memory control"),
    (0x174, 3, "system enter"),
    (0x179, 3, "machine check capabilities, status, control"),
    (0x1A0, 1, "miscellaneous features"),
    (0x1D9, 1, "debug control"),
    (0x200, 16, "memory type ranges, variable"),
    (0x250, 1, "memory type range, fixed"),
    (0x258, 2, "memory type ranges, fixed"),
    (0x268, 8, "memory type ranges, fixed"),
    (0x277, 1, "page attribute table"),
    (0x2FF, 1, "memory type default"),
    (0x400, 128, "machine check banks"),
    (0x6E0, 1, "deadline timer"),
    (0xDA0, 1, "extended supervisor state mask"),
    (0x4B56_4D00, 9, "KVM's interfaces"),
    (0xC000_0080, 5, "extended features, system call targets and mask"),
    (0xC000_0100, 4, "FS, GS, kernel GS base, processor number"),
    (0xC001_0010, 1, "system configuration (AMD): KVM says 0; a kernel that may not read it prints a trace"),
    (0xC001_0015, 1, "hardware configuration (AMD)"),
    (0xC001_001F, 1, "northbridge configuration (AMD)"),
    (0xC001_011F, 1, "virtual speculation control (AMD)"),
    (0xC001_1022, 1, "data cache configuration (AMD)"),
    (0xC001_1029, 1, "decode configuration (AMD)"),
];

/// Blocks of registers that a filter's ranges cover: few enough for KVM's 16, small enough for its bitmaps.
const BLOCKS: [(u32, u32); 4] =
    [(0, 0x1000), (0x4B56_4D00, 0x100), (0xC000_0000, 0x200), (0xC001_0000, 0x1100)];

/// The time stamp counter: set before all others.
const COUNTER: u32 = 0x10;
/// The deadline timer, which compares with the counter: set after all others.
const DEADLINE: u32 = 0x6E0;
/// What KVM keeps of every guest without naming it: memory types and banks of machine checks.
const NEVER_NAMED: [RangeInclusive<u32>; 6] =
    [0x200..=0x20F, 0x250..=0x250, 0x258..=0x259, 0x268..=0x26F, 0x2FF..=0x2FF, BANKS];
/// Banks of machine checks. Most hold nothing.
pub const BANKS: RangeInclusive<u32> = 0x400..=0x47F;
/// What a snapshot leaves out of those allowed, and why.
const LEFT_OUT: [(RangeInclusive<u32>, &str); 10] = [
    (0x11..=0x12, "the KVM clock's registers by their older numbers"),
    (0x1B..=0x1B, "goes with the system registers"),
    (0x49..=0x49, "a command"),
    (0x8B..=0x8B, "constant"),
    (0xFE..=0xFE, "constant"),
    (0x10A..=0x10B, "constant; a command"),
    (0x179..=0x179, "constant"),
    (0x4B56_4D07..=0x4B56_4D07, "a command"),
    (0xC000_0080..=0xC000_0080, "goes with the system registers"),
    (0xC000_0100..=0xC000_0101, "go with the system registers"),
];

/// Whether a snapshot keeps a register, where there is one.
#[must_use]
pub fn is_kept(register: u32) -> bool {
    is_allowed(register) && !LEFT_OUT.iter().any(|(range, _)| range.contains(&register))
}

/// What a snapshot keeps on this host, in the order in which it is set.
pub fn kept(kvm: &Kvm) -> Result<Vec<u32>, MachineError> {
    let named = kvm
        .get_msr_index_list()
        .map_err(|source| MachineError::Kvm { step: "list model-specific registers", source })?;
    let never_named = NEVER_NAMED.into_iter().flatten();
    let mut kept: Vec<u32> =
        named.as_slice().iter().copied().chain(never_named).filter(|register| is_kept(*register)).collect();
    kept.sort_unstable_by_key(|register| (*register == DEADLINE, *register != COUNTER, *register));
    kept.dedup();
    Ok(kept)
}

/// Whether the guest may read and write a register.
#[must_use]
pub fn is_allowed(register: u32) -> bool {
    ALLOWED.iter().any(|(first, count, _)| register.checked_sub(*first).is_some_and(|at| at < *count))
}

/// Denies every other register, where KVM can; whether it could.
pub fn filter(kvm: &Kvm, vm: &VmFd) -> Result<bool, MachineError> {
    if !kvm.check_extension(Cap::X86MsrFilter) {
        return Ok(false);
    }
    let bitmaps: Vec<Vec<u8>> = BLOCKS.iter().map(|(base, len)| bitmap(*base, *len)).collect();
    let ranges: Vec<MsrFilterRange<'_>> = BLOCKS
        .iter()
        .zip(&bitmaps)
        .map(|((base, len), bitmap)| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base: *base,
            msr_count: *len,
            bitmap,
        })
        .collect();
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges)
        .map_err(|source| MachineError::Kvm { step: "deny MSRs", source })?;
    Ok(true)
}

/// One bit a register, set for those allowed. Counted from what is allowed, which is few: to ask for each of nine thousand
/// registers whether it is took a sixth of the time to a guest's first instruction.
fn bitmap(base: u32, len: u32) -> Vec<u8> {
    let mut bits = vec![0; len as usize / 8];
    for register in ALLOWED.iter().flat_map(|(first, count, _)| *first..first + count) {
        let at = register.checked_sub(base).map(|at| at as usize);
        if let Some((at, byte)) = at.and_then(|at| Some((at, bits.get_mut(at / 8)?))) {
            *byte |= 1 << (at % 8);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allowed_register_is_in_a_block_and_nothing_else_is() {
        for (first, count, what) in ALLOWED {
            for register in first..first + count {
                let block = BLOCKS.iter().find(|(base, len)| (*base..base + len).contains(&register));
                let (base, len) = block.expect(what);
                let at = register - base;
                assert_ne!(bitmap(*base, *len)[at as usize / 8] & 1 << (at % 8), 0, "{what}");
            }
        }
        for (base, len) in BLOCKS {
            let bits = bitmap(base, len);
            assert_eq!(bits.len(), len as usize / 8);
            let is_set = |at: u32| bits[at as usize / 8] & 1 << (at % 8) != 0;
            assert!((0..len).all(|at| is_set(at) == is_allowed(base + at)), "{base:#x}");
        }
        let set: u32 = BLOCKS.iter().flat_map(|(base, len)| bitmap(*base, *len)).map(u8::count_ones).sum();
        assert_eq!(set, ALLOWED.iter().map(|(_, count, _)| *count).sum::<u32>());
    }

    #[test]
    fn what_a_snapshot_leaves_out_is_allowed_and_nothing_dangerous_is_kept() {
        for (range, why) in LEFT_OUT {
            assert!(range.into_iter().any(is_allowed), "{why}");
        }
        assert!(is_kept(COUNTER) && is_kept(DEADLINE) && !is_kept(0x3A) && !is_kept(0x4B56_4D07));
        assert!(NEVER_NAMED.into_iter().flatten().all(is_kept));
    }

    #[test]
    fn the_dangerous_ones_are_denied() {
        // Feature control (VMX), performance counters, SMI count, VM_CR and host save area (SVM).
        for register in [0x3A, 0xC1, 0x186, 0x38F, 0x34, 0x480, 0xC001_0114, 0xC001_0117] {
            assert!(!is_allowed(register), "{register:#x}");
        }
    }
}
