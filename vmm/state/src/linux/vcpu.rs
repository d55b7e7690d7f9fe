//! A vCPU's registers, in the blocks in which KVM gives them and takes them again.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bytes of KVM's structures (Linux, arch/x86/include/uapi/asm/kvm.h).
mod len {
    pub(super) const REGS: usize = 144;
    pub(super) const SREGS: usize = 312;
    pub(super) const XSAVE: usize = 4096;
    pub(super) const XCRS: usize = 392;
    pub(super) const DEBUG: usize = 128;
    pub(super) const LAPIC: usize = 1024;
    pub(super) const EVENTS: usize = 64;
}

/// Most model-specific registers.
pub const MSRS_MAX: usize = 512;

/// One vCPU. The order of the fields is that in which they are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuState {
    /// Thousands of ticks of its counter a second.
    pub tsc_khz: u32,
    /// Whether it runs, halts, or waits to be started.
    pub mp_state: u32,
    /// `kvm_regs`.
    pub regs: Vec<u8>,
    /// `kvm_sregs`.
    pub sregs: Vec<u8>,
    /// `kvm_xsave` without the zeroes at its end.
    pub xsave: Vec<u8>,
    /// `kvm_xcrs`, of a processor that has them.
    pub xcrs: Option<Vec<u8>>,
    /// `kvm_debugregs`.
    pub debug: Vec<u8>,
    /// `kvm_lapic_state`.
    pub lapic: Vec<u8>,
    /// Model-specific registers in the order in which they are set.
    pub msrs: Vec<(u32, u64)>,
    /// `kvm_vcpu_events`.
    pub events: Vec<u8>,
}

impl VcpuState {
    /// Whether every block has its length. What is in them, KVM judges.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.regs.len() == len::REGS
            && self.sregs.len() == len::SREGS
            && self.xsave.len() <= len::XSAVE
            && self.xcrs.as_ref().is_none_or(|xcrs| xcrs.len() == len::XCRS)
            && self.debug.len() == len::DEBUG
            && self.lapic.len() == len::LAPIC
            && self.events.len() == len::EVENTS
            && self.msrs.len() <= MSRS_MAX
    }

    /// The XSAVE area as it was.
    #[must_use]
    pub fn whole_xsave(&self) -> Vec<u8> {
        let mut area = self.xsave.clone();
        area.resize(len::XSAVE, 0);
        area
    }
}
