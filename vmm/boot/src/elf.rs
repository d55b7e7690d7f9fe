//! The guest program's ELF file: everything the monitor will map, or a refusal.
//!
//! Layout: System V gABI, "ELF Header", "Program Header", "Note Section".

pub(crate) mod fields;
pub(crate) mod notes;

use crate::paging::Access;
use alloc::vec::Vec;
use fields::Fields;
use warren_abi::entry::{NOTE_NAME, NOTE_TYPE};
use warren_abi::window::{PAGE_SIZE, PROGRAM};

/// Most program headers looked at.
const HEADERS_MAX: u16 = 16;
/// Most bytes of notes looked at.
const NOTES_MAX: u64 = 4096;
const EHDR_LEN: usize = 64;
const PHDR_LEN: usize = 56;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_TLS: u32 = 7;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// A file that can be read at an offset.
pub trait FileBytes {
    /// Bytes in the file.
    fn len(&self) -> u64;
    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buffer` from `offset`; false if the file does not reach that far or cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> bool;
}

impl FileBytes for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(buffer.len())?));
        range.and_then(|range| self.get(range)).is_some_and(|bytes| {
            buffer.copy_from_slice(bytes);
            true
        })
    }
}

/// A program that can be mapped: holding one proves that every range lies in the file and in the program window, that
/// segments are in order and share no page, and that the entry point is in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// First instruction.
    pub entry: u64,
    /// What to map, ascending.
    pub segments: Vec<ProgramSegment>,
    /// First page-aligned address after the last segment.
    pub end: u64,
}

/// One PT_LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSegment {
    /// First byte, virtual and (in this guest) guest-physical.
    pub va: u64,
    /// Where its bytes start in the file; congruent to `va` modulo the page size.
    pub offset: u64,
    /// Bytes from the file.
    pub file_len: u64,
    /// Bytes in memory; what the file does not give is zero.
    pub memory_len: u64,
    /// Read, execute or write, for user mode.
    pub access: Access,
}

/// Why a file is no guest program. All of these are the file's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Too short for what its headers say.
    #[error("the file ends before {0}")]
    Truncated(&'static str),
    /// Not an ELF file.
    #[error("not an ELF file")]
    Magic,
    /// ELF, but not of the kind the contract names.
    #[error("not a static little-endian ELF64 executable for x86-64: {0}")]
    Kind(&'static str),
    /// A segment breaks a rule.
    #[error("segment {index}: {rule}")]
    Segment {
        /// Which program header.
        index: u16,
        /// Which rule.
        rule: &'static str,
    },
    /// The entry point is not in an executable segment.
    #[error("entry point {0:#x} is not in an executable segment")]
    Entry(u64),
    /// No note states the ABI version.
    #[error("no {NOTE_NAME} note states the ABI version")]
    NoVersion,
    /// The note states another version.
    #[error("the program speaks ABI version {found}, this monitor speaks {expected}")]
    Version {
        /// In the file.
        found: u32,
        /// Ours.
        expected: u32,
    },
}

impl Program {
    /// Reads and judges a file.
    pub fn parse(file: &(impl FileBytes + ?Sized)) -> Result<Self, ElfError> {
        let mut header = [0; EHDR_LEN];
        if !file.read_at(0, &mut header) {
            return Err(ElfError::Truncated("the end of the ELF header"));
        }
        if header.first_chunk() != Some(b"\x7FELF") {
            return Err(ElfError::Magic);
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
            return Err(ElfError::Kind(what));
        }
        let mut program = Self { entry: field.u64(24), segments: Vec::new(), end: PROGRAM.base };
        let mut version = None;
        for index in 0..field.u16(56) {
            let mut bytes = [0; PHDR_LEN];
            let at = field.u64(32).checked_add(u64::from(index) * PHDR_LEN as u64);
            if !at.is_some_and(|at| file.read_at(at, &mut bytes)) {
                return Err(ElfError::Truncated("the end of the program headers"));
            }
            let header = Fields(&bytes);
            match header.u32(0) {
                PT_LOAD => program.add_segment(file, index, &header)?,
                PT_NOTE => version = version.or(find_version(file, &header)),
                PT_INTERP | PT_DYNAMIC => return Err(ElfError::Kind("dynamically linked")),
                PT_TLS => return Err(ElfError::Kind("thread-local storage")),
                _ => {}
            }
        }
        program.judge(version)
    }

    fn add_segment(
        &mut self,
        file: &(impl FileBytes + ?Sized),
        index: u16,
        header: &Fields<'_>,
    ) -> Result<(), ElfError> {
        let refuse = |rule| Err(ElfError::Segment { index, rule });
        let (flags, offset, va) = (header.u32(4), header.u64(8), header.u64(16));
        let (file_len, memory_len) = (header.u64(32), header.u64(40));
        if memory_len == 0 {
            return Ok(());
        }
        if file_len > memory_len {
            return refuse("more bytes in the file than in memory");
        }
        if offset.checked_add(file_len).is_none_or(|end| end > file.len()) {
            return refuse("its bytes are not in the file");
        }
        if va < PROGRAM.base || va.checked_add(memory_len).is_none_or(|end| end > PROGRAM.end()) {
            return refuse("outside the program window");
        }
        if va % PAGE_SIZE != offset % PAGE_SIZE {
            return refuse("address and file offset differ within the page");
        }
        if va / PAGE_SIZE * PAGE_SIZE < self.end {
            return refuse("shares a page with the one before it, or is out of order");
        }
        let access = match (flags & PF_W != 0, flags & PF_X != 0) {
            (true, true) => return refuse("writable and executable"),
            (true, false) => Access::UserWrite,
            (false, true) => Access::UserExecute,
            (false, false) => Access::UserRead,
        };
        self.end = crate::plan::page_up(va + memory_len);
        self.segments.push(ProgramSegment { va, offset, file_len, memory_len, access });
        Ok(())
    }

    fn judge(self, version: Option<u32>) -> Result<Self, ElfError> {
        let in_code = |s: &ProgramSegment| {
            s.access == Access::UserExecute && (s.va..s.va + s.file_len).contains(&self.entry)
        };
        if !self.segments.iter().any(in_code) {
            return Err(ElfError::Entry(self.entry));
        }
        match version {
            None => Err(ElfError::NoVersion),
            Some(warren_abi::ABI_VERSION) => Ok(self),
            Some(found) => Err(ElfError::Version { found, expected: warren_abi::ABI_VERSION }),
        }
    }
}

/// Looks for the version in a PT_NOTE.
fn find_version(file: &(impl FileBytes + ?Sized), header: &Fields<'_>) -> Option<u32> {
    let len = usize::try_from(header.u64(32).min(NOTES_MAX)).ok()?;
    let mut bytes = alloc::vec![0; len];
    if !file.read_at(header.u64(8), &mut bytes) {
        return None;
    }
    notes::find(&bytes, NOTE_NAME.as_bytes(), NOTE_TYPE, |description| {
        (description.len() == 4).then(|| Fields(description).u32(0))
    })
}

#[cfg(test)]
mod tests;
