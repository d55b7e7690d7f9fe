//! bzImage: the boot protocol's header (Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").

use super::image::{Entry, KernelImage, Preference, Segment};
use super::layout::KERNEL_START;
use crate::elf::FileBytes;

/// Where the magic number stands in the file.
pub const MAGIC_OFFSET: u64 = 0x202;
/// `header`.
pub const MAGIC: [u8; 4] = *b"HdrS";
/// Where the header starts in the file and in `boot_params`.
pub const HEADER_OFFSET: u64 = 0x1F1;
/// Bytes from there to the end of `kernel_info_offset`: every field this protocol has.
pub const HEADER_LEN: usize = 0x26C - 0x1F1;
/// Offset of the 64-bit entry in the protected-mode code.
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;
/// 2.12 brought `xloadflags`, by which a kernel says that it has the 64-bit entry.
const VERSION_MIN: u16 = 0x20C;
const LOADED_HIGH: u8 = 1 << 0;
const XLF_KERNEL_64: u16 = 1 << 0;

/// The header as the file has it, and the fields that decide placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    /// The bytes, as they are copied into `boot_params`.
    pub bytes: [u8; HEADER_LEN],
    /// Last address an initrd's byte may have.
    pub initrd_addr_max: u64,
    /// Most bytes of command line, without the terminator.
    pub cmdline_size: u64,
}

/// Why a bzImage is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BzImageError {
    /// Shorter than its header says.
    #[error("the file ends before {0}")]
    Truncated(&'static str),
    /// A boot protocol that is too old.
    #[error("the kernel speaks boot protocol {}.{:02}; 2.12 is the oldest that works here", .0 >> 8, .0 & 0xFF)]
    Version(u16),
    /// It lacks something.
    #[error("the kernel lacks {0}")]
    Lacks(&'static str),
    /// A field that makes no sense.
    #[error("the header's {field} is {value:#x}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

/// Reads and judges a file whose magic number is right.
pub(super) fn parse(
    file: &(impl FileBytes + ?Sized),
    preference: Preference,
) -> Result<KernelImage, BzImageError> {
    let mut bytes = [0; HEADER_LEN];
    if !file.read_at(HEADER_OFFSET, &mut bytes) {
        return Err(BzImageError::Truncated("the end of the header"));
    }
    let header = Header(&bytes);
    if header.u16(0x1FE) != 0xAA55 {
        return Err(BzImageError::Field { field: "boot_flag", value: header.u16(0x1FE).into() });
    }
    let version = header.u16(0x206);
    if version < VERSION_MIN {
        return Err(BzImageError::Version(version));
    }
    if header.u8(0x211) & LOADED_HIGH == 0 {
        return Err(BzImageError::Lacks("code that is loaded high: it is a zImage"));
    }
    if header.u16(0x236) & XLF_KERNEL_64 == 0 {
        return Err(BzImageError::Lacks("the 64-bit entry (XLF_KERNEL_64)"));
    }
    if preference == Preference::Pvh {
        return Err(BzImageError::Lacks("the PVH entry, which only the ELF file inside a bzImage has"));
    }
    let sectors = match header.u8(0x1F1) {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let offset = (sectors + 1) * SECTOR;
    let declared = u64::from(header.u32(0x1F4)) * 16;
    let len = file.len().checked_sub(offset).filter(|len| *len >= declared.max(ENTRY_64 + 1));
    let len = len.ok_or(BzImageError::Truncated("the end of the protected-mode code"))?;
    let gpa = header.u64(0x258);
    let alignment = u64::from(header.u32(0x230));
    if !alignment.is_power_of_two() || gpa < KERNEL_START || !gpa.is_multiple_of(alignment) {
        return Err(BzImageError::Field { field: "pref_address", value: gpa });
    }
    let init_size = u64::from(header.u32(0x260));
    if init_size < len {
        return Err(BzImageError::Field { field: "init_size", value: init_size });
    }
    let end = gpa.checked_add(init_size).ok_or(BzImageError::Field { field: "pref_address", value: gpa })?;
    Ok(KernelImage {
        segments: alloc::vec![Segment { gpa, offset, len }],
        end,
        entry: Entry::Long(gpa + ENTRY_64),
        header: Some(SetupHeader {
            bytes,
            initrd_addr_max: header.u32(0x22C).into(),
            cmdline_size: header.u32(0x238).into(),
        }),
    })
}

/// Fields by their offsets in the specification, which count from the file's start.
struct Header<'a>(&'a [u8; HEADER_LEN]);

impl Header<'_> {
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let from = at.checked_sub(0x1F1);
        let bytes = from.and_then(|from| self.0.get(from..)).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or([0; N])
    }
    fn u8(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.field(at))
    }
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.field(at))
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }
}
