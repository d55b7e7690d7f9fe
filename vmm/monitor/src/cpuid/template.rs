//! The templates that a Linux guest is started with, by name.

use super::place::Place;
use super::table::{Lacks, Table};
use super::{Leaves, family, host, software};
use kvm_bindings::kvm_cpuid_entry2;
use std::fmt;
use warren_state::linux::Leaf;

/// One template.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    tables: &'static [Table],
}

/// Every template.
pub const TEMPLATES: [Template; 4] = [
    Template {
        name: "host",
        purpose: "all that this host's KVM can give, without what tells hosts of one model apart",
        tables: &[&host::TABLE],
    },
    Template {
        name: "amd-zen",
        purpose: "the same on every AMD host from Zen 1 on",
        tables: &[&family::V3, &family::AMD, &family::ZEN],
    },
    Template {
        name: "amd-v3",
        purpose: "x86-64-v3 on AMD, emulated too; no controls of speculation",
        tables: &[&family::V3, &family::AMD, &family::EMULATED],
    },
    Template {
        name: "intel-skylake",
        purpose: "the same on every Intel server from Skylake on",
        tables: &[&family::V3, &family::SKYLAKE],
    },
];

/// What a processor calls itself, by vendor: no frequency, no model.
const BRANDS: [(u32, &str); 2] =
    [(0x6874_7541, "AMD EPYC Processor"), (0x756E_6547, "Intel(R) Xeon(R) Processor")];
const BRAND_LEN: usize = 48;

/// A name that no template has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no processor template {0:?}; there are {names}", names = Names)]
pub struct UnknownTemplate(pub String);

struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&TEMPLATES.map(|template| template.name).join(", "))
    }
}

impl Template {
    /// The template of a name.
    pub fn named(name: &str) -> Result<Self, UnknownTemplate> {
        let found = TEMPLATES.iter().find(|template| template.name == name);
        found.copied().ok_or_else(|| UnknownTemplate(name.into()))
    }

    /// What every vCPU of a guest sees on a host whose KVM supports this.
    pub fn leaves(self, supported: &[kvm_cpuid_entry2]) -> Result<Leaves, Lacks> {
        let mut leaves = Leaves::new(self.tables, supported)?;
        leaves.name_brand();
        Ok(leaves)
    }

    /// The same on this host, whose processor may be one in software.
    pub fn here(self, supported: &[kvm_cpuid_entry2]) -> Result<Leaves, Lacks> {
        let leaves = self.leaves(supported)?;
        Ok(if software::is_here() { leaves.on_software() } else { leaves })
    }

    /// What one vCPU of a guest sees.
    #[cfg(test)]
    pub(super) fn seat(self, supported: &[kvm_cpuid_entry2], place: Place) -> Result<Leaves, Lacks> {
        self.leaves(supported).map(|leaves| leaves.placed(place))
    }
}

impl Leaves {
    /// As a snapshot has them.
    #[must_use]
    pub fn written(&self) -> Vec<Leaf> {
        let leaf = |entry: &kvm_cpuid_entry2| Leaf {
            at: (entry.function, entry.index),
            flags: entry.flags,
            registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
        };
        self.entries().iter().map(leaf).collect()
    }

    /// The same for one vCPU among others.
    #[must_use]
    pub fn placed(mut self, place: Place) -> Self {
        place.write(&mut self);
        self
    }

    fn name_brand(&mut self) {
        let vendor = self.get(0, 0).ebx;
        let known = BRANDS.iter().find(|(name, _)| *name == vendor);
        let text = known.map_or("virtual processor", |(_, text)| text);
        let mut bytes = [0; BRAND_LEN];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        for (leaf, part) in (0x8000_0002..).zip(bytes.as_chunks::<16>().0) {
            let [a, b, c, d] = [0, 4, 8, 12].map(|at| {
                part.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
            });
            self.change(leaf, 0, |entry| (entry.eax, entry.ebx, entry.ecx, entry.edx) = (a, b, c, d));
        }
    }
}
