//! Zip files of an exact size, of bytes that cannot be packed: what `warren fn create --code` may be given at most, and one
//! byte more.

use anyhow::{Context as _, Result};
use std::{fs, path::Path};

/// Bytes around a member: its local header, its row of the directory; and the end.
const LOCAL: usize = 30;
const ROW: usize = 46;
const END: usize = 22;
/// A Unix file that can be run.
const PROGRAM: u32 = 0o100_755 << 16;

/// A zip with this program as `bootstrap` and a member `ballast` that fills it up to `size` bytes.
pub(crate) fn of_size(program: &[u8], size: usize) -> Result<Vec<u8>> {
    let names = ["bootstrap", "ballast"];
    let around = END + names.iter().map(|name| LOCAL + ROW + 2 * name.len()).sum::<usize>();
    let ballast = size.checked_sub(around + program.len()).context("that is smaller than its program")?;
    stored(&[(names[0], program), (names[1], &noise(ballast))])
}

/// Members as they are.
fn stored(members: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let at = u32::try_from(zip.len())?;
        let len = u32::try_from(bytes.len())?.to_le_bytes();
        // Version 2.0; stored; the first day of 1980; checksum; both sizes; the name's length, nothing more.
        let mut about = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        about.extend(crc32(bytes).to_le_bytes());
        about.extend(len.iter().chain(&len));
        about.extend(u16::try_from(name.len())?.to_le_bytes());
        about.extend([0, 0]);
        zip.extend(b"PK\x03\x04");
        zip.extend(&about);
        zip.extend(name.as_bytes());
        zip.extend(*bytes);
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&about);
        directory.extend([0; 6]);
        directory.extend(PROGRAM.to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, len) = (u32::try_from(zip.len())?, u32::try_from(directory.len())?);
    let count = u16::try_from(members.len())?.to_le_bytes();
    zip.extend(directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count.iter().chain(&count));
    zip.extend(len.to_le_bytes());
    zip.extend(at.to_le_bytes());
    zip.extend([0, 0]);
    Ok(zip)
}

/// The same bytes each time, and nothing about them to find (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut table = [0_u32; 256];
    for (row, byte) in table.iter_mut().zip(0_u32..) {
        *row = (0..8).fold(byte, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 });
    }
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = crc.to_le_bytes();
        table.get(usize::from(low ^ byte)).copied().unwrap_or_default() ^ crc >> 8
    };
    !bytes.iter().fold(!0, step)
}

/// Writes the largest that may be, and one a byte over it, into `folder`.
pub(crate) fn largest(folder: &Path, program: &Path, limit: usize) -> Result<()> {
    let program = fs::read(program).with_context(|| program.display().to_string())?;
    fs::create_dir_all(folder)?;
    for (name, size) in [("largest.zip", limit), ("larger.zip", limit + 1)] {
        fs::write(folder.join(name), of_size(&program, size)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_and_checksums_right() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(of_size(b"#!/bin/sh\n", 4096).expect("a zip").len(), 4096);
        assert!(of_size(b"#!/bin/sh\n", 100).is_err());
    }
}
