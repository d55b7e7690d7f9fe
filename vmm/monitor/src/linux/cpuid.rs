//! What a Linux guest sees of the processor: what KVM supports, minus what no guest may use, plus where each vCPU stands.
//!
//! Normalised to the host: every feature KVM can virtualise stays, because a stock kernel and its programs choose by
//! them. Nested virtualisation is hidden on every host.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const BIT_TSC_DEADLINE: u32 = 1 << 24;
const BIT_HYPERVISOR: u32 = 1 << 31;
const BIT_HTT: u32 = 1 << 28;

/// Rewrites what KVM supports into what vCPU `id` of `count` sees.
pub fn normalise(cpuid: &mut CpuId, id: u8, count: u8, tsc_deadline: bool) {
    let cpu = Place { id: id.into(), count: count.into() };
    for entry in cpuid.as_mut_slice() {
        cpu.rewrite(entry, tsc_deadline);
    }
}

/// One vCPU among others: cores of one package, one thread each.
#[derive(Clone, Copy)]
struct Place {
    id: u32,
    count: u32,
}

impl Place {
    /// Bits of an APIC id that tell cores apart.
    fn core_bits(self) -> u32 {
        self.count.next_power_of_two().trailing_zeros()
    }

    fn rewrite(self, entry: &mut kvm_cpuid_entry2, tsc_deadline: bool) {
        match (entry.function, entry.index) {
            (1, _) => {
                // VMX, SMX; MONITOR, which would only exit.
                entry.ecx &= !(1 << 5 | 1 << 6 | 1 << 3);
                entry.ecx |= BIT_HYPERVISOR;
                // KVM reports it apart, because it depends on the local APIC being KVM's (KVM_CAP_TSC_DEADLINE_TIMER).
                entry.ecx = set(entry.ecx, BIT_TSC_DEADLINE, tsc_deadline);
                entry.edx = set(entry.edx, BIT_HTT, self.count > 1);
                let places = self.count.next_power_of_two().min(255);
                entry.ebx = entry.ebx & 0xFFFF | places << 16 | self.id << 24;
            }
            // Deterministic cache parameters: level 3 is shared by all, the others by one.
            (4 | 0x8000_001D, _) if entry.eax & 0x1F != 0 => {
                let shared = if entry.eax >> 5 & 7 == 3 { self.count - 1 } else { 0 };
                entry.eax = entry.eax & 0x3FFF | shared << 14;
                if entry.function == 4 {
                    entry.eax |= (self.count.next_power_of_two() - 1) << 26;
                }
            }
            // Extended topology: a level of threads, a level of cores.
            (0xB | 0x1F, level) => self.topology(entry, level),
            // SVM.
            (0x8000_0001, _) => entry.ecx &= !(1 << 2),
            // Performance counters, whose MSRs are denied; what SVM can do; memory encryption.
            (0xA | 0x8000_000A | 0x8000_001F, _) => {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
            }
            (0x8000_0008, _) => {
                entry.ecx = entry.ecx & !0xF0FF | self.core_bits() << 12 | (self.count - 1);
            }
            (0x8000_001E, _) => (entry.eax, entry.ebx, entry.ecx) = (self.id, self.id, 0),
            _ => {}
        }
    }

    fn topology(self, entry: &mut kvm_cpuid_entry2, level: u32) {
        const SMT: u32 = 1 << 8;
        const CORE: u32 = 2 << 8;
        (entry.eax, entry.ebx, entry.ecx) = match level {
            0 => (0, 1, SMT),
            1 => (self.core_bits(), self.count, CORE | 1),
            level => (0, 0, level & 0xFF),
        };
        entry.edx = self.id;
    }
}

fn set(word: u32, bit: u32, on: bool) -> u32 {
    if on { word | bit } else { word & !bit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(function: u32, index: u32, id: u8, count: u8) -> kvm_cpuid_entry2 {
        let all = u32::MAX;
        let entry = kvm_cpuid_entry2 {
            function,
            index,
            eax: all,
            ebx: all,
            ecx: all,
            edx: all,
            ..Default::default()
        };
        let mut cpuid = CpuId::from_entries(&[entry]).unwrap();
        normalise(&mut cpuid, id, count, true);
        cpuid.as_slice()[0]
    }

    #[test]
    fn nested_virtualisation_is_hidden() {
        assert_eq!(rewritten(1, 0, 0, 1).ecx & (1 << 5), 0);
        assert_eq!(rewritten(0x8000_0001, 0, 0, 1).ecx & (1 << 2), 0);
        assert_eq!(rewritten(0x8000_000A, 0, 0, 1).edx, 0);
    }

    #[test]
    fn every_vcpu_is_a_core_of_one_package() {
        let one = rewritten(1, 0, 3, 4);
        assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xFF, one.edx & BIT_HTT), (3, 4, BIT_HTT));
        assert_ne!(one.ecx & BIT_TSC_DEADLINE & BIT_HYPERVISOR.wrapping_sub(1), 0);
        let cores = rewritten(0xB, 1, 3, 5);
        assert_eq!((cores.eax, cores.ebx, cores.ecx, cores.edx), (3, 5, 0x201, 3));
        let threads = rewritten(0xB, 0, 3, 5);
        assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
        assert_eq!(rewritten(0x8000_0008, 0, 0, 4).ecx & 0xF0FF, 2 << 12 | 3);
        assert_eq!(rewritten(1, 0, 0, 1).edx & BIT_HTT, 0);
    }
}
