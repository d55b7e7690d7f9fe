//! What every static ELF64 executable for x86-64 begins with: the ELF header and the table of program headers.

use super::{FileBytes, fields::Fields};

const EHDR_LEN: usize = 64;
const PHDR_LEN: usize = 56;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;

/// Type of a program header: bytes to load, and notes; and what asks for a dynamic linker.
pub(crate) const PT_LOAD: u32 = 1;
pub(crate) const PT_INTERP: u32 = 3;
pub(crate) const PT_NOTE: u32 = 4;

/// Why a file does not begin so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It ends before this.
    Truncated(&'static str),
    /// Not an ELF file.
    Magic,
    /// This of it is another.
    Kind(&'static str),
}

/// The ELF header, judged.
pub(crate) struct Header {
    /// Virtual address of the first instruction.
    pub(crate) entry: u64,
    table: u64,
    count: u16,
}

/// One program header, as it stands.
pub(crate) struct ProgramHeader {
    pub(crate) index: u16,
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) va: u64,
    pub(crate) pa: u64,
    pub(crate) file_len: u64,
    pub(crate) memory_len: u64,
}

impl Header {
    /// Reads and judges it; at most `most` program headers are looked at.
    pub(crate) fn read(file: &(impl FileBytes + ?Sized), most: u16) -> Result<Self, HeaderError> {
        let mut header = [0; EHDR_LEN];
        if !file.read_at(0, &mut header) {
            return Err(HeaderError::Truncated("the end of the ELF header"));
        }
        if header.first_chunk() != Some(b"\x7FELF") {
            return Err(HeaderError::Magic);
        }
        let field = Fields(&header);
        let kind = [
            (field.u8(4) == 2, "class"),
            (field.u8(5) == 1, "byte order"),
            (field.u16(16) == ET_EXEC, "type"),
            (field.u16(18) == EM_X86_64, "machine"),
            (usize::from(field.u16(54)) == PHDR_LEN, "size of program headers"),
            ((1..=most).contains(&field.u16(56)), "number of program headers"),
        ];
        if let Some((_, what)) = kind.into_iter().find(|(ok, _)| !ok) {
            return Err(HeaderError::Kind(what));
        }
        Ok(Self { entry: field.u64(24), table: field.u64(32), count: field.u16(56) })
    }

    /// The program headers in order, up to the first that is not there.
    pub(crate) fn program_headers(
        &self,
        file: &(impl FileBytes + ?Sized),
    ) -> impl Iterator<Item = Result<ProgramHeader, HeaderError>> {
        (0..self.count).map(|index| {
            let mut bytes = [0; PHDR_LEN];
            let at = self.table.checked_add(u64::from(index) * PHDR_LEN as u64);
            if !at.is_some_and(|at| file.read_at(at, &mut bytes)) {
                return Err(HeaderError::Truncated("the end of the program headers"));
            }
            let field = Fields(&bytes);
            Ok(ProgramHeader {
                index,
                kind: field.u32(0),
                flags: field.u32(4),
                offset: field.u64(8),
                va: field.u64(16),
                pa: field.u64(24),
                file_len: field.u64(32),
                memory_len: field.u64(40),
            })
        })
    }
}

impl ProgramHeader {
    /// What keeps it from being loaded as it stands, if anything does.
    pub(crate) fn defect(&self, file: &(impl FileBytes + ?Sized)) -> Option<&'static str> {
        if self.file_len > self.memory_len {
            return Some("more bytes in the file than in memory");
        }
        let end = self.offset.checked_add(self.file_len);
        end.is_none_or(|end| end > file.len()).then_some("its bytes are not in the file")
    }

    /// What `read` makes of the notes of this name and type that stand here; of the first `most` bytes.
    pub(crate) fn note<T>(
        &self,
        file: &(impl FileBytes + ?Sized),
        most: u64,
        (name, kind): (&[u8], u32),
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let len = usize::try_from(self.file_len.min(most)).ok()?;
        let mut bytes = alloc::vec![0; len];
        if !file.read_at(self.offset, &mut bytes) {
            return None;
        }
        super::notes::find(&bytes, name, kind, read)
    }
}
