//! The guest program's ELF file: everything the monitor will map, or a refusal.
//!
//! Layout: System V gABI, "ELF Header", "Program Header", "Note Section".

pub(crate) mod fields;
pub(crate) mod header;
mod notes;

use crate::paging::Access;
use alloc::vec::Vec;
use fields::Fields;
use header::{Header, HeaderError, PT_INTERP, PT_LOAD, PT_NOTE, ProgramHeader};
use warren_abi::entry::{NOTE_NAME, NOTE_TYPE};
use warren_abi::window::{PAGE_SIZE, PROGRAM};

/// Most program headers looked at.
const HEADERS_MAX: u16 = 16;
/// Most bytes of notes looked at.
const NOTES_MAX: u64 = 4096;
const PT_DYNAMIC: u32 = 2;
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

/// What nobody writes of a program, where that is one piece of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritten {
    /// First byte, virtual and guest-physical: the start of a page.
    pub va: u64,
    /// Bytes, whole pages.
    pub len: u64,
    /// Where they start in the file.
    pub offset: u64,
    /// From `va` on, bytes that can be shown without covering anything written.
    pub room: u64,
}

impl Program {
    /// What nobody writes of it, if that comes first and lies in the file as in memory.
    #[must_use]
    pub fn unwritten(&self) -> Option<Unwritten> {
        let unwritten = |segment: &&ProgramSegment| {
            segment.access != Access::UserWrite && segment.memory_len == segment.file_len
        };
        let count = self.segments.iter().take_while(unwritten).count();
        let (pieces, rest) = self.segments.split_at_checked(count)?;
        let (first, last) = (pieces.first()?, pieces.last()?);
        let first_byte = |segment: &ProgramSegment| segment.va / PAGE_SIZE * PAGE_SIZE;
        let va = first_byte(first);
        let offset = first.offset - (first.va - va);
        let in_place =
            |segment: &ProgramSegment| segment.va.wrapping_sub(segment.offset) == va.wrapping_sub(offset);
        let len = crate::plan::page_up(last.va + last.memory_len) - va;
        let room = rest.first().map_or(PROGRAM.end(), first_byte) - va;
        pieces.iter().all(in_place).then_some(Unwritten { va, len, offset, room })
    }

    /// Reads and judges a file.
    pub fn parse(file: &(impl FileBytes + ?Sized)) -> Result<Self, ElfError> {
        let header = Header::read(file, HEADERS_MAX)?;
        let mut program = Self { entry: header.entry, segments: Vec::new(), end: PROGRAM.base };
        let mut version = None;
        for header in header.program_headers(file) {
            let header = header?;
            match header.kind {
                PT_LOAD => program.add_segment(file, &header)?,
                PT_NOTE => version = version.or_else(|| find_version(file, &header)),
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
        header: &ProgramHeader,
    ) -> Result<(), ElfError> {
        let &ProgramHeader { index, flags, offset, va, file_len, memory_len, .. } = header;
        let refuse = |rule| Err(ElfError::Segment { index, rule });
        if memory_len == 0 {
            return Ok(());
        }
        if let Some(rule) = header.defect(file) {
            return refuse(rule);
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

impl From<HeaderError> for ElfError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Truncated(what) => Self::Truncated(what),
            HeaderError::Magic => Self::Magic,
            HeaderError::Kind(what) => Self::Kind(what),
        }
    }
}

/// Looks for the version in a PT_NOTE.
fn find_version(file: &(impl FileBytes + ?Sized), header: &ProgramHeader) -> Option<u32> {
    header.note(file, NOTES_MAX, (NOTE_NAME.as_bytes(), NOTE_TYPE), |description| {
        (description.len() == 4).then(|| Fields(description).u32(0))
    })
}

#[cfg(test)]
mod tests;
