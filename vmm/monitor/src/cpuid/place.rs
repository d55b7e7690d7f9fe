//! Where one vCPU of a Linux guest stands: cores of one package, one thread each, a third cache for all.

use super::Leaves;

const BIT_TSC_DEADLINE: u32 = 1 << 24;
const BIT_HYPERVISOR: u32 = 1 << 31;
const BIT_HTT: u32 = 1 << 28;
const VENDOR_AMD: u32 = 0x6874_7541;
/// Types of topology levels (leaf 0xB, ECX).
const SMT: u32 = 1 << 8;
const CORE: u32 = 2 << 8;

/// One vCPU among others.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its number, which is its APIC id.
    pub id: u8,
    /// How many there are.
    pub count: u8,
    /// KVM's local APIC has the deadline timer, which KVM reports apart (KVM_CAP_TSC_DEADLINE_TIMER).
    pub tsc_deadline: bool,
}

impl Place {
    /// Bits of an APIC id that tell cores apart.
    fn core_bits(self) -> u32 {
        self.places().trailing_zeros()
    }

    /// APIC ids of the package.
    fn places(self) -> u32 {
        u32::from(self.count).next_power_of_two()
    }

    /// Writes what is this vCPU's alone. Tables let nothing of a host through in these fields.
    pub(super) fn write(self, leaves: &mut Leaves) {
        let (id, count) = (u32::from(self.id), u32::from(self.count));
        leaves.change(1, 0, |one| {
            one.ecx |= BIT_HYPERVISOR | if self.tsc_deadline { BIT_TSC_DEADLINE } else { 0 };
            one.edx |= if self.count > 1 { BIT_HTT } else { 0 };
            one.ebx |= self.places() << 16 | id << 24;
        });
        for entry in leaves.0.iter_mut().filter(|entry| matches!(entry.function, 4 | 0x8000_001D)) {
            // Kind 0 ends the list.
            if entry.eax & 0x1F != 0 {
                let third = entry.eax >> 5 & 7 == 3;
                entry.eax |= if third { count.saturating_sub(1) << 14 } else { 0 };
                if entry.function == 4 {
                    entry.eax |= (self.places() - 1) << 26;
                }
            }
        }
        let levels = [(0, 1, SMT), (self.core_bits(), count, CORE | 1), (0, 0, 2)];
        for (index, (shift, below, level)) in (0..).zip(levels) {
            leaves.change(0xB, index, |entry| {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (shift, below, level, id);
            });
        }
        if leaves.get(0, 0).ebx == VENDOR_AMD {
            let cores = self.core_bits() << 12 | count.saturating_sub(1);
            leaves.change(0x8000_0008, 0, |entry| entry.ecx = cores);
            leaves.change(0x8000_001E, 0, |entry| (entry.eax, entry.ebx) = (id, id));
        }
    }
}
