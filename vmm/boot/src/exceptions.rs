//! What runs when the guest faults: report the vector, stop. Nothing returns from here.
//!
//! The stack the processor switches to is fixed, so the five words it pushes always lie at its top; an error code, if
//! the vector has one, and the vector itself come below.

use crate::descriptors::VECTORS;
use crate::memory::{GuestMemory, OutOfRange};
use crate::plan::EXCEPTION_STACK;
use warren_abi::EXCEPTION_PORT;

/// Bytes of one stub.
pub const STUB_LEN: usize = 10;
/// Bytes of all stubs and the common end.
pub const STUBS_LEN: usize = STUB_LEN * VECTORS + COMMON.len();

/// `mov eax, [rsp]` (the vector), `mov dx, port`, `out dx, eax`, then `hlt` for ever.
const COMMON: [u8; 11] = [0x8B, 0x04, 0x24, 0x66, 0xBA, PORT[0], PORT[1], 0xEF, 0xF4, 0xEB, 0xFD];
const PORT: [u8; 2] = EXCEPTION_PORT.to_le_bytes();

/// The stubs' code, position-independent: `push vector; jmp common` for each vector, then the common end.
#[must_use]
pub fn stubs() -> [u8; STUBS_LEN] {
    let mut code = [0; STUBS_LEN];
    let (table, common) = code.split_at_mut(STUB_LEN * VECTORS);
    common.copy_from_slice(&COMMON);
    let (slots, _) = table.as_chunks_mut::<STUB_LEN>();
    for ((slot, vector), left) in slots.iter_mut().zip(0_u32..).zip((0..VECTORS).rev()) {
        let jump = u32::try_from(left * STUB_LEN).unwrap_or(0);
        let [v0, v1, v2, v3] = vector.to_le_bytes();
        let [j0, j1, j2, j3] = jump.to_le_bytes();
        *slot = [0x68, v0, v1, v2, v3, 0xE9, j0, j1, j2, j3];
    }
    code
}

/// What the processor pushed when the guest faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where.
    pub rip: u64,
    /// The stack then.
    pub rsp: u64,
}

impl Frame {
    /// Reads the frame from the exception stack. The stack is not user-accessible, so only the processor wrote it.
    pub fn read(memory: &impl GuestMemory) -> Result<Self, OutOfRange> {
        let word = |below: u64| {
            let mut bytes = [0; 8];
            memory.read(EXCEPTION_STACK.end - below, &mut bytes).map(|()| u64::from_le_bytes(bytes))
        };
        Ok(Self { rip: word(40)?, rsp: word(16)? })
    }
}

/// The name of a vector, as in Intel SDM volume 3, table 7-1.
#[must_use]
pub fn vector_name(vector: u8) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug",
        2 => "NMI",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection",
        14 => "page fault",
        16 => "x87 error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD error",
        20 => "virtualisation",
        21 => "control protection",
        _ => "unexpected vector",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stub_reaches_the_common_end() {
        let code = stubs();
        for vector in 0..VECTORS {
            let stub = &code[vector * STUB_LEN..][..STUB_LEN];
            assert_eq!(u32::from_le_bytes(stub[1..5].try_into().unwrap()) as usize, vector);
            let jump = u32::from_le_bytes(stub[6..].try_into().unwrap()) as usize;
            assert_eq!((vector + 1) * STUB_LEN + jump, STUB_LEN * VECTORS);
        }
        assert_eq!(code[STUB_LEN * VECTORS..], COMMON);
    }
}
