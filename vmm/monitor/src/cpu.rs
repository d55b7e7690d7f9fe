//! One vCPU: first registers, and what its exits mean.

use crate::machine::{MachineError, Start};
use crate::ram::Ram;
use crate::snapshot::Resume;
use crate::sys::{self, Kicker};
use kvm_bindings::{kvm_dtable, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs, kvm_xcr, kvm_xcrs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use warren_abi::mailbox::ReplyFault;
use warren_abi::{DOORBELL_PORT, EXCEPTION_PORT};
use warren_boot::descriptors::Segment;
use warren_boot::entry::EntryState;
use warren_boot::exceptions::{Frame, vector_name};
use warren_state::wasm::{CpuState, user_flags};

/// x87 control word and MXCSR after reset: every exception masked.
pub(crate) const X87_CONTROL: u16 = 0x37F;
pub(crate) const MXCSR: u32 = 0x1F80;

/// A vCPU.
#[derive(Debug)]
pub struct Cpu {
    fd: VcpuFd,
    exits: u64,
    /// System registers as they were before any guest's.
    first: Option<Box<kvm_sregs>>,
}

/// Why KVM_RUN came back.
#[derive(Debug)]
pub enum Stop {
    /// The guest rang: a reply is in the mailbox.
    Doorbell,
    /// A signal, or `immediate_exit`.
    Interrupted,
    /// The guest is beyond help.
    Fault(GuestFault),
}

/// How a guest broke the contract or died. Always the guest's fault, or the host's KVM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFault {
    /// A processor exception in the guest program.
    #[error("exception {vector} ({name}) at rip {rip:#x}, address {cr2:#x}, stack {rsp:#x}", name = vector_name(*vector))]
    Exception {
        /// Which.
        vector: u8,
        /// Where.
        rip: u64,
        /// The stack then.
        rsp: u64,
        /// The faulting address, for page faults.
        cr2: u64,
    },
    /// An access to a port that does not exist, or of a shape that is not allowed.
    #[error("I/O at port {port:#x} of {len} bytes ({})", if *write { "write" } else { "read" })]
    Port {
        /// Which.
        port: u16,
        /// Bytes.
        len: usize,
        /// Direction.
        write: bool,
    },
    /// An access to guest-physical memory that does not exist.
    #[error("access to guest-physical address {0:#x}, which is not memory")]
    Mmio(u64),
    /// The reply header is out of contract.
    #[error("reply out of contract: {0:?}")]
    Reply(ReplyFault),
    /// A reply of a kind that has no place here.
    #[error("unexpected reply: {0}")]
    Unexpected(&'static str),
    /// The guest program panicked.
    #[error("guest program panicked: {0}")]
    Panic(String),
    /// The guest halted.
    #[error("halted")]
    Halt,
    /// A triple fault.
    #[error("triple fault")]
    TripleFault,
    /// KVM could not enter the guest.
    #[error("KVM cannot enter the guest, reason {0:#x}")]
    Entry(u64),
    /// KVM gave up on an instruction.
    #[error("KVM cannot emulate the guest")]
    Emulation,
    /// Any other exit.
    #[error("unexpected exit: {0}")]
    Exit(String),
    /// KVM found no memory where its slots have some.
    #[error("the guest touched memory that is not plugged, or that its host has none for")]
    Memory,
    /// KVM_RUN failed.
    #[error("KVM_RUN failed: {0}")]
    Run(kvm_ioctls::Error),
}

/// Why a vCPU's registers could not be had, or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// KVM refused: the host's fault.
    #[error("KVM: registers: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    /// The guest was not at rest: a defect here.
    #[error("the guest went on: {0}")]
    Exit(String),
    /// A segment register is not as every guest has it: the guest's fault.
    #[error("the guest changed its segment registers")]
    Segments,
}

impl Cpu {
    pub(crate) fn new(fd: VcpuFd) -> Self {
        Self { fd, exits: 0, first: None }
    }

    /// Sets the first registers of a function's guest.
    pub fn enter(&mut self, start: &Start) -> Result<(), MachineError> {
        self.begin(&start.entry)
    }

    /// Sets first registers.
    pub fn begin(&mut self, entry: &EntryState) -> Result<(), MachineError> {
        let regs = kvm_regs {
            rip: entry.rip,
            rsp: entry.rsp,
            rdi: entry.rdi,
            rflags: entry.rflags,
            ..Default::default()
        };
        self.set(entry, (X87_CONTROL, MXCSR), &regs)
    }

    /// Sets the registers of a guest that goes on.
    pub fn resume(&mut self, resume: &Resume) -> Result<(), MachineError> {
        let cpu = &resume.cpu;
        let mut regs = kvm_regs { rip: cpu.rip, rflags: cpu.rflags, ..Default::default() };
        for (register, value) in general(&mut regs).into_iter().zip(cpu.general) {
            *register = value;
        }
        self.set(&resume.entry, (cpu.x87_control, cpu.mxcsr), &regs)
    }

    /// The registers of a guest that is held in its doorbell. It may go on afterwards.
    pub fn save(&mut self, entry: &EntryState) -> Result<CpuState, SaveError> {
        self.finish_exit()?;
        let sregs = self.fd.get_sregs()?;
        let data = [&sregs.ss, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs];
        let same = sregs.cs.selector == entry.code.selector
            && sregs.cr3 == entry.cr3
            && data.iter().all(|s| s.selector == entry.data.selector && s.base == entry.data.base);
        if !same {
            return Err(SaveError::Segments);
        }
        let (mut regs, fpu) = (self.fd.get_regs()?, self.fd.get_fpu()?);
        Ok(CpuState {
            general: general(&mut regs).map(|register| *register),
            rip: regs.rip,
            rflags: user_flags(regs.rflags),
            x87_control: fpu.fcw,
            mxcsr: fpu.mxcsr,
        })
    }

    /// Leaves nothing in the vCPU of a guest that is held in its doorbell but what [`Self::resume`] sets.
    pub fn forget(&mut self) -> Result<(), SaveError> {
        self.finish_exit()?;
        // Vector registers beyond those of the FPU's state. A trap that the finished instruction left behind goes when KVM is given
        // other registers.
        Ok(sys::clear_extended_state(&self.fd)?)
    }

    /// KVM leaves the instruction of an exit undone until the next entry: this one does that and nothing else.
    fn finish_exit(&mut self) -> Result<(), SaveError> {
        self.fd.set_kvm_immediate_exit(1);
        let entered = self.fd.run().map(|exit| format!("{exit:?}"));
        self.fd.set_kvm_immediate_exit(0);
        match entered {
            Err(error) if error.errno() == libc::EINTR => Ok(()),
            Err(error) => Err(SaveError::Kvm(error)),
            Ok(exit) => Err(SaveError::Exit(exit)),
        }
    }

    fn set(
        &mut self,
        state: &EntryState,
        (fcw, mxcsr): (u16, u32),
        regs: &kvm_regs,
    ) -> Result<(), MachineError> {
        let step = |step| move |source| MachineError::Kvm { step, source };
        if let Some(value) = state.xcr0 {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
            if let Some(first) = xcrs.xcrs.first_mut() {
                *first = kvm_xcr { xcr: 0, value, ..Default::default() };
            }
            self.fd.set_xcrs(&xcrs).map_err(step("set XCR0"))?;
        }
        let mut sregs = match &self.first {
            Some(first) => **first,
            None => {
                **self.first.insert(Box::new(self.fd.get_sregs().map_err(step("read system registers"))?))
            }
        };
        set_segments(&mut sregs, &state.code, &state.data, &state.task);
        (sregs.gdt, sregs.idt) = (table(state.gdt), table(state.idt));
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (state.cr0, state.cr3, state.cr4, state.efer);
        self.fd.set_sregs(&sregs).map_err(step("set system registers"))?;
        let fpu = kvm_fpu { fcw, mxcsr, ..Default::default() };
        self.fd.set_fpu(&fpu).map_err(step("set the FPU state"))?;
        self.fd.set_regs(regs).map_err(step("set registers"))
    }

    /// Runs the guest until something happens. `ram` is where an exception's frame is read.
    pub fn run(&mut self, ram: &Ram) -> Stop {
        let fault = match self.fd.run() {
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return Stop::Interrupted,
            Err(error) => GuestFault::Run(error),
            Ok(exit) => {
                self.exits += 1;
                match exit {
                    VcpuExit::IoOut(DOORBELL_PORT, [_] | [_, _] | [_, _, _, _]) => return Stop::Doorbell,
                    VcpuExit::IoOut(EXCEPTION_PORT, &[vector, _, _, _]) => self.exception(vector, ram),
                    VcpuExit::IoOut(port, data) => GuestFault::Port { port, len: data.len(), write: true },
                    VcpuExit::IoIn(port, data) => GuestFault::Port { port, len: data.len(), write: false },
                    VcpuExit::MmioRead(address, _) | VcpuExit::MmioWrite(address, _) => {
                        GuestFault::Mmio(address)
                    }
                    VcpuExit::Intr => return Stop::Interrupted,
                    VcpuExit::Hlt => GuestFault::Halt,
                    VcpuExit::Shutdown => GuestFault::TripleFault,
                    VcpuExit::FailEntry(reason, _) => GuestFault::Entry(reason),
                    VcpuExit::InternalError => GuestFault::Emulation,
                    other => GuestFault::Exit(format!("{other:?}")),
                }
            }
        };
        Stop::Fault(fault)
    }

    /// Exits so far are nobody's.
    pub(crate) fn count_from_zero(&mut self) {
        self.exits = 0;
    }

    /// Exits so far.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.exits
    }

    /// A handle for other threads to stop this vCPU, which the calling thread runs.
    pub fn kicker(&mut self) -> Kicker {
        Kicker::for_this_thread(&mut self.fd)
    }

    /// Only the supervisor's stubs can report truthfully; a guest that writes this port itself dies all the same, with
    /// whatever it made up.
    fn exception(&self, vector: u8, ram: &Ram) -> GuestFault {
        let frame = Frame::read(ram).unwrap_or(Frame { rip: 0, rsp: 0 });
        let cr2 = self.fd.get_sregs().map_or(0, |sregs| sregs.cr2);
        GuestFault::Exception { vector, rip: frame.rip, rsp: frame.rsp, cr2 }
    }
}

/// The registers that are saved and restored as they are, in the order of [`CpuState::general`].
fn general(regs: &mut kvm_regs) -> [&mut u64; 16] {
    let kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, .. } = regs;
    [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15]
}

/// One segment of code, one of data for every other register, one of a task.
pub(crate) fn set_segments(sregs: &mut kvm_sregs, code: &Segment, data: &Segment, task: &Segment) {
    (sregs.cs, sregs.tr) = (segment(code), segment(task));
    for register in [&mut sregs.ss, &mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs] {
        *register = segment(data);
    }
    sregs.ldt = kvm_segment { unusable: 1, ..Default::default() };
}

fn segment(from: &Segment) -> kvm_segment {
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: from.kind,
        present: 1,
        dpl: from.dpl,
        db: u8::from(from.code_or_data && !from.long),
        s: u8::from(from.code_or_data),
        l: u8::from(from.long),
        g: u8::from(from.code_or_data),
        ..Default::default()
    }
}

pub(crate) fn table((base, limit): (u64, u16)) -> kvm_dtable {
    kvm_dtable { base, limit, ..Default::default() }
}
