//! A VM with nothing in it: what every Wasm machine begins as, whether a guest is then built or restored in it.

use crate::cpu::{Cpu, GuestFault, SaveError, Stop};
use crate::cpuid::wasm;
use crate::machine::{MachineError, MachineOptions};
use crate::program;
use crate::ram::Ram;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, Kvm, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};
use rustix::fd::AsFd;
use std::arch::x86_64::__cpuid;
use std::ops::Range;
use warren_boot::entry::Features;
use warren_boot::plan::Base;
use warren_boot::{OutOfRange, rehearsal};
use warren_state::wasm::Area;

/// A page's. This thread may make no system call for more memory.
static ZEROES: [u8; 4096] = [0; 4096];
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
    /// Where what is written of it will lie.
    written: Range<u64>,
    /// Pages were touched in it: nobody else may bring them.
    pub(crate) rehearsed: bool,
}

/// A guest that touches what the next one will, written into a VM that is bare. Until it was performed nobody else writes there.
#[derive(Debug)]
pub struct Rehearsal {
    written: rehearsal::Rehearsal,
    ram: Ram,
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
        Ok((
            Self {
                vm,
                ram,
                features,
                tsc_hz,
                class_len,
                msr_filter,
                program: None,
                written: 0..0,
                rehearsed: false,
            },
            Cpu::new(vcpu),
        ))
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
        bare.written = read.unwritten().map_or(read.end, |unwritten| unwritten.va + unwritten.room)..read.end;
        Ok((bare, cpu))
    }

    /// Writes a rehearsal of what a guest of its program touches first, where that is of use: where the host's processor nests
    /// paging. Without that, what KVM learns of a page it learns by a guest's own page tables.
    pub fn rehearse(&mut self) -> Result<Option<Rehearsal>, MachineError> {
        if self.program.is_none() || !nests_paging() {
            return Ok(None);
        }
        let base = Base::new(self.written.end, self.class_len)?;
        let written = rehearsal::write(&mut self.ram, &base, &self.written, self.features)?;
        self.rehearsed = true;
        Ok(Some(Rehearsal { written, ram: self.ram.clone() }))
    }

    /// Whether this host's KVM filters MSR accesses (it denies them all).
    #[must_use]
    pub fn filters_msrs(&self) -> bool {
        self.msr_filter
    }
}

impl Rehearsal {
    /// Performs it, on the thread that will run the vCPU: KVM waits long when a vCPU comes to another one. Nothing of it is left but
    /// pages of zeroes. Who is interrupted leaves it at that.
    pub fn perform(self, cpu: &mut Cpu) -> Result<(), RehearsalError> {
        cpu.begin(&self.written.entry)?;
        let stop = cpu.run(&self.ram);
        cpu.count_from_zero();
        if !matches!(stop, Stop::Interrupted) {
            cpu.forget()?;
        }
        let Range { start, end } = self.written.scratch;
        for page in (start..end).step_by(ZEROES.len()) {
            self.ram.put(page, &ZEROES)?;
        }
        match stop {
            Stop::Doorbell | Stop::Interrupted => Ok(()),
            Stop::Fault(fault) => Err(RehearsalError::Fault(fault)),
        }
    }
}

/// Why pages could not be touched: the host's fault, or a defect here.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// Registers.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Registers.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// Its pages are no memory: a defect here.
    #[error(transparent)]
    Memory(#[from] OutOfRange),
    /// It came to another end.
    #[error("the rehearsal ended in a fault: {0}")]
    Fault(GuestFault),
}

/// Whether this host's processor virtualises.
fn nests_paging() -> bool {
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    __cpuid(1).ecx & VMX != 0
        || (__cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx & SVM != 0)
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
