//! The trials: guests of a few instructions, in user and in supervisor mode.

use crate::cpu::{Cpu, GuestFault, Stop};
use crate::machine::Start;
use crate::mailbox::Mailbox;
use crate::ram::Ram;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VmFd};
use std::time::Instant;
use warren_abi::window::PROGRAM;
use warren_boot::descriptors::{SUPERVISOR_CODE, Segment};
use warren_boot::entry::EntryState;
use warren_boot::{Access, Mapping, PageTables, descriptors, exceptions, plan};

/// What came of a trial, or why it failed in words for an operator.
pub(super) type Tried<T> = Result<T, String>;

/// Instructions of the speed loop, about: two a turn.
const LOOP: u32 = 200_000;
/// Exits measured.
const EXITS: u32 = 200;
/// Bytes of the trial's memory slot.
const MEMORY: u64 = 4 << 20;

/// `mov dx, doorbell; out dx, al; jmp -3`: rings for ever.
const RING: [u8; 7] = [0x66, 0xBA, 0x0B, 0x0D, 0xEE, 0xEB, 0xFD];
/// `pxor xmm0, xmm0`
const SSE: [u8; 4] = [0x66, 0x0F, 0xEF, 0xC0];

/// How fast the loop went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    seconds: f64,
}

impl Speed {
    pub(super) fn millions_a_second(self) -> f64 {
        f64::from(LOOP) / 1e6 / self.seconds.max(1e-9)
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a loop of {LOOP} instructions at {:.1} million a second", self.millions_a_second())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    User,
    Supervisor,
}

/// One guest with its memory.
struct Trial {
    _vm: VmFd,
    cpu: Cpu,
    ram: Ram,
}

pub(super) fn user_mode(kvm: &Kvm) -> Tried<Speed> {
    speed(kvm, Mode::User)
}

pub(super) fn supervisor_mode(kvm: &Kvm) -> Tried<Speed> {
    speed(kvm, Mode::Supervisor)
}

pub(super) fn supervisor_sse(kvm: &Kvm) -> Tried<()> {
    Trial::new(kvm, Mode::Supervisor, &[&SSE[..], &RING].concat())?.ring()
}

/// Microseconds of one exit and re-entry from user mode: the median of many.
pub(super) fn exit_cost(kvm: &Kvm) -> Tried<f64> {
    let mut trial = Trial::new(kvm, Mode::User, &RING)?;
    trial.ring()?;
    let mut times = Vec::new();
    for _ in 0..EXITS {
        let begin = Instant::now();
        trial.ring()?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().ok_or_else(|| "nothing measured".into())
}

pub(super) fn irqchip(kvm: &Kvm) -> Tried<()> {
    let vm = kvm.create_vm().map_err(|error| format!("create a VM: {error}"))?;
    crate::linux::interrupts::local_controllers(&vm).map_err(|error| error.to_string())
}

pub(super) fn dirty_log(kvm: &Kvm) -> Tried<()> {
    let vm = kvm.create_vm().map_err(|error| format!("create a VM: {error}"))?;
    let mut ram = Ram::empty();
    ram.add_logged_bank(&vm, 0, MEMORY).map_err(|error| error.to_string())?;
    let len = usize::try_from(MEMORY).map_err(|error| error.to_string())?;
    vm.get_dirty_log(0, len).map(drop).map_err(|error| error.to_string())
}

fn speed(kvm: &Kvm, mode: Mode) -> Tried<Speed> {
    // mov ecx, turns; dec ecx; jnz -4
    let turns = (LOOP / 2).to_le_bytes();
    let spin = [&[0xB9][..], &turns, &[0xFF, 0xC9, 0x75, 0xFC]].concat();
    let mut trial = Trial::new(kvm, mode, &[&RING[..5], &spin, &RING].concat())?;
    trial.ring()?;
    let begin = Instant::now();
    trial.ring()?;
    Ok(Speed { seconds: begin.elapsed().as_secs_f64() })
}

impl Trial {
    fn new(kvm: &Kvm, mode: Mode, code: &[u8]) -> Tried<Self> {
        Self::try_new(kvm, mode, code).map_err(|error| format!("{error:#}"))
    }

    fn try_new(kvm: &Kvm, mode: Mode, code: &[u8]) -> anyhow::Result<Self> {
        let vm = kvm.create_vm()?;
        let mut ram = Ram::empty();
        ram.add_bank(&vm, 0, MEMORY)?;
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let leaves = crate::cpuid::wasm::leaves(supported.as_slice())?;
        let features = leaves.features();
        let fd = vm.create_vcpu(0)?;
        fd.set_cpuid2(&leaves.to_kvm()?)?;
        let mut cpu = Cpu::new(fd);
        let mut tables = PageTables::new(plan::TABLES);
        let access = if mode == Mode::User { Access::UserExecute } else { Access::SupervisorExecute };
        let program = Mapping { va: PROGRAM.base, gpa: PROGRAM.base, len: 0x1000, access };
        for mapping in plan::SUPERVISOR_MAPPINGS.iter().chain([&program]) {
            tables.map(&mut ram, *mapping)?;
        }
        ram.put(plan::GDT.start, &descriptors::gdt_page())?;
        ram.put(plan::IDT.start, &descriptors::idt())?;
        ram.put(plan::STUBS.start, &exceptions::stubs())?;
        ram.put(PROGRAM.base, code)?;
        let mut entry = EntryState::new(PROGRAM.base, tables.root(), features);
        if mode == Mode::Supervisor {
            entry.code = Segment { selector: SUPERVISOR_CODE, dpl: 0, ..entry.code };
            entry.data = Segment { selector: SUPERVISOR_CODE + 8, dpl: 0, ..entry.data };
            entry.rsp = plan::EXCEPTION_STACK.end;
        }
        let mailbox = Mailbox::new(ram.clone(), PROGRAM.base);
        cpu.enter(&Start { entry, mailbox, memory_bytes: 0, init_timeout_ms: 0 })?;
        Ok(Self { _vm: vm, cpu, ram })
    }

    fn ring(&mut self) -> Tried<()> {
        match self.cpu.run(&self.ram) {
            Stop::Doorbell => Ok(()),
            Stop::Interrupted => Err("interrupted".into()),
            Stop::Fault(GuestFault::Emulation) => Err("KVM cannot emulate an instruction of it".into()),
            Stop::Fault(fault) => Err(fault.to_string()),
        }
    }
}
