//! A VM with nothing in it: what every Wasm machine begins as, whether a guest is then built or restored in it.

use crate::cpu::Cpu;
use crate::cpuid::wasm;
use crate::machine::{MachineError, MachineOptions};
use crate::program;
use crate::ram::Ram;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, Kvm, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};
use rustix::fd::AsFd;
use warren_boot::entry::Features;
use warren_state::wasm::Area;

/// Where KVM may put its real-mode task state on processors that need one: between the banks, never used by us.
const TSS_ADDRESS: usize = 0xFFFB_D000;

/// A VM, its first memory slot, and what its vCPU was made with.
#[derive(Debug)]
pub struct Bare {
    pub(crate) vm: VmFd,
    pub(crate) ram: Ram,
    pub(crate) features: Features,
    pub(crate) tsc_hz: u64,
    pub(crate) class_len: u64,
    pub(crate) msr_filter: bool,
    /// What nobody writes of the guest program, once it is there.
    pub(crate) program: Option<Area>,
}

impl Bare {
    /// Makes the VM and its vCPU.
    pub fn create(kvm: &Kvm, options: MachineOptions) -> Result<(Self, Cpu), MachineError> {
        let step = |step| move |source| MachineError::Kvm { step, source };
        let class_len = options.class_len;
        let vm = kvm.create_vm().map_err(step("create a VM"))?;
        // Each of these two waits for readers of the VM; cheapest while it has none, and much slower once an interrupt
        // controller or a vCPU exists.
        let msr_filter = deny_msrs(kvm, &vm)?;
        let mut ram = Ram::empty();
        ram.add_bank(&vm, 0, class_len)?;
        if kvm.check_extension(Cap::SetTssAddr) {
            vm.set_tss_address(TSS_ADDRESS).map_err(step("set the task-state address"))?;
        }
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(step("read CPUID"))?;
        let leaves = wasm::leaves(supported.as_slice())?;
        let features = leaves.features();
        let vcpu = vm.create_vcpu(0).map_err(step("create a vCPU"))?;
        vcpu.set_cpuid2(&leaves.to_kvm()?).map_err(step("set CPUID"))?;
        let tsc_hz = u64::from(vcpu.get_tsc_khz().map_err(step("read the TSC frequency"))?) * 1000;
        Ok((Self { vm, ram, features, tsc_hz, class_len, msr_filter, program: None }, Cpu::new(vcpu)))
    }

    /// The same for a guest that is brought back: with what nobody writes of its program.
    pub fn with_program(
        kvm: &Kvm,
        image: &impl AsFd,
        options: MachineOptions,
    ) -> Result<(Self, Cpu), MachineError> {
        let read = program::read(image)?;
        let (mut bare, cpu) = Self::create(kvm, options)?;
        bare.program = Some(program::show(&read, image, &bare.ram)?);
        Ok((bare, cpu))
    }

    /// Whether this host's KVM filters MSR accesses (it denies them all).
    #[must_use]
    pub fn filters_msrs(&self) -> bool {
        self.msr_filter
    }
}

/// Denies every MSR to the guest, where KVM can; whether it could.
fn deny_msrs(kvm: &Kvm, vm: &VmFd) -> Result<bool, MachineError> {
    if !kvm.check_extension(Cap::X86MsrFilter) {
        return Ok(false);
    }
    // KVM takes default-deny only together with a range: MSR 0 alone, not allowed either.
    let none = MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: 0,
        msr_count: 1,
        bitmap: &[0],
    };
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &[none])
        .map_err(|source| MachineError::Kvm { step: "deny MSRs", source })?;
    Ok(true)
}
