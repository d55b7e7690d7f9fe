//! A vCPU thread of a Linux guest: waits for its start, then runs until the guest or the process ends.
//!
//! ```text
//!  waiting --Start--> running --exit--> bus --> running ...
//!               |        |  kicked: at rest (`rest`), says its registers or takes others, goes on
//!               |        |
//!               '- of a guest that is brought back: at rest first
//!
//!                        |  at its first exit, or at memory that is not there (yet): fills memory, or waits for who does
//!                        |  reset, power-off, triple fault, what KVM cannot do: reported once, the thread ends
//! ```
//! There is no way to be ended from outside: the main thread ends the process, and with it every vCPU.

use super::bus::Bus;
use super::filling;
use super::registers;
use super::rest::{self, Rest};
use crate::cpu::{GuestFault, MXCSR, X87_CONTROL, set_segments, table};
use crate::cpuid::Leaves;
use crate::cpuid::place::Place;
use crate::end::End;
use crate::machine::MachineError;
use crate::orders::Outgoing;
use crate::sys::{Kicker, forgive};
use kvm_bindings::{Msrs, kvm_dtable, kvm_fpu, kvm_msr_entry, kvm_regs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use warren_boot::linux::registers::Registers;
use warren_devices::power::PowerEvent;
use warren_state::linux::vcpu::VcpuState;

/// Memory types are on, and memory that no range names is write-back (Intel SDM volume 3, 13.11.2.1).
const MTRR_DEFAULT: (u32, u64) = (0x2FF, 1 << 11 | 6);

/// What makes a waiting vCPU run.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where exits go.
    pub bus: Arc<Bus>,
    /// What every vCPU sees of the processor.
    pub leaves: Leaves,
    /// What it begins with.
    pub first: First,
    /// What of memory is not filled yet. Before it is, a guest may run and do nothing else.
    pub filling: filling::Shared,
}

/// What a vCPU begins with.
#[derive(Clone, Debug)]
pub enum First {
    /// The kernel's entry.
    Boot(Registers),
    /// Nothing: it waits in KVM until the guest starts it.
    Wait,
    /// What was written down of one. It holds until it is let go on.
    Resume(Box<VcpuState>),
}

/// A vCPU and what its thread needs.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    place: Place,
    exits: Arc<AtomicU64>,
    /// The model-specific registers that a snapshot keeps.
    msrs: Arc<[u32]>,
}

impl Vcpu {
    /// Exits are counted in `exits`, which all vCPUs share.
    #[must_use]
    pub fn new(fd: VcpuFd, place: Place, exits: Arc<AtomicU64>, msrs: Arc<[u32]>) -> Self {
        Self { fd, place, exits, msrs }
    }

    /// Waits, runs, and reports how the guest ended.
    pub fn live(mut self, start: &Receiver<Start>, ends: &Outgoing<End>, rest: &Rest) {
        // Without a sender the process is ending.
        let Ok(start) = start.recv() else { return };
        let seat = usize::from(self.place.id);
        let (end, why) = match self.enter(start.leaves, &start.first) {
            Ok(()) => {
                rest.begin(seat, Kicker::for_this_thread(&mut self.fd));
                (self.run(&start.bus, &start.filling, rest), None)
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                let why = format!("{error:#}");
                (End::Host(error), Some(why))
            }
        };
        // Before the vCPU goes: nobody kicks it any more.
        rest.leave(seat, why);
        ends.send(end);
    }

    /// Says what the processor is, and sets the first registers if there are some.
    fn enter(&mut self, leaves: Leaves, first: &First) -> Result<(), MachineError> {
        let step = |step| move |source| MachineError::Kvm { step, source };
        let leaves = leaves.placed(self.place).to_kvm()?;
        self.fd.set_cpuid2(&leaves).map_err(step("set CPUID"))?;
        match first {
            First::Boot(registers) => self.boot(registers),
            First::Wait => Ok(()),
            First::Resume(state) => {
                registers::set(&self.fd, state).map_err(|error| MachineError::Refused(error.to_string()))
            }
        }
    }

    fn boot(&mut self, registers: &Registers) -> Result<(), MachineError> {
        let step = |step| move |source| MachineError::Kvm { step, source };
        let mut sregs = self.fd.get_sregs().map_err(step("read system registers"))?;
        set_segments(&mut sregs, &registers.code, &registers.data, &registers.task);
        (sregs.gdt, sregs.idt) = (table(registers.gdt), kvm_dtable::default());
        (sregs.cr0, sregs.cr3, sregs.cr4) = (registers.cr0, registers.cr3, registers.cr4);
        sregs.efer = registers.efer;
        self.fd.set_sregs(&sregs).map_err(step("set system registers"))?;
        let fpu = kvm_fpu { fcw: X87_CONTROL, mxcsr: MXCSR, ..Default::default() };
        self.fd.set_fpu(&fpu).map_err(step("set the FPU state"))?;
        let (index, data) = MTRR_DEFAULT;
        let entry = kvm_msr_entry { index, data, ..Default::default() };
        let msrs = Msrs::from_entries(&[entry]).map_err(|error| {
            MachineError::Refused(format!("one register does not fit a list of registers: {error:?}"))
        })?;
        self.fd.set_msrs(&msrs).map_err(step("set memory types"))?;
        let regs = kvm_regs {
            rip: registers.rip,
            rbx: registers.rbx,
            rsi: registers.rsi,
            rflags: registers.rflags,
            ..Default::default()
        };
        self.fd.set_regs(&regs).map_err(step("set registers"))
    }

    fn run(&mut self, bus: &Bus, filling: &filling::Shared, rest: &Rest) -> End {
        let mut unfinished = Some(filling);
        if rest.is_asked() {
            self.hold(rest);
        }
        loop {
            let exit = match self.fd.run() {
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                    // The flag first: see `rest`.
                    forgive(&mut self.fd);
                    if rest.is_asked() {
                        if let Some(Err(error)) = unfinished.take().map(filling::Shared::finish) {
                            return End::Host(error.into());
                        }
                        self.hold(rest);
                    }
                    continue;
                }
                Err(error) if error.errno() == libc::EFAULT && unfinished.is_none() => {
                    return End::Guest(GuestFault::Memory);
                }
                Err(error) if error.errno() != libc::EFAULT => return End::Guest(GuestFault::Run(error)),
                result => result,
            };
            // Also before an exit is handled: devices may touch memory from here on.
            if let Some(Err(error)) = unfinished.take().map(filling::Shared::finish) {
                return End::Host(error.into());
            }
            // Memory that was not there is tried again.
            let Ok(exit) = exit else { continue };
            self.exits.fetch_add(1, Ordering::Relaxed);
            let power = match exit {
                VcpuExit::IoIn(port, data) => {
                    bus.port_read(port, data);
                    None
                }
                VcpuExit::IoOut(port, data) => bus.port_write(port, data),
                VcpuExit::MmioRead(address, data) => {
                    if !filling.read(address, data) {
                        bus.window_read(address, data);
                    }
                    None
                }
                VcpuExit::MmioWrite(address, data) => {
                    if !filling.write(address, data) {
                        bus.window_write(address, data);
                    }
                    None
                }
                VcpuExit::Intr => None,
                VcpuExit::Hlt => return End::Guest(GuestFault::Halt),
                VcpuExit::Shutdown => return End::Guest(GuestFault::TripleFault),
                VcpuExit::FailEntry(reason, _) => return End::Guest(GuestFault::Entry(reason)),
                VcpuExit::InternalError => return End::Guest(GuestFault::Emulation),
                other => return End::Guest(GuestFault::Exit(format!("{other:?}"))),
            };
            match power {
                None => {}
                Some(PowerEvent::Off) => return End::PoweredOff,
                Some(PowerEvent::Reset) => return End::Reset,
            }
        }
    }

    /// At rest as long as that is asked for.
    fn hold(&self, rest: &Rest) {
        rest.hold(self.place.id.into(), self);
    }
}

impl rest::Registers for Vcpu {
    fn read(&self) -> Result<VcpuState, String> {
        registers::read(&self.fd, &self.msrs).map_err(|error| error.to_string())
    }

    fn set(&self, state: &VcpuState) -> Result<(), String> {
        registers::set_again(&self.fd, state, &self.msrs).map_err(|error| error.to_string())
    }
}
