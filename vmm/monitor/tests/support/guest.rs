//! The contract test guest: follows the ABI, and breaks it on command.
//!
//! The first byte of the code descriptor says what init does, the first byte of a payload what the event does:
//!
//! | code | init | | payload | event |
//! |---|---|---|---|---|
//! | `R` | ready | | `h` + 40 bytes | those bytes are the reply header |
//! | `s` | spins | | `s` | spins |
//! | `E` | error `Init`, text "no" | | `l` + text | logs the text, then answers it |
//! | `P` | panics, text "no" | | `F` + text | one log flush with the text, then answers it |
//! | `r` | replies with a response | | `X` + address | calls the address, answers rax |
//! | `f` | ud2 | | anything else | answers the payload |
//!
//! `X` runs whatever a test put into the code descriptor, which is mapped executable.
#![allow(unsafe_code, reason = "the assembled guest is read from this binary's own read-only data")]

use warren_abi::entry::{NOTE_NAME, NOTE_TYPE};
use warren_abi::window::PROGRAM;

core::arch::global_asm!(
    ".section .rodata",
    ".balign 16",
    "warren_test_guest:",
    "    mov rbx, 0x1000000",         // mailbox
    "    lea r12, [rbx + 0x1000]",    // reply header
    "    mov qword ptr [rsp - 8], 0", // the stack is there
    "    mov r13, 0x201000",          // data segment
    "    cmp dword ptr [r13], 0x11223344",
    "    jne 90f",
    "    cmp dword ptr [r13 + 4], 0", // the rest of the file's page is cleared
    "    jne 90f",
    "    cmp dword ptr [r13 + 0x1800], 0", // bss
    "    jne 90f",
    "    mov dword ptr [r13 + 0x1800], 7",
    "    mov r14, 0x4000000", // code
    "    mov al, [r14]",
    "    mov word ptr [rbx + 0x2000], 0x6f6e", // detail "no"
    "    mov dword ptr [r12 + 12], 2",
    "    cmp al, 's'",
    "    je 80f",
    "    cmp al, 'f'",
    "    je 90f",
    "    mov dword ptr [r12], 3", // error
    "    mov dword ptr [r12 + 4], 9",
    "    cmp al, 'E'",
    "    je 70f",
    "    mov dword ptr [r12], 5", // panic
    "    cmp al, 'P'",
    "    je 70f",
    "    mov dword ptr [r12], 2", // response
    "    cmp al, 'r'",
    "    je 70f",
    "    mov dword ptr [r12], 1", // ready
    "70:",
    "    mov edx, 0x0D0B",
    "    xor eax, eax",
    "    out dx, eax",
    // An event: esi = payload, ecx = its length.
    "    mov eax, [rbx + 40]",
    "    mov ecx, [rbx + 44]",
    "    lea rsi, [rbx + rax + 0x100000]",
    "    mov dword ptr [r12], 2",
    "    mov dword ptr [r12 + 4], 0",
    "    mov qword ptr [r12 + 8], 0",
    "    mov dword ptr [r12 + 16], ecx",
    "    mov dword ptr [r12 + 20], 0",
    "    mov qword ptr [r12 + 24], -1", // peak: a lie to be cut
    "    test ecx, ecx",
    "    jz 75f",
    "    mov al, [rsi]",
    "    cmp al, 's'",
    "    je 80f",
    "    cmp al, 'h'",
    "    je 81f",
    "    cmp al, 'l'",
    "    je 82f",
    "    cmp al, 'F'",
    "    je 83f",
    "    cmp al, 'X'",
    "    je 84f",
    "75:", // answer ecx bytes at rsi
    "    lea rdi, [rbx + 0x800000]",
    "    rep movsb",
    "    jmp 70b",
    "80:",
    "    jmp 80b",
    "81:",
    "    inc rsi",
    "    mov rdi, r12",
    "    mov ecx, 40",
    "    rep movsb",
    "    jmp 70b",
    "82:", // log, then answer
    "    lea rdi, [rbx + 0x10000]",
    "    mov r8, rsi",
    "    mov r9d, ecx",
    "    rep movsb",
    "    mov dword ptr [r12 + 20], r9d",
    "    mov rsi, r8",
    "    mov ecx, r9d",
    "    jmp 75b",
    "83:",
    "    lea rdi, [rbx + 0x10000]",
    "    mov r8, rsi",
    "    mov r9d, ecx",
    "    rep movsb",
    "    mov dword ptr [r12 + 20], r9d",
    "    mov dword ptr [r12], 4", // log flush
    "    mov edx, 0x0D0B",
    "    out dx, al",
    "    mov dword ptr [r12], 2",
    "    mov rsi, r8",
    "    mov ecx, r9d",
    "    jmp 75b",
    "84:",
    "    call qword ptr [rsi + 1]",
    "    mov [rbx + 0x800000], rax",
    "    mov dword ptr [r12 + 16], 8",
    "    jmp 70b",
    "90:",
    "    ud2",
    "warren_test_guest_end:",
    ".text",
);

unsafe extern "C" {
    static warren_test_guest: u8;
    static warren_test_guest_end: u8;
}

fn code() -> &'static [u8] {
    // SAFETY: 1. both symbols are defined above, in this order, in one read-only section.
    unsafe {
        let (start, end) = (&raw const warren_test_guest, &raw const warren_test_guest_end);
        std::slice::from_raw_parts(start, end.addr() - start.addr())
    }
}

/// The guest as an ELF file: code, data (with bytes behind it in the file that must not show), bss, note.
pub fn elf() -> Vec<u8> {
    let mut file = vec![0xEE; 0x3000];
    let mut header = [0_u8; 64];
    header[..7].copy_from_slice(b"\x7FELF\x02\x01\x01");
    header[16..20].copy_from_slice(&[2, 0, 62, 0]);
    header[24..32].copy_from_slice(&PROGRAM.base.to_le_bytes());
    header[32..40].copy_from_slice(&64_u64.to_le_bytes());
    header[54] = 56;
    header[56] = 3;
    file[..64].copy_from_slice(&header);
    let len = code().len() as u64;
    put_header(&mut file, 0, [1, 5], [0x1000, PROGRAM.base, len, len]);
    put_header(&mut file, 1, [1, 6], [0x2000, PROGRAM.base + 0x1000, 4, 0x2000]);
    put_header(&mut file, 2, [4, 4], [0x400, 0, 24, 24]);
    let mut note = vec![7, 0, 0, 0, 4, 0, 0, 0];
    note.extend(NOTE_TYPE.to_le_bytes());
    note.extend(NOTE_NAME.as_bytes());
    note.extend([0, 0]);
    note.extend(warren_abi::ABI_VERSION.to_le_bytes());
    file[0x400..0x418].copy_from_slice(&note);
    file[0x1000..0x1000 + code().len()].copy_from_slice(code());
    file[0x2000..0x2004].copy_from_slice(&0x1122_3344_u32.to_le_bytes());
    file
}

fn put_header(file: &mut [u8], index: usize, [kind, flags]: [u32; 2], [offset, va, len, memory]: [u64; 4]) {
    let header = &mut file[64 + index * 56..][..56];
    header.fill(0);
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[4..8].copy_from_slice(&flags.to_le_bytes());
    for (at, value) in [(8, offset), (16, va), (24, va), (32, len), (40, memory), (48, 0x1000)] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}
