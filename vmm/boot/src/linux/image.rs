//! A kernel's file: everything that must be copied where, or a refusal.

use super::bzimage::{self, BzImageError, SetupHeader};
use super::vmlinux::{self, VmlinuxError};
use crate::elf::FileBytes;
use alloc::vec::Vec;

/// Most bytes of a kernel's file.
pub const FILE_MAX: u64 = 512 << 20;

/// A kernel that can be placed: holding one proves that its segments lie in the file, are ascending, do not overlap
/// and start at or above [`super::layout::KERNEL_START`], and that the entry point is in one of them. It does not prove
/// that they fit the guest's memory: that is [`super::Placement`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelImage {
    /// What to copy, ascending.
    pub segments: Vec<Segment>,
    /// First byte after the memory the kernel needs before it reads the memory map.
    pub end: u64,
    /// How it is started.
    pub entry: Entry,
    /// The boot protocol's header, from a bzImage.
    pub header: Option<SetupHeader>,
}

/// Bytes of the file and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub gpa: u64,
    /// Where they start in the file.
    pub offset: u64,
    /// How many; what follows in memory is zero already.
    pub len: u64,
}

/// How a kernel is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In 64-bit mode with `boot_params` (Linux, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    Long(u64),
    /// In 32-bit protected mode with a start info (Xen, misc/pvh).
    Pvh(u64),
}

/// Which of its entries a kernel should be started by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// The 64-bit one: every kernel that is accepted has it.
    #[default]
    Long,
    /// PVH, which only an ELF file with the note has.
    Pvh,
}

/// Why a file is no kernel for this machine. All of these are the file's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Neither of the two formats.
    #[error("the file is neither a bzImage nor an ELF kernel")]
    Format,
    /// More than anyone's kernel.
    #[error("the file has {len} bytes, {max} are allowed", max = FILE_MAX)]
    TooLarge {
        /// How large.
        len: u64,
    },
    /// A bzImage that breaks a rule.
    #[error("bzImage: {0}")]
    BzImage(#[from] BzImageError),
    /// An ELF kernel that breaks a rule.
    #[error("ELF kernel: {0}")]
    Vmlinux(#[from] VmlinuxError),
}

impl KernelImage {
    /// Reads and judges a file.
    pub fn parse(file: &(impl FileBytes + ?Sized), preference: Preference) -> Result<Self, ImageError> {
        if file.len() > FILE_MAX {
            return Err(ImageError::TooLarge { len: file.len() });
        }
        let mut magic = [0; 4];
        if file.read_at(0, &mut magic) && magic == *b"\x7FELF" {
            return Ok(vmlinux::parse(file, preference)?);
        }
        if file.read_at(bzimage::MAGIC_OFFSET, &mut magic) && magic == bzimage::MAGIC {
            return Ok(bzimage::parse(file, preference)?);
        }
        Err(ImageError::Format)
    }
}

#[cfg(test)]
mod tests;
