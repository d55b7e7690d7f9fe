//! How the guest program starts: what its ELF file must carry, and what the registers hold at its first instruction.
//!
//! The program is a static ELF64 executable for x86-64. Its PT_LOAD segments lie inside [`crate::window::PROGRAM`],
//! share no page with each other, and none is both writable and executable; those that are not writable come first, one piece of
//! the file. The monitor refuses anything else.
//!
//! At `e_entry`: 64-bit user mode (CPL 3, IOPL 3), direction flag clear, `rdi` = [`crate::window::BOOT`]`.base`,
//! `rsp` = top of the mapped stack minus 8 with a zero return address there, so that the entry point may be an
//! `extern "C" fn(boot: *const u8) -> !`. Every other general register is 0; x87 and SSE are in their reset state and
//! XCR0 enables x87, SSE and (where the ISA list has it) AVX. No interrupt is ever delivered.

/// Owner of the note that states the ABI version.
pub const NOTE_NAME: &str = "Warren";

/// Type of that note; its description is one little-endian `u32`, [`crate::ABI_VERSION`].
pub const NOTE_TYPE: u32 = 1;

/// Bytes below the top of the stack at which `rsp` starts.
pub const STACK_TOP_GAP: u64 = 8;
