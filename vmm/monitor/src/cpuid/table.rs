//! Rows: which bits of which register of which leaf a guest sees, and why.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Rows that belong together. Several rows of one register add up.
pub type Table = &'static [Row];

/// A register of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// All four.
pub const REGISTERS: [Register; 4] = [Register::Eax, Register::Ebx, Register::Ecx, Register::Edx];
/// Every bit.
pub const ALL: u32 = u32::MAX;
/// For [`Row::index`]: every subleaf that the host has.
pub const EACH: Option<u32> = None;

/// What becomes of the host's register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// These bits pass, as far as the host has them.
    Pass(u32),
    /// These bits are seen; a host that lacks one cannot run the guest.
    Need(u32),
    /// This is seen, whatever the host has.
    Fixed(u32),
    /// This is seen; a host that has something else cannot run the guest.
    Same(u32),
    /// The host's number, but no more than this one.
    AtMost(u32),
    /// The lowest byte is this number; a host with a lower one cannot run the guest.
    NeedByte(u8),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// CPUID function.
    pub leaf: u32,
    /// The subleaf; 0 for leaves without.
    pub index: Option<u32>,
    /// Which register.
    pub register: Register,
    /// What is seen of it.
    pub rule: Rule,
    /// What these bits are, and why they are seen.
    pub why: &'static str,
}

/// A row in one line.
#[must_use]
pub const fn row(leaf: u32, index: Option<u32>, register: Register, rule: Rule, why: &'static str) -> Row {
    Row { leaf, index, register, rule, why }
}

/// Bits by their numbers.
#[must_use]
pub const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let (mut word, mut at) = (0, 0);
    while at < N {
        word |= 1 << numbers[at];
        at += 1;
    }
    word
}

/// A host that cannot give a guest what it was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leaf {leaf:#x}.{index} {register:?} is {found:#x} here, {needed:#x} is needed ({why})")]
pub struct Lacks {
    /// CPUID function.
    pub leaf: u32,
    /// Its subleaf.
    pub index: u32,
    /// Which register.
    pub register: Register,
    /// The host's.
    pub found: u32,
    /// The table's.
    pub needed: u32,
    /// The row's name.
    pub why: &'static str,
}

impl Register {
    /// Where it stands in an entry.
    pub fn of(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Self::Eax => &mut entry.eax,
            Self::Ebx => &mut entry.ebx,
            Self::Ecx => &mut entry.ecx,
            Self::Edx => &mut entry.edx,
        }
    }
}

impl Rule {
    /// What is seen of a host's register, or what the host would have to have.
    fn apply(self, found: u32) -> Result<u32, u32> {
        match self {
            Self::Pass(mask) => Ok(found & mask),
            Self::Need(mask) if found & mask == mask => Ok(mask),
            Self::Same(value) if found == value => Ok(value),
            Self::Need(needed) | Self::Same(needed) => Err(needed),
            Self::Fixed(value) => Ok(value),
            Self::AtMost(most) => Ok(found.min(most)),
            Self::NeedByte(least) if found & 0xFF >= u32::from(least) => Ok(least.into()),
            Self::NeedByte(least) => Err(least.into()),
        }
    }
}

/// Leaves whose meaning depends on the subleaf.
fn has_subleaves(leaf: u32) -> bool {
    matches!(leaf, 4 | 7 | 0xB | 0xD | 0x8000_001D)
}

/// An entry of zeroes.
#[must_use]
pub fn empty(leaf: u32, index: u32) -> kvm_cpuid_entry2 {
    let flags = if has_subleaves(leaf) { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
    kvm_cpuid_entry2 { function: leaf, index, flags, ..Default::default() }
}

/// What tables let through of what KVM supports, ascending.
pub fn apply(tables: &[Table], supported: &[kvm_cpuid_entry2]) -> Result<Vec<kvm_cpuid_entry2>, Lacks> {
    let rows = || tables.iter().flat_map(|table| table.iter());
    let find = |leaf, index| supported.iter().find(|entry| (entry.function, entry.index) == (leaf, index));
    let mut wanted: Vec<(u32, u32)> = rows().filter_map(|row| Some((row.leaf, row.index?))).collect();
    let each = |row: &Row| {
        let of = supported.iter().filter(|entry| entry.function == row.leaf);
        of.map(|entry| (entry.function, entry.index)).collect::<Vec<_>>()
    };
    wanted.extend(rows().filter(|row| row.index.is_none()).flat_map(each));
    wanted.sort_unstable();
    wanted.dedup();
    let entry = |(leaf, index)| {
        let (mut seen, mut host) = (empty(leaf, index), find(leaf, index).copied().unwrap_or_default());
        for row in rows().filter(|row| row.leaf == leaf && row.index.is_none_or(|at| at == index)) {
            let (register, why) = (row.register, row.why);
            let found = *register.of(&mut host);
            let lacks = |needed| Lacks { leaf, index, register, found, needed, why };
            *register.of(&mut seen) |= row.rule.apply(found).map_err(lacks)?;
        }
        Ok(seen)
    };
    wanted.into_iter().map(entry).collect()
}
