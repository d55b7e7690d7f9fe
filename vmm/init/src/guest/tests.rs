use super::task::unpack;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tar::{Builder, EntryType, Header};

/// An archive of entries: name, kind, mode, bytes. Names are put in raw.
fn archive(entries: &[(&str, EntryType, u32, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, mode, bytes) in entries {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn files_come_with_the_modes_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive(&[
        ("./", EntryType::Directory, 0o777, b""),
        ("bootstrap", EntryType::Regular, 0o644, b"#!/bin/sh\n"),
        ("lib/", EntryType::Directory, 0o700, b""),
        ("lib/a.py", EntryType::Regular, 0o666, b"print()"),
        ("deep/er/tool", EntryType::Regular, 0o4777, b"x"),
        ("elf", EntryType::Regular, 0, b"\x7FELF\x02"),
        ("empty", EntryType::Regular, 0, b""),
    ]);
    // What stands behind the archive on the disk is not read.
    let disk = [&bytes[..], &[0xFF; 512]].concat();
    unpack(&*disk, bytes.len() as u64, folder.path()).unwrap();
    for (name, mode) in [
        ("bootstrap", 0o755),
        ("lib", 0o755),
        ("lib/a.py", 0o644),
        ("deep/er/tool", 0o755),
        ("elf", 0o755),
        ("empty", 0o644),
    ] {
        let about = fs::metadata(folder.path().join(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o7777, mode, "{name}");
    }
    assert_eq!(fs::read(folder.path().join("elf")).unwrap(), b"\x7FELF\x02");
}

/// An archive that must be refused, and a piece of what is said.
fn refused(entries: &[(&str, EntryType, u32, &[u8])], said: &str) {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("task");
    fs::create_dir(&folder).unwrap();
    let bytes = archive(entries);
    let error = unpack(&*bytes, bytes.len() as u64, &folder).unwrap_err();
    assert!(error.to_string().contains(said), "{error} lacks {said:?}");
    assert_eq!(outer.path().read_dir().unwrap().count(), 1, "{said}");
}

#[test]
fn what_leads_out_or_is_no_file_is_refused() {
    let file = |name| (name, EntryType::Regular, 0o644, &b"x"[..]);
    refused(&[file("../out")], "no relative name");
    refused(&[file("/etc/passwd")], "no relative name");
    refused(&[file("a/../../out")], "no relative name");
    refused(&[("link", EntryType::Symlink, 0, b"")], "neither file nor folder");
    refused(&[("link", EntryType::Link, 0, b"")], "neither file nor folder");
    refused(&[("dev", EntryType::Char, 0, b"")], "neither file nor folder");
    refused(&[file("a"), file("a")], "there already");
    refused(&[file("a"), file("a/b")], "there already");
    refused(&[file("a"), ("a", EntryType::Directory, 0, b"")], "there already");
    refused(&[("a", EntryType::Directory, 0, b""), file("a")], "there already");
}

proptest! {
    /// Whatever the bytes, nothing appears beside the folder, and nothing panics.
    #[test]
    fn broken_archives_stay_inside(at in 0_usize..2048, byte: u8, cut in 0_usize..2560) {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("task");
        fs::create_dir(&folder).unwrap();
        let entries: &[(&str, EntryType, u32, &[u8])] =
            &[("d/", EntryType::Directory, 0o755, b""), ("d/a", EntryType::Regular, 0o644, b"hello")];
        let mut bytes = archive(entries);
        bytes[at] = byte;
        let cut = cut.min(bytes.len());
        let _ = unpack(&bytes[..cut], cut as u64, &folder);
        prop_assert_eq!(outer.path().read_dir().unwrap().count(), 1);
    }
}
