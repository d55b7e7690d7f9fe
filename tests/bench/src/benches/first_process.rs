//! First processes of measured guests, ELF files by hand: the peers' initrd had none of ours in it either.

/// What the process does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Resets the machine by `/proc/sysrq-trigger`, which waits for nothing: that is the moment of init.
    Reset,
    /// Waits for ever.
    Idle,
    /// Writes line after line to the console.
    Print,
}

const BASE: u32 = 0x40_0000;
const HEADERS: u32 = 0x78;
/// The folder of procfs, its type, the trigger and its byte; the console's node, and a line.
const DATA: &[u8; 40] = b"/p\0proc\0/p/sysrq-trigger\0b\0/c\0go\n\0\0\0\0\0\0\0";
const FOLDER: u32 = BASE + HEADERS;
const KIND: u32 = FOLDER + 3;
const TRIGGER: u32 = FOLDER + 8;
const BYTE: u32 = FOLDER + 25;
const NODE: u32 = FOLDER + 27;
const LINE: u32 = FOLDER + 30;
const CODE: u32 = FOLDER + 40;

const SYSCALL: [u8; 2] = [0x0F, 0x05];
/// `mov REGISTER, imm32`.
const EAX: u8 = 0xB8;
const EDX: u8 = 0xBA;
const ESI: u8 = 0xBE;
const EDI: u8 = 0xBF;

/// The file.
pub(super) fn elf(act: Act) -> Vec<u8> {
    let mut code = Vec::new();
    if act == Act::Reset {
        // mkdir, mount (with no flags and no data), open for writing, write.
        call(&mut code, &[(EDI, FOLDER), (ESI, 0o755), (EAX, 83)]);
        code.extend([0x45, 0x31, 0xD2, 0x45, 0x31, 0xC0]);
        call(&mut code, &[(EDI, FOLDER), (ESI, FOLDER), (EDX, KIND), (EAX, 165)]);
        call(&mut code, &[(EDI, TRIGGER), (ESI, 1), (EDX, 0), (EAX, 2)]);
        code.extend([0x89, 0xC7]); // mov edi, eax
        call(&mut code, &[(ESI, BYTE), (EDX, 1), (EAX, 1)]);
    }
    if act == Act::Print {
        // mknod of the console, open it, write to it, again and again.
        call(&mut code, &[(EDI, NODE), (ESI, 0o20600), (EDX, 0x501), (EAX, 133)]);
        call(&mut code, &[(EDI, NODE), (ESI, 1), (EDX, 0), (EAX, 2)]);
        code.extend([0x89, 0xC7]); // mov edi, eax
        call(&mut code, &[(ESI, LINE), (EDX, 3), (EAX, 1)]);
        code.extend([0xEB, 0xED]);
    }
    // pause, again and again
    call(&mut code, &[(EAX, 34)]);
    code.extend([0xEB, 0xF7]);
    file(&code)
}

fn call(code: &mut Vec<u8>, registers: &[(u8, u32)]) {
    for (register, value) in registers {
        code.push(*register);
        code.extend(value.to_le_bytes());
    }
    code.extend(SYSCALL);
}

fn file(code: &[u8]) -> Vec<u8> {
    let len = u64::from(CODE - BASE) + code.len() as u64;
    let fields: [(usize, u64); 11] = [
        (0, 0x0001_0102_464C_457F),
        (16, 2 | 62 << 16 | 1 << 32),
        (24, CODE.into()),
        (32, 64),
        (52, 64 | 56 << 16 | 1 << 32),
        (64, 1 | 5 << 32), // PT_LOAD, read and execute, from the file's start
        (80, BASE.into()),
        (88, BASE.into()),
        (96, len),
        (104, len),
        (112, 0x1000),
    ];
    let mut file = vec![0; HEADERS as usize];
    for (at, value) in fields {
        if let Some(target) = file.get_mut(at..at + 8) {
            target.copy_from_slice(&value.to_le_bytes());
        }
    }
    file.extend(DATA);
    file.extend(code);
    file
}
