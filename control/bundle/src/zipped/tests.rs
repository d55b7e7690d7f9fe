use super::*;
use crate::MAX_ARCHIVE_BYTES;
use proptest::prelude::*;
use std::io::Read as _;

/// An entry as it is written, name and mode as they are.
struct Row<'a> {
    name: &'a str,
    mode: u32,
    bytes: &'a [u8],
}

fn row<'a>(name: &'a str, mode: u32, bytes: &'a [u8]) -> Row<'a> {
    Row { name, mode, bytes }
}

/// A zip written by hand: writers refuse most of what is tested here.
fn zip(rows: &[Row<'_>], deflate: bool) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for Row { name, mode, bytes } in rows {
        let packed = if deflate { miniz_oxide::deflate::compress_to_vec(bytes, 6) } else { bytes.to_vec() };
        let at = u32::try_from(out.len()).unwrap();
        let mut common = Vec::new();
        common.extend([20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0x21, 0]);
        for number in
            [crc32(bytes), u32::try_from(packed.len()).unwrap(), u32::try_from(bytes.len()).unwrap()]
        {
            common.extend(number.to_le_bytes());
        }
        common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(&packed);
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&common);
        directory.extend([0; 6]);
        directory.extend((mode << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, count) = (u32::try_from(out.len()).unwrap(), u16::try_from(rows.len()).unwrap());
    let size = u32::try_from(directory.len()).unwrap();
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend([size.to_le_bytes(), at.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

/// Names and modes of an archive, as a reader sees them.
fn read(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), bytes)
    });
    entries.collect()
}

#[test]
fn what_is_good_comes_out_sorted_with_loose_files_last() {
    let rows = [
        row("sub/app.py", 0o100_644, b"pass"),
        row("bootstrap", 0o100_755, b"#!"),
        row("sub/", 0o040_755, b""),
        row("./a//b", 0, b"dos"),
    ];
    for deflate in [false, true] {
        let found = read(&from_zip(&zip(&rows, deflate)).unwrap());
        let expect = [
            ("a", 0o755, &b""[..]),
            ("a/b", 0o644, b"dos"),
            ("sub", 0o755, b""),
            ("sub/app.py", 0o644, b"pass"),
            ("bootstrap", 0o755, b"#!"),
        ];
        let expect = expect.map(|(name, mode, bytes)| (name.to_owned(), mode, bytes.to_vec()));
        assert_eq!(found, expect);
    }
    assert_eq!(read(&from_zip(&zip(&[], false)).unwrap()), []);
}

#[track_caller]
fn refused(bytes: &[u8], reason: &str, words: &str) {
    let error = from_zip(bytes).unwrap_err();
    assert_eq!(error.reason(), reason, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn unsafe_names() {
    for name in ["../x", "a/../../x", "/etc/passwd", "..", "a\\..\\b", "\\x", "x\0y", "", "."] {
        refused(&zip(&[row(name, 0o100_644, b"x")], false), "ZIP_UNSAFE_NAME", "relative path");
    }
    let long = format!("{}/x", "a".repeat(200));
    refused(&zip(&[row(&long, 0, b"x")], false), "ZIP_UNSAFE_NAME", "too long");
    let mut bad = zip(&[row("??", 0, b"x")], false);
    for at in 0..bad.len() - 1 {
        if bad[at..at + 2] == *b"??" {
            bad[at] = 0xFF;
        }
    }
    refused(&bad, "ZIP_UNSAFE_NAME", "UTF-8");
}

#[test]
fn neither_file_nor_folder() {
    refused(&zip(&[row("l", 0o120_777, b"/etc/passwd")], false), "ZIP_SPECIAL_FILE", "link");
    for (name, mode) in
        [("b", 0o060_644), ("c", 0o020_644), ("p", 0o010_644), ("s", 0o140_644), ("d", 0o040_755)]
    {
        refused(&zip(&[row(name, mode, b"")], false), "ZIP_SPECIAL_FILE", "neither");
    }
    refused(&zip(&[row("f/", 0o100_644, b"")], false), "ZIP_SPECIAL_FILE", "neither");
}

#[test]
fn twice() {
    for names in [["a", "a"], ["a", "./a"], ["a/", "a/"], ["a", "a/b"], ["a/b", "a"]] {
        let rows = names.map(|name| row(name, 0, b""));
        refused(&zip(&rows, false), "ZIP_DUPLICATE_NAME", "twice");
    }
}

#[test]
fn bombs() {
    let zeros = vec![0; 8 << 20];
    refused(&zip(&[row("z", 0, &zeros)], true), "ZIP_BOMB", "times its size");
    let many: Vec<_> = (0..20).map(|n| format!("z{n}")).collect();
    let rows: Vec<_> = many.iter().map(|name| row(name, 0, &zeros)).collect();
    refused(&zip(&rows, true), "ZIP_BOMB", "times its size");
    // Not a bomb, just large: stored bytes beyond what an archive may have. (A zip of that size is refused by its own size.)
    refused(&vec![b'P'; MAX_ZIP_BYTES + 1], "CODE_TOO_LARGE", "50 MiB");
    let noise: Vec<u8> = (0..(1_u32 << 20)).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let text: Vec<u8> = noise.chunks(8).flat_map(|chunk| chunk.repeat(16)).collect();
    let rows: Vec<_> = many.iter().take(16).map(|name| row(name, 0, &text)).collect();
    let large = zip(&rows, true);
    assert!(large.len() < MAX_ZIP_BYTES && text.len() * 16 > MAX_ARCHIVE_BYTES);
    refused(&large, "CODE_TOO_LARGE", "250 MiB");
    let names: Vec<_> = (0..=MAX_ENTRIES).map(|n| n.to_string()).collect();
    let rows: Vec<_> = names.iter().map(|name| row(name, 0, b"")).collect();
    refused(&zip(&rows, false), "ZIP_TOO_MANY_ENTRIES", "more than");
    let deep = vec!["d"; 120].join("/");
    let rows: Vec<_> = (0..100).map(|n| format!("{n}/{deep}")).collect();
    let rows: Vec<_> = rows.iter().map(|name| row(name, 0, b"")).collect();
    refused(&zip(&rows, false), "ZIP_TOO_MANY_ENTRIES", "more than");
}

#[test]
fn what_it_says_is_not_believed() {
    let good = zip(&[row("a", 0, b"hello hello hello")], true);
    // The checksum, in both places.
    let mut wrong = good.clone();
    wrong[14] ^= 1;
    let directory = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    wrong[directory + 16] ^= 1;
    refused(&wrong, "ZIP_MALFORMED", "a");
    // Encrypted, as its flags say.
    let mut wrong = good.clone();
    (wrong[6], wrong[directory + 8]) = (1, 1);
    refused(&wrong, "ZIP_UNSUPPORTED", "encrypted");
    // bzip2.
    let mut wrong = good.clone();
    (wrong[8], wrong[directory + 10]) = (12, 12);
    refused(&wrong, "ZIP_UNSUPPORTED", "compressed");
    refused(b"PK\x03\x04", "ZIP_MALFORMED", "cannot be read");
    refused(&[b"#!/bin/sh\n".as_slice(), &good].concat(), "ZIP_MALFORMED", "begin");
    // Two entries over the same bytes.
    let mut shared = zip(&[row("a", 0, b"x"), row("b", 0, b"x")], false);
    let second = shared.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    shared[second + 42..second + 46].copy_from_slice(&[0; 4]);
    refused(&shared, "ZIP_MALFORMED", "different things");
    // An entry that lies whole within another's bytes.
    let inner = zip(&[row("b", 0, b"x")], false);
    let inner = &inner[..inner.windows(4).position(|w| w == b"PK\x01\x02").unwrap()];
    let mut nested = zip(&[row("a", 0, inner), row("b", 0, b"x")], false);
    let second = nested.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    nested[second + 42..second + 46].copy_from_slice(&31_u32.to_le_bytes());
    refused(&nested, "ZIP_MALFORMED", "share their bytes");
}

#[test]
fn what_others_write_is_read() {
    let mut bytes = Vec::new();
    let mut writer = rawzip::ZipArchiveWriter::new(&mut bytes);
    writer.new_dir("lib/").create().unwrap();
    // With a data descriptor behind the bytes, as who writes to a pipe does.
    let file = writer.new_file("lib/bootstrap").unix_permissions(0o755);
    let (mut entry, config) = file.compression_method(CompressionMethod::STORE).start().unwrap();
    let mut out = config.wrap(&mut entry);
    std::io::Write::write_all(&mut out, &b"echo hello\n".repeat(100)).unwrap();
    let (_, descriptor) = out.finish().unwrap();
    entry.finish(descriptor).unwrap();
    writer.finish().unwrap();
    let found = read(&from_zip(&bytes).unwrap());
    assert_eq!(found.len(), 2);
    assert_eq!((found[1].1, found[1].2.len()), (0o755, 1100));
}

proptest! {
    /// Whatever a zip's bytes became, the answer is an archive within its bounds, with names that lead nowhere, or a refusal.
    #[test]
    fn mutated(
        names in proptest::collection::vec("[a-c./]{1,6}", 1..6),
        deflate: bool,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let rows: Vec<_> = names.iter().map(|name| row(name, 0o100_644, b"content content content")).collect();
        let mut bytes = zip(&rows, deflate);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        match from_zip(&bytes) {
            Err(error) => prop_assert!(!error.reason().is_empty()),
            Ok(archive) => {
                prop_assert!(archive.len() <= MAX_ARCHIVE_BYTES);
                for (name, mode, _) in read(&archive) {
                    prop_assert!(!name.starts_with('/') && name.split('/').all(|part| part != ".." && !part.is_empty()));
                    prop_assert!(mode == 0o644 || mode == 0o755);
                }
            }
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), sound: bool) {
        let mut bytes = bytes;
        if sound {
            bytes.splice(0..0, *b"PK\x03\x04");
        }
        let _ = from_zip(&bytes);
    }
}
