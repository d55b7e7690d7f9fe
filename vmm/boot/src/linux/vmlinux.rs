//! An ELF kernel (`vmlinux`): System V gABI; the PVH note is Xen's `XEN_ELFNOTE_PHYS32_ENTRY`.

use super::image::{Entry, KernelImage, Preference, Segment};
use super::layout::{HIGH_BASE, KERNEL_START};
use crate::elf::{
    FileBytes,
    fields::Fields,
    header::{Header, HeaderError, PT_INTERP, PT_LOAD, PT_NOTE, ProgramHeader},
};
use alloc::vec::Vec;

/// Most program headers looked at.
const HEADERS_MAX: u16 = 32;
/// Most bytes of one note segment looked at.
const NOTES_MAX: u64 = 64 << 10;
const XEN_NOTE_NAME: &[u8] = b"Xen";
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// Why an ELF kernel is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmlinuxError {
    /// Shorter than its headers say.
    #[error("the file ends before {0}")]
    Truncated(&'static str),
    /// Not the right kind of ELF file.
    #[error("not a little-endian ELF64 executable for x86-64: {0}")]
    Kind(&'static str),
    /// A segment breaks a rule.
    #[error("segment {index}: {rule}")]
    Segment {
        /// Which program header.
        index: u16,
        /// Which rule.
        rule: &'static str,
    },
    /// The entry point is in no segment.
    #[error("entry point {0:#x} is in no segment")]
    Entry(u64),
    /// No PVH note.
    #[error("the kernel lacks the PVH entry (a Xen note of type 18)")]
    NoPvh,
}

/// Reads and judges a file whose magic number is right.
pub(super) fn parse(
    file: &(impl FileBytes + ?Sized),
    preference: Preference,
) -> Result<KernelImage, VmlinuxError> {
    let header = Header::read(file, HEADERS_MAX)?;
    let mut segments: Vec<Segment> = Vec::new();
    let (mut end, mut pvh) = (KERNEL_START, None);
    for header in header.program_headers(file) {
        let header = header?;
        match header.kind {
            PT_LOAD => {
                let (segment, after) = segment(file, &header, end)?;
                end = after;
                segments.extend(segment);
            }
            PT_NOTE => pvh = pvh.or_else(|| find_pvh(file, &header)),
            PT_INTERP => return Err(VmlinuxError::Kind("dynamically linked")),
            _ => {}
        }
    }
    let entry = match preference {
        Preference::Long => Entry::Long(header.entry),
        Preference::Pvh => Entry::Pvh(pvh.ok_or(VmlinuxError::NoPvh)?),
    };
    let (Entry::Long(at) | Entry::Pvh(at)) = entry;
    if !segments.iter().any(|segment| (segment.gpa..segment.gpa + segment.len).contains(&at)) {
        return Err(VmlinuxError::Entry(at));
    }
    Ok(KernelImage { segments, end, entry, header: None })
}

impl From<HeaderError> for VmlinuxError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Truncated(what) => Self::Truncated(what),
            HeaderError::Magic => Self::Kind("magic number"),
            HeaderError::Kind(what) => Self::Kind(what),
        }
    }
}

/// One PT_LOAD: what to copy, and where it ends in memory.
fn segment(
    file: &(impl FileBytes + ?Sized),
    header: &ProgramHeader,
    end: u64,
) -> Result<(Option<Segment>, u64), VmlinuxError> {
    let &ProgramHeader { index, offset, pa: gpa, file_len: len, memory_len, .. } = header;
    let refuse = |rule| Err(VmlinuxError::Segment { index, rule });
    if memory_len == 0 {
        return Ok((None, end));
    }
    if let Some(rule) = header.defect(file) {
        return refuse(rule);
    }
    if gpa < end {
        return refuse("below 1 MiB, out of order, or over the one before it");
    }
    match gpa.checked_add(memory_len) {
        Some(after) if after <= HIGH_BASE => Ok(((len > 0).then_some(Segment { gpa, offset, len }), after)),
        _ => refuse("above 4 GiB"),
    }
}

/// Looks for the PVH entry in a PT_NOTE; notes of others are passed over, a malformed rest ends the search.
fn find_pvh(file: &(impl FileBytes + ?Sized), header: &ProgramHeader) -> Option<u64> {
    let wanted = (XEN_NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY);
    header.note(file, NOTES_MAX, wanted, |description| match description.len() {
        4 => Some(Fields(description).u32(0).into()),
        8 => Some(Fields(description).u64(0)),
        _ => None,
    })
}
