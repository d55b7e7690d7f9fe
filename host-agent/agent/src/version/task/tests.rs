use super::*;
use proptest::prelude::*;
use tar::{Builder, Header};

/// An entry whose name goes into the header as it is: the crate's own setters refuse bad names.
fn entry(builder: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, data: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, data) in entries {
        entry(&mut builder, name, *kind, data);
    }
    builder.into_inner().unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "rows of the table read better")]
fn check(entries: &[(&str, EntryType, &[u8])], expect: Result<(), TaskError>) {
    assert_eq!(check_archive(&archive(entries), MAX_DISK), expect, "{entries:?}");
}

#[test]
fn table() {
    use EntryType::{Block, Char, Directory, Fifo, GNULongName, Link, Regular, Symlink, XHeader};
    let path = |name: &str| Err(TaskError::Path(name.to_owned()));
    check(&[], Ok(()));
    check(
        &[("./", Directory, b""), ("./a", Regular, b"1"), ("b/", Directory, b""), ("b/c", Regular, b"23")],
        Ok(()),
    );
    check(&[("/etc/passwd", Regular, b"")], path("/etc/passwd"));
    check(&[("../a", Regular, b"")], path("../a"));
    check(&[("a/../../b", Regular, b"")], path("a/../../b"));
    check(&[(".", Regular, b"")], path("."));
    check(&[("", Regular, b"")], path(""));
    for kind in [Symlink, Link, Char, Block, Fifo] {
        check(&[("a", kind, b"")], Err(TaskError::Kind("a".into())));
    }
    for kind in [GNULongName, XHeader] {
        check(&[("a", kind, b"x")], Err(TaskError::Extension("a".into())));
    }
    check(&[("a", Regular, b"1"), ("./a", Regular, b"2")], Err(TaskError::Twice("a".into())));
}

#[test]
fn damage_and_limits() {
    let good = archive(&[("a", EntryType::Regular, &[7; 3000])]);
    assert!(matches!(check_archive(&good[..1024], MAX_DISK), Err(TaskError::Malformed(_))));
    assert!(matches!(
        check_archive(b"not a tar at all, but long enough?".repeat(40).as_slice(), MAX_DISK),
        Err(TaskError::Malformed(_))
    ));
    for most in [MAX_MAPPED, MAX_DISK] {
        let error = check_archive(&vec![0; most + 1], most).unwrap_err();
        assert_eq!(error, TaskError::TooLarge { len: most + 1, most });
    }
    let names: Vec<String> = (0..=MAX_ENTRIES).map(|n| n.to_string()).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), EntryType::Regular, &b""[..])).collect();
    assert_eq!(check_archive(&archive(&many), MAX_DISK), Err(TaskError::TooMany));
    let mut base256 = good;
    base256[124] = 0x80;
    assert!(check_archive(&base256, MAX_DISK).is_err());
}

proptest! {
    /// Whatever bytes come, there is an answer, and what is accepted stays inside.
    #[test]
    fn any_bytes(flips in proptest::collection::vec((0_usize..2048, any::<u8>()), 0..8)) {
        let mut bytes = archive(&[("a/b", EntryType::Regular, b"data"), ("c", EntryType::Directory, b"")]);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = check_archive(&bytes, MAX_DISK);
    }
}
