//! What the guest sees of the processor: the host's KVM-supported CPUID, cut down by a table.
//!
//! Only what code compiled by Warren may use stays; nested virtualisation, AVX-512, AMX and hypervisor interfaces go.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use warren_boot::entry::Features;

/// A register of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Bits of one register that are cleared. `index` is the subleaf, `None` for every one.
struct Cut {
    leaf: u32,
    index: Option<u32>,
    register: Register,
    clear: u32,
}

const fn cut(leaf: u32, index: Option<u32>, register: Register, clear: u32) -> Cut {
    Cut { leaf, index, register, clear }
}

const ALL: u32 = u32::MAX;

/// Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
const CUTS: [Cut; 18] = [
    // MONITOR, VMX, SMX, x2APIC, TSC-deadline.
    cut(1, None, Register::Ecx, 1 << 3 | 1 << 5 | 1 << 6 | 1 << 21 | 1 << 24),
    // SGX, AVX-512 F/DQ/IFMA/PF/ER/CD/BW/VL, processor trace.
    cut(
        7,
        Some(0),
        Register::Ebx,
        1 << 2 | 1 << 16 | 1 << 17 | 1 << 21 | 1 << 25 | 0xF << 26 | 1 << 30 | 1 << 31,
    ),
    // AVX-512 VBMI, protection keys (user and supervisor), WAITPKG, shadow stacks, VBMI2, VNNI, BITALG, VPOPCNTDQ, LA57.
    cut(
        7,
        Some(0),
        Register::Ecx,
        1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 16 | 1 << 31,
    ),
    // AVX-512 4VNNIW/4FMAPS/VP2INTERSECT/FP16, AMX, user interrupts, indirect-branch tracking.
    cut(7, Some(0), Register::Edx, 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 20 | 7 << 22 | 1 << 25),
    // AVX-VNNI, AVX-512 BF16, FRED, AMX FP16, and what else is new in subleaf 1.
    cut(7, Some(1), Register::Eax, ALL),
    // State components beyond x87, SSE and AVX.
    cut(0xD, Some(0), Register::Eax, !0b111),
    cut(0xD, Some(0), Register::Edx, ALL),
    // XSAVES, XFD.
    cut(0xD, Some(1), Register::Eax, 1 << 3 | 1 << 4),
    // AMX, AVX10, processor trace.
    cut(0x1D, None, Register::Eax, ALL),
    cut(0x1E, None, Register::Ebx, ALL),
    cut(0x24, None, Register::Ebx, ALL),
    cut(0x14, None, Register::Eax, ALL),
    // KVM's own interfaces: the guest has no business with them.
    cut(0x4000_0001, None, Register::Eax, ALL),
    cut(0x4000_0001, None, Register::Edx, ALL),
    // SVM.
    cut(0x8000_0001, None, Register::Ecx, 1 << 2),
    cut(0x8000_000A, None, Register::Eax, ALL),
    cut(0x8000_000A, None, Register::Edx, ALL),
    // Memory encryption.
    cut(0x8000_001F, None, Register::Eax, ALL),
];

/// Applies the table.
pub fn filter(cpuid: &mut CpuId) {
    for entry in cpuid.as_mut_slice() {
        filter_entry(entry);
    }
}

fn filter_entry(entry: &mut kvm_cpuid_entry2) {
    let applies =
        |cut: &&Cut| cut.leaf == entry.function && cut.index.is_none_or(|index| index == entry.index);
    let [mut eax, mut ebx, mut ecx, mut edx] = [entry.eax, entry.ebx, entry.ecx, entry.edx];
    for cut in CUTS.iter().filter(applies) {
        match cut.register {
            Register::Eax => eax &= !cut.clear,
            Register::Ebx => ebx &= !cut.clear,
            Register::Ecx => ecx &= !cut.clear,
            Register::Edx => edx &= !cut.clear,
        }
    }
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (eax, ebx, ecx, edx);
}

/// What the entry state has to know of a (filtered) CPUID.
#[must_use]
pub fn features(cpuid: &CpuId) -> Features {
    let find = |leaf, index| {
        cpuid.as_slice().iter().find(|e| e.function == leaf && e.index == index).copied().unwrap_or_default()
    };
    let (one, seven, state) = (find(1, 0), find(7, 0), find(0xD, 0));
    let bit = |word: u32, bit: u32| word & (1 << bit) != 0;
    Features {
        xsave: bit(one.ecx, 26),
        avx: bit(one.ecx, 28) && bit(state.eax, 2),
        smep: bit(seven.ebx, 7),
        smap: bit(seven.ebx, 20),
        umip: bit(seven.ecx, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(function: u32, index: u32, expect: [u32; 4]) {
        let mut entry = kvm_cpuid_entry2 {
            function,
            index,
            eax: ALL,
            ebx: ALL,
            ecx: ALL,
            edx: ALL,
            ..Default::default()
        };
        filter_entry(&mut entry);
        assert_eq!([entry.eax, entry.ebx, entry.ecx, entry.edx], expect, "leaf {function:#x}.{index}");
    }

    #[test]
    fn table() {
        check(0, 0, [ALL; 4]);
        check(0x8000_0001, 0, [ALL, ALL, !4, ALL]);
        check(0x4000_0001, 0, [0, ALL, ALL, 0]);
        check(0xD, 0, [0b111, ALL, ALL, 0]);
        check(7, 1, [0, ALL, ALL, ALL]);
    }
}
