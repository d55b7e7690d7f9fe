//! Puts the guest program into memory: its pages are mapped from the file, so that all sandboxes of a host share them.

use crate::ram::{Ram, RamError};
use crate::sys::FileUse;
use rustix::fd::{AsFd, BorrowedFd};
use warren_abi::window::PAGE_SIZE;
use warren_boot::elf::{ElfError, FileBytes, Program, ProgramSegment};
use warren_boot::paging::PagingError;
use warren_boot::plan::page_up;
use warren_boot::{Access, Mapping, OutOfRange, PageTables};

/// Why the guest program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The file is not what the contract says.
    #[error("guest program: {0}")]
    Elf(#[from] ElfError),
    /// The file cannot be read or mapped.
    #[error("guest program")]
    File(#[from] rustix::io::Errno),
    /// It could not be mapped.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The page tables do not take it: a defect here.
    #[error(transparent)]
    Paging(#[from] PagingError),
    /// A planned address is not memory: a defect here.
    #[error(transparent)]
    Memory(#[from] OutOfRange),
}

/// A file read by position, so that nobody's offset moves.
pub(crate) struct Positioned<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) len: u64,
}

impl FileBytes for Positioned<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> bool {
        while !buffer.is_empty() {
            match rustix::io::pread(self.fd, &mut *buffer, offset) {
                Ok(0) => return false,
                Ok(count) => {
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                    offset = offset.saturating_add(count as u64);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Reads and judges the program's headers.
pub fn read(image: &impl AsFd) -> Result<Program, ProgramError> {
    let stat = rustix::fs::fstat(image)?;
    let file = Positioned { fd: image.as_fd(), len: u64::try_from(stat.st_size).unwrap_or(0) };
    Ok(Program::parse(&file)?)
}

/// Maps its segments, identity between virtual and guest-physical addresses.
pub fn place(
    program: &Program,
    image: &impl AsFd,
    ram: &mut Ram,
    tables: &mut PageTables,
) -> Result<(), ProgramError> {
    for segment in &program.segments {
        let first = segment.va / PAGE_SIZE * PAGE_SIZE;
        let last = page_up(segment.va + segment.memory_len);
        map_bytes(segment, first, image, ram)?;
        tables.map(ram, Mapping { va: first, gpa: first, len: last - first, access: segment.access })?;
    }
    Ok(())
}

/// File pages first; what follows the file's bytes in the last of them is zeroed if the guest may write there, and the
/// rest of the segment is fresh zero memory already.
fn map_bytes(segment: &ProgramSegment, first: u64, image: &impl AsFd, ram: &Ram) -> Result<(), ProgramError> {
    if segment.file_len == 0 {
        return Ok(());
    }
    let file_end = segment.va + segment.file_len;
    let mapped_end = page_up(file_end);
    let offset = segment.offset - (segment.va - first);
    let usage = if segment.access == Access::UserWrite { FileUse::CopyOnWrite } else { FileUse::ReadOnly };
    ram.map_file("the guest program", first, mapped_end - first, (image.as_fd(), offset), usage)?;
    if usage == FileUse::CopyOnWrite {
        let tail = vec![0; usize::try_from(mapped_end - file_end).unwrap_or(0)];
        ram.put(file_end, &tail)?;
    }
    Ok(())
}
