//! The guest: an interpreter of steps that is a kernel of its own, entered in 64-bit mode with the first 4 GiB mapped to themselves.
//!
//! ```text
//!  0x0020_0000  table of exceptions, stack      0x0100_0000  the interpreter
//!  0x0040_0000  rings, 64 KiB a queue           0x0101_0000  steps
//!  0x0080_0000  buffers                         0x0110_0000  machine code of cases
//! ```
//! Interrupts stay off. An exception of whatever kind is counted and ends what raised it; the interpreter goes on with the next.
#![allow(unsafe_code, reason = "the assembled guest is read from this program's own read-only data")]

use crate::script::Script;

/// Where the interpreter lies, and is entered.
pub const ENTRY: u64 = 0x100_0000;
/// Where the steps begin.
pub const STEPS: u64 = 0x101_0000;
/// Where a case's machine code begins.
pub const CODE: u64 = 0x110_0000;

// r8 unrefused registers, r9 size, r10 exceptions, r11 what was seen, r12 A, r13 B, r14 times left, r15 the step.
core::arch::global_asm!(
    ".section .rodata",
    ".balign 16",
    "warren_hostile_guest:",
    "    cli",
    "    cld",
    "    mov esp, 0x210000",
    "    xor r8d, r8d",
    "    xor r10d, r10d",
    "    xor r11d, r11d",
    "    mov r15d, 0x1010000",
    // 256 gates to one handler.
    "    lea rsi, [rip + 70f]",
    "    mov edi, 0x200000",
    "    mov ecx, 256",
    "9:  mov [rdi], si",
    "    mov word ptr [rdi + 2], cs",
    "    mov word ptr [rdi + 4], 0x8E00",
    "    mov rax, rsi",
    "    shr rax, 16",
    "    mov [rdi + 6], ax",
    "    shr rax, 16",
    "    mov [rdi + 8], rax",
    "    add edi, 16",
    "    loop 9b",
    "    sub rsp, 16",
    "    mov word ptr [rsp], 4095",
    "    mov qword ptr [rsp + 2], 0x200000",
    "    lidt [rsp]",
    "    add rsp, 16",
    "2:  mov r14d, [r15 + 4]", // a step
    "    mov r12, [r15 + 8]",
    "    mov r13, [r15 + 16]",
    "3:  movzx eax, byte ptr [r15]", // one time of it
    "    movzx r9d, byte ptr [r15 + 1]",
    "    lea rdx, [rip + 60f]",
    "    movsxd rax, dword ptr [rdx + rax * 4]",
    "    add rax, rdx",
    "    jmp rax",
    "4:  add r12, [r15 + 24]", // the next time
    "    add r13, [r15 + 32]",
    "    dec r14d",
    "    jnz 3b",
    "    add r15, 48",
    "    jmp 2b",
    "70: mov esp, 0x210000", // an exception
    "    inc r10",
    "    jmp 4b",
    "20: mov edx, 0x600", // End
    "    mov al, 0x34",
    "    out dx, al",
    "5:  hlt",
    "    jmp 5b",
    "21: cmp r9d, 1", // Write
    "    je 6f",
    "    cmp r9d, 2",
    "    je 7f",
    "    cmp r9d, 4",
    "    je 8f",
    "    mov [r12], r13",
    "    jmp 4b",
    "6:  mov [r12], r13b",
    "    jmp 4b",
    "7:  mov [r12], r13w",
    "    jmp 4b",
    "8:  mov [r12], r13d",
    "    jmp 4b",
    "22: call 71f", // Read
    "    jmp 4b",
    "71: cmp r9d, 1", // r11 = what is at r12
    "    je 6f",
    "    cmp r9d, 2",
    "    je 7f",
    "    cmp r9d, 4",
    "    je 8f",
    "    mov r11, [r12]",
    "    ret",
    "6:  movzx r11d, byte ptr [r12]",
    "    ret",
    "7:  movzx r11d, word ptr [r12]",
    "    ret",
    "8:  mov r11d, [r12]",
    "    ret",
    "23: mov rax, r13", // Out
    "    mov edx, r12d",
    "    cmp r9d, 1",
    "    je 6f",
    "    cmp r9d, 2",
    "    je 7f",
    "    out dx, eax",
    "    jmp 4b",
    "6:  out dx, al",
    "    jmp 4b",
    "7:  out dx, ax",
    "    jmp 4b",
    "24: xor eax, eax", // In
    "    mov edx, r12d",
    "    cmp r9d, 1",
    "    je 6f",
    "    cmp r9d, 2",
    "    je 7f",
    "    in eax, dx",
    "    mov r11, rax",
    "    jmp 4b",
    "6:  in al, dx",
    "    mov r11, rax",
    "    jmp 4b",
    "7:  in ax, dx",
    "    mov r11, rax",
    "    jmp 4b",
    "25: call 71b", // Wait, leaving the processor to others each time
    "    cmp r11, r13",
    "    je 4b",
    "    mov edx, 0x601",
    "    in al, dx",
    "    jmp 25b",
    "26: call 71b", // WaitDevice
    "    cmp r11, r13",
    "    je 6f",
    "    mov rdx, [r15 + 40]",
    "    mov eax, [rdx + 0x70]",
    "    test al, 0x40",
    "    jz 26b",
    "    mov rax, 0x65722d736465656e", // needs-reset
    "    call 72f",
    "    mov eax, 0x746573",
    "    call 72f",
    "    jmp 7f",
    "6:  mov eax, 0x64657375", // used
    "    call 72f",
    "7:  call 73f",
    "    jmp 4b",
    "27: call 71b", // Check
    "    cmp r11, r13",
    "    je 4b",
    "    jmp 74f",
    "28: mov rax, r13", // Say
    "    call 72f",
    "    call 73f",
    "    jmp 4b",
    "29: mov ecx, r12d", // ReadMsr
    "    rdmsr",
    "    inc r8",
    "    jmp 4b",
    "30: mov ecx, r12d", // WriteMsr
    "    mov eax, r13d",
    "    mov rdx, r13",
    "    shr rdx, 32",
    "    wrmsr",
    "    inc r8",
    "    jmp 4b",
    "31: mov eax, r12d", // Cpuid
    "    mov ecx, r13d",
    "    cpuid",
    "    mov r11d, ecx",
    "    jmp 4b",
    "32: call r12", // Call
    "    jmp 4b",
    "33: mov rax, r11", // CheckSeen
    "    and rax, r12",
    "    cmp rax, r13",
    "    je 4b",
    "    jmp 74f",
    "34: mov rax, [r15 + 40]", // Toggle
    "    mov [r12], r13d",
    "    mov [r12], eax",
    "    jmp 4b",
    "35: dec qword ptr [r15 + 40]", // Loop
    "    jz 4b",
    "    sub r15, r12",
    "    jmp 2b",
    "36: mov r11, r8", // Counts
    "    shl r11, 32",
    "    or r11, r10",
    "    xor r8d, r8d",
    "    xor r10d, r10d",
    "    jmp 4b",
    "37: mov rax, [r13]", // Copy
    "    mov [r12], rax",
    "    jmp 4b",
    "38: call 75f", // Print
    "    call 73f",
    "    jmp 4b",
    "72: mov edx, 0x3F8", // the characters of rax, if it has any left
    "6:  test al, al",
    "    jz 7f",
    "    out dx, al",
    "    shr rax, 8",
    "    jmp 6b",
    "7:  ret",
    "73: mov eax, 10", // the end of a line
    "    jmp 72b",
    "75: mov ecx, 16", // r11 as a number of sixteen digits
    "    mov edx, 0x3F8",
    "6:  rol r11, 4",
    "    mov eax, r11d",
    "    and eax, 15",
    "    add eax, 48",
    "    cmp eax, 58",
    "    jb 7f",
    "    add eax, 39",
    "7:  out dx, al",
    "    loop 6b",
    "    ret",
    "74: mov rax, 0x2044455355464552", // failed: REFUSED, which step, what was seen; a reset
    "    call 72b",
    "    mov rbx, r11",
    "    mov r11, r15",
    "    sub r11, 0x1010000",
    "    call 75b",
    "    mov eax, 32",
    "    call 72b",
    "    mov r11, rbx",
    "    call 75b",
    "    call 73b",
    "    mov al, 0xFE",
    "    out 0x64, al",
    "5:  hlt",
    "    jmp 5b",
    ".balign 4",
    "60: .long 20b - 60b, 21b - 60b, 22b - 60b, 23b - 60b, 24b - 60b, 25b - 60b, 26b - 60b, 27b - 60b, 28b - 60b",
    "    .long 29b - 60b, 30b - 60b, 31b - 60b, 32b - 60b, 33b - 60b, 34b - 60b, 35b - 60b, 36b - 60b, 37b - 60b",
    "    .long 38b - 60b",
    "warren_hostile_guest_end:",
    ".text",
);

unsafe extern "C" {
    static warren_hostile_guest: u8;
    static warren_hostile_guest_end: u8;
}

fn interpreter() -> &'static [u8] {
    // SAFETY: 1. both symbols are defined above, in this order, in one read-only section.
    unsafe {
        let (start, end) = (&raw const warren_hostile_guest, &raw const warren_hostile_guest_end);
        core::slice::from_raw_parts(start, end.addr() - start.addr())
    }
}

/// The guest with these steps as an ELF kernel: one segment, entered at its start.
#[must_use]
pub fn kernel(script: &Script) -> Vec<u8> {
    const HEADER: usize = 0x1000;
    let mut segment = interpreter().to_vec();
    for (at, bytes) in [(STEPS, script.image()), (CODE, script.code().to_vec())] {
        let at = usize::try_from(at - ENTRY).unwrap_or_default();
        segment.resize(at.max(segment.len()), 0);
        segment.extend(bytes);
    }
    let len = segment.len() as u64;
    // ELF64, little-endian, executable, x86-64; one program header: loaded, to be read, written and run.
    let fields: [(usize, u64); 11] = [
        (0, 0x0001_0102_464C_457F),
        (16, 2 | 62 << 16 | 1 << 32),
        (24, ENTRY),
        (32, 64),
        (52, 64 | 56 << 16 | 1 << 32),
        (64, 1 | 7 << 32),
        (72, HEADER as u64),
        (80, ENTRY),
        (88, ENTRY),
        (96, len),
        (104, len),
    ];
    let mut file = vec![0; HEADER];
    for (at, value) in fields {
        if let Some(place) = file.get_mut(at..at + 8) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
    file.extend(segment);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_holds_interpreter_steps_and_code_where_they_are_looked_for() {
        let mut script = Script::default();
        script.say("x").call(&[0xC3, 0x90]);
        let file = kernel(&script);
        let at = |address: u64| &file[usize::try_from(address - ENTRY).unwrap() + 0x1000..];
        assert!(at(ENTRY).starts_with(interpreter()));
        assert!(at(STEPS).starts_with(&script.image()));
        assert_eq!(at(CODE), [0xC3, 0x90]);
        assert!(interpreter().len() < usize::try_from(STEPS - ENTRY).unwrap());
    }
}
