//! A vCPU's registers read for a snapshot and set from one, each block in the order that KVM needs.

use super::msr;
use crate::sys::plain::{Plain, bytes, value};
use kvm_bindings::{Msrs, kvm_mp_state, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use warren_state::linux::vcpu::VcpuState;

/// Registers at once.
const BATCH: usize = 64;

/// Why registers could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum RegistersError {
    /// KVM refused a block: the host's fault, or that of who made the snapshot.
    #[error("KVM: {what}: {source}")]
    Block {
        /// Which.
        what: &'static str,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// A model-specific register that KVM does not have, or a value that it does not take.
    #[error("KVM does not take register {0:#x}")]
    Register(u32),
    /// A register that no snapshot keeps.
    #[error("register {0:#x} is none that a snapshot keeps")]
    Forbidden(u32),
    /// A block of another size.
    #[error("{0} of another size")]
    Size(&'static str),
    /// The counter ticks otherwise.
    #[error("the snapshot's clock ticks at {was} kHz, which this host's at {is} kHz cannot")]
    Clock {
        /// Then.
        was: u32,
        /// Now.
        is: u32,
    },
}

/// A vCPU that is out of the guest with nothing half done. `msrs` are those that this host keeps.
pub fn read(fd: &VcpuFd, msrs: &[u32]) -> Result<VcpuState, RegistersError> {
    let failed = |what| move |source| RegistersError::Block { what, source };
    // First: KVM takes what waits of INIT and startup messages now.
    let mp_state = fd.get_mp_state().map_err(failed("whether it runs"))?.mp_state;
    let regs = bytes(&fd.get_regs().map_err(failed("registers"))?);
    let sregs = bytes(&fd.get_sregs().map_err(failed("system registers"))?);
    let mut xsave = bytes(&fd.get_xsave().map_err(failed("the FPU's state"))?);
    let end = xsave.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    xsave.truncate(end);
    let xcrs = match fd.get_xcrs() {
        Ok(xcrs) => Some(bytes(&xcrs)),
        // A processor without them.
        Err(error) if error.errno() == libc::EINVAL => None,
        Err(error) => return Err(failed("extended control registers")(error)),
    };
    let debug = bytes(&fd.get_debug_regs().map_err(failed("debug registers"))?);
    let lapic = bytes(&fd.get_lapic().map_err(failed("the local APIC"))?);
    let msrs = read_msrs(fd, msrs)?;
    let events = bytes(&fd.get_vcpu_events().map_err(failed("events"))?);
    let tsc_khz = fd.get_tsc_khz().map_err(failed("the counter's frequency"))?;
    Ok(VcpuState { tsc_khz, mp_state, regs, sregs, xsave, xcrs, debug, lapic, msrs, events })
}

fn read_msrs(fd: &VcpuFd, registers: &[u32]) -> Result<Vec<(u32, u64)>, RegistersError> {
    let mut read = Vec::with_capacity(registers.len());
    for registers in registers.chunks(BATCH) {
        let mut list = list(registers.iter().map(|index| (*index, 0)))?;
        let count =
            fd.get_msrs(&mut list).map_err(|source| RegistersError::Block { what: "registers", source })?;
        if let Some(refused) = registers.get(count) {
            return Err(RegistersError::Register(*refused));
        }
        read.extend(list.as_slice().iter().map(|entry| (entry.index, entry.data)));
    }
    // As they are at first.
    read.retain(|(index, data)| *data != 0 || !msr::BANKS.contains(index));
    Ok(read)
}

/// Sets everything but CPUID, which comes before. The vCPU has not run, or see [`set_again`].
pub fn set(fd: &VcpuFd, state: &VcpuState) -> Result<(), RegistersError> {
    let failed = |what| move |source| RegistersError::Block { what, source };
    let is = fd.get_tsc_khz().map_err(failed("the counter's frequency"))?;
    if state.tsc_khz != is {
        fd.set_tsc_khz(state.tsc_khz).map_err(|_| RegistersError::Clock { was: state.tsc_khz, is })?;
    }
    fd.set_mp_state(kvm_mp_state { mp_state: state.mp_state }).map_err(failed("whether it runs"))?;
    fd.set_regs(&block(&state.regs, "registers")?).map_err(failed("registers"))?;
    fd.set_sregs(&block(&state.sregs, "system registers")?).map_err(failed("system registers"))?;
    set_xsave(fd, state)?;
    if let Some(xcrs) = &state.xcrs {
        const WHAT: &str = "extended control registers";
        fd.set_xcrs(&block(xcrs, WHAT)?).map_err(failed(WHAT))?;
    }
    fd.set_debug_regs(&block(&state.debug, "debug registers")?).map_err(failed("debug registers"))?;
    fd.set_lapic(&block(&state.lapic, "the local APIC")?).map_err(failed("the local APIC"))?;
    set_msrs(fd, &state.msrs)?;
    fd.set_vcpu_events(&block(&state.events, "events")?).map_err(failed("events"))
}

/// The same of a vCPU that has run: what the state leaves out because it is 0 is set to 0. `kept` are the model-specific registers
/// that this host keeps.
pub fn set_again(fd: &VcpuFd, state: &VcpuState, kept: &[u32]) -> Result<(), RegistersError> {
    set_msrs(fd, &left_out(state, kept))?;
    set(fd, state)
}

fn left_out(state: &VcpuState, kept: &[u32]) -> Vec<(u32, u64)> {
    let banks = kept.iter().filter(|index| msr::BANKS.contains(index));
    let out = banks.filter(|index| !state.msrs.iter().any(|(there, _)| there == *index));
    out.map(|index| (*index, 0)).collect()
}

#[expect(unsafe_code, reason = "KVM takes a size of its own")]
fn set_xsave(fd: &VcpuFd, state: &VcpuState) -> Result<(), RegistersError> {
    let xsave = block(&state.whole_xsave(), "the FPU's state")?;
    // SAFETY: 1. KVM_SET_XSAVE reads a `kvm_xsave` of 4096 bytes, which this is, unless the process was permitted state that
    // is switched on by request (AMX), which this one never asks for.
    unsafe { fd.set_xsave(&xsave) }
        .map_err(|source| RegistersError::Block { what: "the FPU's state", source })
}

fn set_msrs(fd: &VcpuFd, msrs: &[(u32, u64)]) -> Result<(), RegistersError> {
    if let Some((index, _)) = msrs.iter().find(|(index, _)| !msr::is_kept(*index)) {
        return Err(RegistersError::Forbidden(*index));
    }
    for batch in msrs.chunks(BATCH) {
        let list = list(batch.iter().copied())?;
        let count =
            fd.set_msrs(&list).map_err(|source| RegistersError::Block { what: "registers", source })?;
        if let Some((refused, _)) = batch.get(count) {
            return Err(RegistersError::Register(*refused));
        }
    }
    Ok(())
}

fn list(entries: impl Iterator<Item = (u32, u64)>) -> Result<Msrs, RegistersError> {
    let entries: Vec<_> =
        entries.map(|(index, data)| kvm_msr_entry { index, data, ..Default::default() }).collect();
    Msrs::from_entries(&entries).map_err(|_| RegistersError::Size("a list of registers"))
}

fn block<T: Plain>(of: &[u8], what: &'static str) -> Result<T, RegistersError> {
    value(of).ok_or(RegistersError::Size(what))
}
