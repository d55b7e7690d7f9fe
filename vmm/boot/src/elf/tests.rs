use super::*;
use proptest::prelude::*;
extern crate std;
use std::{vec, vec::Vec};

/// A good program: code at the window's start, data a page later, the note in between.
fn good() -> Vec<u8> {
    let mut file = vec![0; 0x3000];
    file[..64].copy_from_slice(&{
        let mut h = [0; 64];
        h[..7].copy_from_slice(b"\x7FELF\x02\x01\x01");
        h[16..20].copy_from_slice(&[2, 0, 62, 0]);
        h[24..32].copy_from_slice(&(PROGRAM.base + 0x10).to_le_bytes());
        h[32..40].copy_from_slice(&64_u64.to_le_bytes());
        h[54] = 56;
        h[56] = 3;
        h
    });
    put_header(&mut file, 0, [PT_LOAD, 5], [0x1000, PROGRAM.base, 0x800, 0x800]);
    put_header(&mut file, 1, [PT_LOAD, 6], [0x2000, PROGRAM.base + 0x1000, 0x10, 0x5000]);
    put_header(&mut file, 2, [PT_NOTE, 4], [0x400, 0, 24, 24]);
    file[0x400..0x414].copy_from_slice(b"\x07\0\0\0\x04\0\0\0\x01\0\0\0Warren\0\0");
    file[0x414..0x418].copy_from_slice(&warren_abi::ABI_VERSION.to_le_bytes());
    file
}

fn put_header(file: &mut [u8], i: usize, [kind, flags]: [u32; 2], [offset, va, len, mem]: [u64; 4]) {
    let header = &mut file[64 + i * 56..][..56];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[4..8].copy_from_slice(&flags.to_le_bytes());
    for (at, value) in [(8, offset), (16, va), (24, va), (32, len), (40, mem), (48, 0x1000)] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn check(change: impl Fn(&mut Vec<u8>), expect: &str) {
    let mut file = good();
    change(&mut file);
    let error = Program::parse(file.as_slice()).unwrap_err();
    assert!(std::format!("{error}").contains(expect), "{error} lacks {expect:?}");
}

#[test]
fn a_good_program_passes() {
    let program = Program::parse(good().as_slice()).unwrap();
    assert_eq!(program.entry, PROGRAM.base + 0x10);
    assert_eq!(program.end, PROGRAM.base + 0x6000);
    let access: Vec<_> = program.segments.iter().map(|s| s.access).collect();
    assert_eq!(access, [Access::UserExecute, Access::UserWrite]);
}

/// What nobody writes is one piece of the file, or nothing: if it comes first, without holes, as far from the file's start.
#[test]
fn what_nobody_writes_is_one_piece_or_nothing() {
    let segment = |page: u64, offset: u64, pages: u64, access| ProgramSegment {
        va: PROGRAM.base + page * PAGE_SIZE,
        offset: offset * PAGE_SIZE,
        file_len: pages * PAGE_SIZE - 8,
        memory_len: pages * PAGE_SIZE - 8,
        access,
    };
    let (read, run, write) = (Access::UserRead, Access::UserExecute, Access::UserWrite);
    let piece = |offset: u64, pages: u64, room: u64| {
        let [offset, len, room] = [offset, pages, room].map(|pages| pages * PAGE_SIZE);
        Some(Unwritten { va: PROGRAM.base, len, offset, room })
    };
    let all = PROGRAM.max_len / PAGE_SIZE;
    let cases = [
        (vec![segment(0, 0, 2, read), segment(2, 2, 3, run), segment(512, 5, 1, write)], piece(0, 5, 512)),
        (vec![segment(0, 1, 2, run)], piece(1, 2, all)),
        (vec![segment(0, 0, 2, write), segment(2, 2, 3, run)], None),
        (vec![segment(0, 0, 2, read), segment(2, 7, 3, run)], None),
        (vec![], None),
    ];
    for (segments, expected) in cases {
        let program = Program { entry: PROGRAM.base, segments, end: PROGRAM.end() };
        assert_eq!(program.unwritten(), expected, "{program:x?}");
    }
}

#[test]
fn refusals() {
    check(|f| f.truncate(10), "ELF header");
    check(|f| f.truncate(100), "program headers");
    check(|f| f.truncate(0x1100), "segment 0: its bytes are not in the file");
    check(|f| f[0] = 0, "not an ELF");
    check(|f| f[4] = 1, "class");
    check(|f| f[5] = 2, "byte order");
    check(|f| f[16] = 3, "type");
    check(|f| f[18] = 3, "machine");
    check(|f| f[54] = 55, "size of program headers");
    check(|f| f[56] = 0, "number of program headers");
    check(|f| f[57] = 1, "number of program headers");
    check(|f| f[32..40].copy_from_slice(&u64::MAX.to_le_bytes()), "program headers");
    check(|f| f[25] = 0x10, "entry point 0x201010 is not");
    check(|f| put_header(f, 0, [PT_LOAD, 7], [0x1000, PROGRAM.base, 8, 8]), "writable and executable");
    check(|f| put_header(f, 0, [PT_LOAD, 5], [0x1000, 0x10_0000, 8, 8]), "outside the program window");
    check(
        |f| put_header(f, 0, [PT_LOAD, 5], [0x1000, PROGRAM.end() - 4, 8, 8]),
        "outside the program window",
    );
    check(|f| put_header(f, 0, [PT_LOAD, 5], [0x1000, u64::MAX - 4, 8, 8]), "outside the program window");
    check(|f| put_header(f, 0, [PT_LOAD, 5], [0x1001, PROGRAM.base, 8, 8]), "differ within the page");
    check(|f| put_header(f, 0, [PT_LOAD, 5], [u64::MAX, PROGRAM.base, 8, 8]), "not in the file");
    check(|f| put_header(f, 0, [PT_LOAD, 5], [0x1000, PROGRAM.base, 9, 8]), "more bytes in the file");
    check(|f| put_header(f, 1, [PT_LOAD, 4], [0x2800, PROGRAM.base + 0x800, 8, 8]), "shares a page");
    check(|f| put_header(f, 2, [PT_INTERP, 4], [0, 0, 0, 0]), "dynamically linked");
    check(|f| put_header(f, 2, [PT_TLS, 4], [0, 0, 0, 0]), "thread-local");
    check(|f| put_header(f, 2, [99, 4], [0, 0, 0, 0]), "no Warren note");
    check(|f| f[0x40C] = b'w', "no Warren note");
    check(|f| f[0x400..0x404].copy_from_slice(&u32::MAX.to_le_bytes()), "no Warren note");
    check(|f| f[0x414] = 9, "speaks ABI version 9");
}

proptest! {
    /// Any bytes are refused or give ranges that lie in the file and in the window.
    #[test]
    fn mutations_never_escape(edits in prop::collection::vec((0_usize..0x420, any::<u8>()), 0..24), len in 0_usize..0x3000) {
        let mut file = good();
        for (at, byte) in edits {
            file[at] = byte;
        }
        file.truncate(0x3000 - len % 0x800);
        if let Ok(program) = Program::parse(file.as_slice()) {
            let mut end = PROGRAM.base;
            for s in &program.segments {
                prop_assert!(s.offset + s.file_len <= file.len() as u64);
                prop_assert!(s.va >= end && s.va + s.memory_len <= PROGRAM.end());
                prop_assert!(s.file_len <= s.memory_len);
                end = s.va + s.memory_len;
            }
        }
    }
}
