//! Modules byte by byte: bombs are too big, or too wrong, to be written as text.

/// An unsigned LEB128 number.
pub(crate) fn leb(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = number.to_le_bytes()[0] & 0x7F;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A vector of `count` equal items.
pub(crate) fn repeat(item: &[u8], count: u64) -> Vec<u8> {
    [leb(count), item.repeat(usize::try_from(count).unwrap())].concat()
}

/// A section.
pub(crate) fn section(id: u8, contents: &[u8]) -> Vec<u8> {
    [vec![id], leb(contents.len() as u64), contents.to_vec()].concat()
}

/// A core module of these sections.
pub(crate) fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
}

/// A component of these sections.
pub(crate) fn component(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x0D\0\x01\0".to_vec(), sections.concat()].concat()
}

/// `_start` and `memory`, the first function being `_start`.
const EXPORTS: &[u8] = b"\x02\x06_start\0\0\x06memory\x02\0";

/// A command of `count` functions without parameters, each with `locals` i32 locals and this body (without its end).
pub(crate) fn command(count: u64, locals: u64, body: &[u8]) -> Vec<u8> {
    let declared = if locals == 0 { vec![0] } else { [vec![1], leb(locals), vec![0x7F]].concat() };
    let function = [declared, body.to_vec(), vec![0x0B]].concat();
    let function = [leb(function.len() as u64), function].concat();
    module(&[
        section(1, b"\x01\x60\0\0"),
        section(3, &repeat(&[0], count)),
        section(5, b"\x01\0\x01"),
        section(7, EXPORTS),
        section(10, &repeat(&function, count)),
    ])
}
