//! What a snapshot of a Linux guest holds, beside its memory.
//!
//! The guest is at rest: every vCPU is out of the guest with nothing half done, no device has begun a request that it has not
//! given back. What waits in a ring waits there again. Connections to the host are not written down: the guest hears that they
//! are over.
//!
//! Modules: [`device`] the devices' records, [`processor`] the name of what is seen of one, [`vcpu`] registers.

pub mod device;
pub mod processor;
pub mod vcpu;

use crate::wasm::{Area, RUNS_MAX, Run};
use crate::{Body, StateError};
use alloc::string::String;
use alloc::vec::Vec;
use device::{Devices, Record};
use serde::{Deserialize, Serialize};
use vcpu::VcpuState;

/// Most vCPUs.
pub const VCPUS_MAX: usize = 32;
/// Most leaves of CPUID: what KVM takes.
pub const LEAVES_MAX: usize = 256;
/// Longest name of a template.
const NAME_MAX: usize = 64;
/// Memory below the gap for devices, and where the rest begins.
const LOW_MAX: u64 = 3 << 30;
const HIGH_BASE: u64 = 4 << 30;
/// Most memory.
const MEMORY_MAX: u64 = 512 << 30;
const PAGE: u64 = 4096;

/// A Linux guest at rest. [`LinuxState::check`] says what may be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxState {
    /// Bytes of memory that the machine was made with.
    pub memory_bytes: u64,
    /// Bytes that the guest was given.
    pub guest_bytes: u64,
    /// The name of its processor's template.
    pub template: String,
    /// What that was on its host, for a vCPU of no place.
    pub leaves: Vec<Leaf>,
    /// KVM's clock, in nanoseconds.
    pub clock_ns: u64,
    /// Registers by vCPU.
    pub vcpus: Vec<VcpuState>,
    /// Its devices: see [`Devices`].
    pub devices: Vec<Record>,
    /// Memory that is not zero, ascending.
    pub runs: Vec<Run>,
    /// How often this guest was restored already: every restore is one generation more.
    pub generation: u64,
}

/// One leaf of CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Leaf and subleaf.
    pub at: (u32, u32),
    /// KVM's flags of it.
    pub flags: u32,
    /// EAX, EBX, ECX, EDX.
    pub registers: [u32; 4],
}

impl Body for LinuxState {
    const MAGIC: [u8; 8] = *b"WRNLINUX";
    const VERSION: u32 = 1;
}

impl LinuxState {
    /// Judges a state against itself and the length of its memory's file, and reads its devices: memory has a size that exists,
    /// runs ascend and lie in it, every register block has its length, every device stands where a driver can have brought it.
    /// Whether a host has such a processor and such devices is not known here.
    pub fn check(&self, memory_len: u64) -> Result<Devices, StateError> {
        let rule = |holds: bool, rule| if holds { Ok(()) } else { Err(StateError::Rule(rule)) };
        let size = self.memory_bytes;
        rule(size > 0 && size.is_multiple_of(PAGE) && size <= MEMORY_MAX, "memory of no size")?;
        rule(self.guest_bytes <= size, "more memory for the guest than there is")?;
        rule(self.template.len() <= NAME_MAX, "a template without end")?;
        rule(self.leaves.len() <= LEAVES_MAX, "too many leaves of CPUID")?;
        rule((1..=VCPUS_MAX).contains(&self.vcpus.len()), "a number of vCPUs that there is not")?;
        rule(self.vcpus.iter().all(VcpuState::is_sound), "registers of another size")?;
        rule(self.runs.len() <= RUNS_MAX, "too many runs of pages")?;
        let low = Area { gpa: 0, len: size.min(LOW_MAX) };
        let high = Area { gpa: HIGH_BASE, len: size - low.len };
        let (mut end, mut total) = (0, 0_u64);
        for run in &self.runs {
            let within = |bank: &Area| bank.gpa <= run.gpa && run.range().end <= bank.range().end;
            rule(run.is_pages() && [low, high].iter().any(within), "pages outside of memory")?;
            rule(run.gpa >= end, "pages out of order")?;
            end = run.range().end;
            total = total.saturating_add(run.len);
        }
        rule(total == memory_len, "memory of another length")?;
        let devices = Devices::read(&self.devices)?;
        rule(devices.are_sound(), "a device in a state that it cannot have")?;
        Ok(devices)
    }
}

#[cfg(test)]
mod tests;
