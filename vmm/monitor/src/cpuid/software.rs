//! Processors in software (QEMU's TCG), and what of theirs is not as the manuals say.
//!
//! When the emulator goes back to its main loop between an interrupt's injection by VMRUN and the guest's next exit, it delivers the
//! interrupt once more, whatever the guest's IF says: inside the handler, which then waits for its own locks for ever. With KVM's
//! paravirtual end of interrupt a handler runs to its end without an exit; without it, it exits as soon as it ends the interrupt.
//! What comes before that (the kernel's way in, longer where it wakes from idle) can still be hit: this makes it rarer. It is
//! gone where the emulator itself is mended (`tests/lab/src/emulator.rs`).

use super::Leaves;
use std::arch::x86_64::__cpuid;

/// First of a hypervisor's leaves, and how TCG names itself in it.
const HYPERVISOR: u32 = 0x4000_0000;
const TCG: &[u8; 12] = b"TCGTCGTCGTCG";
/// KVM's features, and the one of them that says that an end of interrupt may be told in memory.
const KVM_FEATURES: u32 = 0x4000_0001;
const PARAVIRTUAL_EOI: u32 = 1 << 6;

/// Whether this host's processor is one.
#[must_use]
pub fn is_here() -> bool {
    let leaf = __cpuid(HYPERVISOR);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).as_flattened() == TCG
}

impl Leaves {
    /// For a guest on such a host.
    #[must_use]
    pub fn on_software(mut self) -> Self {
        self.change(KVM_FEATURES, 0, |leaf| leaf.eax &= !PARAVIRTUAL_EOI);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_interrupts_are_exits() {
        let leaf = |eax| kvm_bindings::kvm_cpuid_entry2 { function: KVM_FEATURES, eax, ..Default::default() };
        for (before, after) in [(u32::MAX, !(1 << 6)), (0b0100_1011, 0b1011), (0, 0)] {
            let leaves = Leaves(vec![leaf(before)]).on_software();
            assert_eq!(leaves.get(KVM_FEATURES, 0).eax, after);
        }
    }
}
