//! Puts the guest program into memory: its pages are mapped from the file, so that all sandboxes of a host share them.

use crate::ram::{Ram, RamError};
use crate::sys::FileUse;
use rustix::fd::{AsFd, BorrowedFd};
use warren_abi::window::{LARGE_PAGE_SIZE, PAGE_SIZE};
use warren_boot::elf::{ElfError, FileBytes, Program, ProgramSegment, Unwritten};
use warren_boot::paging::PagingError;
use warren_boot::plan::page_up;
use warren_boot::{Access, Mapping, OutOfRange, PageTables};
use warren_state::wasm::Area;

/// Why the guest program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The file is not what the contract says.
    #[error("guest program: {0}")]
    Elf(#[from] ElfError),
    /// The file cannot be read or mapped.
    #[error("guest program")]
    File(#[from] rustix::io::Errno),
    /// What nobody writes of it is not one piece.
    #[error("guest program: what nobody writes is no first piece of the file")]
    Pieces,
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

/// Shows what nobody writes of it: to whoever builds a guest, and to whoever brings one back, of which this is no part.
pub fn show(program: &Program, image: &impl AsFd, ram: &Ram) -> Result<Area, ProgramError> {
    let Unwritten { va, len, offset, room } = program.unwritten().ok_or(ProgramError::Pieces)?;
    let shown = whole(len, room.min(length(image)?.saturating_sub(offset)));
    ram.map_file("the guest program", va, shown, (image.as_fd(), offset), FileUse::ReadOnly)?;
    Ok(Area { gpa: va, len: shown })
}

/// How much of a file that is not written is shown, of `len` bytes at the start of a large page with so much room: all of its large
/// pages, where they are there. Who holds the file has made them so (the jailer and the agent do), and the first touch of any of
/// it is the last that costs anything.
pub(crate) fn whole(len: u64, room: u64) -> u64 {
    let large = len.next_multiple_of(LARGE_PAGE_SIZE);
    if large <= room { large } else { len }
}

fn length(image: &impl AsFd) -> Result<u64, ProgramError> {
    Ok(u64::try_from(rustix::fs::fstat(image)?.st_size).unwrap_or(0))
}

/// Reads and judges the program's headers.
pub fn read(image: &impl AsFd) -> Result<Program, ProgramError> {
    let file = Positioned { fd: image.as_fd(), len: length(image)? };
    Ok(Program::parse(&file)?)
}

/// Maps its segments, identity between virtual and guest-physical addresses; what of it was [shown](show).
pub fn place(
    program: &Program,
    image: &impl AsFd,
    ram: &mut Ram,
    tables: &mut PageTables,
) -> Result<Area, ProgramError> {
    let shown = show(program, image, ram)?;
    for segment in &program.segments {
        let first = segment.va / PAGE_SIZE * PAGE_SIZE;
        let last = page_up(segment.va + segment.memory_len);
        if last > shown.range().end {
            map_bytes(segment, first, image, ram)?;
        }
        tables.map(ram, Mapping { va: first, gpa: first, len: last - first, access: segment.access })?;
    }
    Ok(shown)
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
