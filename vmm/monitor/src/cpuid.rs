//! What a guest sees of the processor: nothing but what a table lets through.
//!
//! ```text
//!  KVM's supported leaves --table--> registers that a row names, the rest zero --fit--> sizes of what is left
//!                            |                                                     (Linux) --place--> this vCPU's seat
//!                            '- the host lacks a bit that a row needs: refused by name
//! ```
//! Deny by default: a leaf, a register or a bit that no row names is zero, whatever a newer processor or KVM brings.
//!
//! Modules: [`table`] rows and how they apply, [`wasm`], [`host`] and [`family`] the tables, [`template`] those that
//! Linux guests choose by name, [`place`] where one vCPU of several stands, [`software`] what emulated processors get wrong.

pub mod family;
pub mod host;
pub mod place;
pub mod software;
pub mod table;
pub mod template;
pub mod wasm;

pub use template::{Template, UnknownTemplate};

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use table::{Lacks, Table};
use warren_boot::entry::Features;

/// Bytes of an XSAVE area without extended components (Intel SDM volume 1, 13.4).
const XSAVE_LEGACY: u32 = 576;

/// More leaves than KVM takes: a defect in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} leaves are more than KVM takes")]
pub struct TooMany(usize);

/// A guest's leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaves(Vec<kvm_cpuid_entry2>);

impl Leaves {
    /// Applies tables to what KVM supports.
    pub fn new(tables: &[Table], supported: &[kvm_cpuid_entry2]) -> Result<Self, Lacks> {
        let mut leaves = Self(table::apply(tables, supported)?);
        leaves.fit_state();
        Ok(leaves)
    }

    /// All of them.
    #[must_use]
    pub fn entries(&self) -> &[kvm_cpuid_entry2] {
        &self.0
    }

    /// As KVM takes them.
    pub fn to_kvm(&self) -> Result<CpuId, TooMany> {
        CpuId::from_entries(&self.0).map_err(|_| TooMany(self.0.len()))
    }

    /// One leaf; zeroes if it is not there.
    #[must_use]
    pub fn get(&self, leaf: u32, index: u32) -> kvm_cpuid_entry2 {
        self.0
            .iter()
            .find(|entry| (entry.function, entry.index) == (leaf, index))
            .copied()
            .unwrap_or_default()
    }

    /// Changes a leaf, made if it is not there.
    fn change(&mut self, leaf: u32, index: u32, change: impl FnOnce(&mut kvm_cpuid_entry2)) {
        if let Some(entry) = self.0.iter_mut().find(|entry| (entry.function, entry.index) == (leaf, index)) {
            change(entry);
        } else {
            let mut entry = table::empty(leaf, index);
            change(&mut entry);
            self.0.push(entry);
        }
    }

    /// State components that were cut leave no leaf of their own and no room in the area.
    fn fit_state(&mut self) {
        let components = self.get(0xD, 0).eax;
        let in_use = |entry: &kvm_cpuid_entry2| {
            entry.index < 2 || 1_u32.checked_shl(entry.index).is_some_and(|bit| components & bit != 0)
        };
        self.0.retain(|entry| entry.function != 0xD || in_use(entry));
        if components == 0 {
            return;
        }
        let ends = self.0.iter().filter(|entry| entry.function == 0xD && entry.index >= 2);
        let end = ends.map(|entry| entry.ebx.saturating_add(entry.eax)).fold(XSAVE_LEGACY, u32::max);
        // The size in use follows XCR0, and is KVM's to keep.
        self.change(0xD, 0, |first| (first.ebx, first.ecx) = (end, end));
    }

    /// What the entry state of a Wasm guest has to know.
    #[must_use]
    pub fn features(&self) -> Features {
        let (one, seven, state) = (self.get(1, 0), self.get(7, 0), self.get(0xD, 0));
        let bit = |word: u32, bit: u32| word & (1 << bit) != 0;
        Features {
            xsave: bit(one.ecx, 26),
            avx: bit(one.ecx, 28) && bit(state.eax, 2),
            smep: bit(seven.ebx, 7),
            smap: bit(seven.ebx, 20),
            umip: bit(seven.ecx, 2),
        }
    }
}

#[cfg(test)]
mod tests;
