//! An ELF kernel (`vmlinux`): System V gABI; the PVH note is Xen's `XEN_ELFNOTE_PHYS32_ENTRY`.

use super::image::{Entry, KernelImage, Preference, Segment};
use super::layout::{HIGH_BASE, KERNEL_START};
use crate::elf::{FileBytes, fields::Fields};
use alloc::vec::Vec;

/// Most program headers looked at.
const HEADERS_MAX: u16 = 32;
/// Most bytes of one note segment looked at.
const NOTES_MAX: u64 = 64 << 10;
const EHDR_LEN: usize = 64;
const PHDR_LEN: usize = 56;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
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
    let mut header = [0; EHDR_LEN];
    if !file.read_at(0, &mut header) {
        return Err(VmlinuxError::Truncated("the end of the ELF header"));
    }
    let field = Fields(&header);
    let kind = [
        (field.u8(4) == 2, "class"),
        (field.u8(5) == 1, "byte order"),
        (field.u16(16) == ET_EXEC, "type"),
        (field.u16(18) == EM_X86_64, "machine"),
        (usize::from(field.u16(54)) == PHDR_LEN, "size of program headers"),
        ((1..=HEADERS_MAX).contains(&field.u16(56)), "number of program headers"),
    ];
    if let Some((_, what)) = kind.into_iter().find(|(ok, _)| !ok) {
        return Err(VmlinuxError::Kind(what));
    }
    let mut segments: Vec<Segment> = Vec::new();
    let (mut end, mut pvh) = (KERNEL_START, None);
    for index in 0..field.u16(56) {
        let mut bytes = [0; PHDR_LEN];
        let at = field.u64(32).checked_add(u64::from(index) * PHDR_LEN as u64);
        if !at.is_some_and(|at| file.read_at(at, &mut bytes)) {
            return Err(VmlinuxError::Truncated("the end of the program headers"));
        }
        let header = Fields(&bytes);
        match header.u32(0) {
            PT_LOAD => {
                let (segment, after) = segment(file, index, &header, end)?;
                end = after;
                segments.extend(segment);
            }
            PT_NOTE => pvh = pvh.or_else(|| find_pvh(file, &header)),
            PT_INTERP => return Err(VmlinuxError::Kind("dynamically linked")),
            _ => {}
        }
    }
    let entry = match preference {
        Preference::Long => Entry::Long(field.u64(24)),
        Preference::Pvh => Entry::Pvh(pvh.ok_or(VmlinuxError::NoPvh)?),
    };
    let (Entry::Long(at) | Entry::Pvh(at)) = entry;
    if !segments.iter().any(|segment| (segment.gpa..segment.gpa + segment.len).contains(&at)) {
        return Err(VmlinuxError::Entry(at));
    }
    Ok(KernelImage { segments, end, entry, header: None })
}

/// One PT_LOAD: what to copy, and where it ends in memory.
fn segment(
    file: &(impl FileBytes + ?Sized),
    index: u16,
    header: &Fields<'_>,
    end: u64,
) -> Result<(Option<Segment>, u64), VmlinuxError> {
    let refuse = |rule| Err(VmlinuxError::Segment { index, rule });
    let (offset, gpa) = (header.u64(8), header.u64(24));
    let (len, memory_len) = (header.u64(32), header.u64(40));
    if memory_len == 0 {
        return Ok((None, end));
    }
    if len > memory_len {
        return refuse("more bytes in the file than in memory");
    }
    if offset.checked_add(len).is_none_or(|end| end > file.len()) {
        return refuse("its bytes are not in the file");
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
fn find_pvh(file: &(impl FileBytes + ?Sized), header: &Fields<'_>) -> Option<u64> {
    let len = usize::try_from(header.u64(32).min(NOTES_MAX)).ok()?;
    let mut bytes = alloc::vec![0; len];
    if !file.read_at(header.u64(8), &mut bytes) {
        return None;
    }
    crate::elf::notes::find(&bytes, XEN_NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY, |description| match description
        .len()
    {
        4 => Some(Fields(description).u32(0).into()),
        8 => Some(Fields(description).u64(0)),
        _ => None,
    })
}
