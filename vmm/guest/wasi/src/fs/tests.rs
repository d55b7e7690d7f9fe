extern crate std;

use super::*;
use crate::Errno;
use alloc::{format, string::String, vec, vec::Vec};
use proptest::prelude::*;

/// A header block with its checksum, and the padded bytes.
fn member(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000007");
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    seal(&mut header);
    let mut out = header.to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn mount(parts: &[Vec<u8>]) -> Result<Fs, ArchiveError> {
    let mut bytes = parts.concat();
    bytes.extend_from_slice(&[0; 1024]);
    Fs::new(Vec::leak(bytes), Quota::new(1 << 20, || u64::MAX))
}

fn read(fs: &Fs, path: &str) -> Result<String, Errno> {
    fs.read_whole(path).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn an_archive_is_a_tree() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let fs = mount(&[
        member("./", b'5', b""),
        member("top.txt", b'0', b"top"),
        member("dir/sub/deep.txt", 0, b"deep"),
        member("dir/", b'5', b""),
        member("././@LongLink", b'L', format!("{long}\0").as_bytes()),
        member("cut", b'0', b"long"),
        member("pax", b'x', b"27 mtime=1\n16 path=p/a/x.y\n".get(11..).unwrap()),
        member("cut", b'0', b"pax"),
        member("empty", b'0', b""),
    ])
    .unwrap();
    for (path, expect) in [
        ("/var/task/top.txt", Ok("top")),
        ("/var/task//dir/sub/../sub/deep.txt", Ok("deep")),
        (&format!("/var/task/{long}"), Ok("long")),
        ("/var/task/p/a/x.y", Ok("pax")),
        ("/var/task/empty", Ok("")),
        ("/var/task/dir", Err(Errno::IsDir)),
        ("/var/task/../etc", Err(Errno::Perm)),
        ("/var/taskx", Err(Errno::NoEnt)),
        ("relative", Err(Errno::NoEnt)),
    ] {
        assert_eq!(read(&fs, path), expect.map(String::from), "{path}");
    }
    assert_eq!(fs.stat(fs.find(TASK_ROOT, "top.txt", false).unwrap()).unwrap().mtim, 7_000_000_000);
    assert_eq!(fs.quota().used(), 0, "the archive costs no quota");
}

#[test]
fn archives_that_are_refused() {
    let check = |parts: &[Vec<u8>], expect| assert_eq!(mount(parts).err(), Some(expect));
    check(&[member("/absolute", b'0', b"")], ArchiveError::Name);
    check(&[member("a/../../b", b'0', b"")], ArchiveError::Name);
    check(&[member("a\u{1}b", b'2', b"")], ArchiveError::Kind(b'2'));
    check(&[member("device", b'3', b"")], ArchiveError::Kind(b'3'));
    check(&[member("a", b'0', b""), member("a", b'0', b"")], ArchiveError::Conflict);
    check(&[member("a", b'0', b""), member("a/b", b'0', b"")], ArchiveError::Conflict);
    check(&[member("a", b'0', b""), member("a", b'5', b"")], ArchiveError::Conflict);
    check(&[member(".", b'0', b"")], ArchiveError::Conflict);
    let mut broken = member("a", b'0', b"x");
    broken[0] = b'b';
    check(&[broken.clone()], ArchiveError::Checksum);
    broken[124..135].copy_from_slice(b"77777777777");
    seal(&mut broken);
    check(&[broken.clone()], ArchiveError::Truncated);
    broken[124..135].copy_from_slice(b"0000000009x");
    seal(&mut broken);
    check(&[broken], ArchiveError::Number);
    let whole = member("a", b'0', &[1; 600]);
    assert_eq!(
        Fs::new(Vec::leak(whole[..700].to_vec()), Quota::new(0, || 0)).err(),
        Some(ArchiveError::Truncated)
    );
    assert_eq!(
        Fs::new(Vec::leak(whole[..1112].to_vec()), Quota::new(0, || 0)).err(),
        None,
        "padding may be cut"
    );
}

#[test]
fn task_is_read_only() {
    let mut fs = mount(&[member("dir/file", b'0', b"abc")]).unwrap();
    let file = fs.find(TASK_ROOT, "dir/file", false).unwrap();
    assert_eq!(fs.write_at(file, 0, b"x", 0), Err(Errno::RoFs));
    assert_eq!(fs.set_len(file, 0, 0), Err(Errno::RoFs));
    assert_eq!(fs.set_times(file, Some(1), None, 0), Err(Errno::RoFs));
    assert_eq!(fs.unlink(TASK_ROOT, "dir/file", 0), Err(Errno::RoFs));
    assert_eq!(fs.remove_directory(TASK_ROOT, "dir", 0), Err(Errno::NotEmpty));
    assert_eq!(fs.create_directory(TASK_ROOT, "new", 0), Err(Errno::RoFs));
    assert_eq!(fs.create_link("a", TASK_ROOT, "new", 0), Err(Errno::RoFs));
    assert_eq!(fs.link((TASK_ROOT, "dir/file"), (TASK_ROOT, "new"), 0), Err(Errno::RoFs));
    assert_eq!(fs.rename((TASK_ROOT, "dir"), (TASK_ROOT, "new"), 0), Err(Errno::RoFs));
    assert_eq!(fs.write_whole("/var/task/dir/file", b"x", 0), Err(Errno::RoFs));
    assert_eq!(fs.write_whole("/var/task/new", b"x", 0), Err(Errno::RoFs));
    assert_eq!(read(&fs, "/var/task/dir/file"), Ok("abc".into()));
}

#[test]
fn whole_files() {
    let mut fs = mount(&[]).unwrap();
    assert_eq!(fs.write_whole("/tmp/a", &[b'x'; 9000], 0), Ok(()));
    assert_eq!(fs.write_whole("/tmp/a", b"short", 0), Ok(()));
    assert_eq!(read(&fs, "/tmp/a"), Ok("short".into()));
    assert_eq!(fs.write_whole("/tmp", b"x", 0), Err(Errno::IsDir));
    assert_eq!(fs.write_whole("/tmp/a", &vec![0; 2 << 20], 0), Err(Errno::NoSpc));
    assert_eq!(read(&fs, "/tmp/a"), Ok(String::new()), "without space for all, nothing");
}

#[derive(Clone, Debug)]
enum Step {
    Directory(String),
    File(String, u16),
    Link(String, String),
    Hard(String, String),
    Rename(String, String),
    Unlink(String),
    Remove(String),
    Hold(String),
    Drop,
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof!["[abc]", Just("..".into()), Just(".".into())], 1..4)
        .prop_map(|parts: Vec<String>| parts.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        name().prop_map(Step::Directory),
        (name(), any::<u16>()).prop_map(|(path, len)| Step::File(path, len)),
        (name(), name()).prop_map(|(a, b)| Step::Link(a, b)),
        (name(), name()).prop_map(|(a, b)| Step::Hard(a, b)),
        (name(), name()).prop_map(|(a, b)| Step::Rename(a, b)),
        name().prop_map(Step::Unlink),
        name().prop_map(Step::Remove),
        name().prop_map(Step::Hold),
        Just(Step::Drop),
    ]
}

/// Removes everything below a directory, as a function would.
fn clear(fs: &mut Fs, base: NodeId, path: &str) {
    let directory = fs.find(base, path, false).unwrap();
    while let Some((name, filetype)) = first_entry(fs, directory) {
        let inner = format!("{path}/{name}");
        if filetype == FileType::Directory {
            clear(fs, base, &inner);
            fs.remove_directory(base, &inner, 0).unwrap();
        } else {
            fs.unlink(base, &inner, 0).unwrap();
        }
    }
}

fn first_entry(fs: &Fs, directory: NodeId) -> Option<(String, FileType)> {
    fs.list(directory, COOKIE_PARENT).unwrap().map(|entry| (entry.name.into(), entry.filetype))
}

proptest! {
    /// Whatever is done in whatever order: nothing panics, the quota holds, every directory's `..` leads to where it is
    /// listed, and once everything is removed and closed nothing is charged and no node is left.
    #[test]
    fn any_history_adds_up(steps in prop::collection::vec(step(), 1..60)) {
        let mut fs = Fs::new(&[], Quota::new(200_000, || u64::MAX)).unwrap();
        let mut held = Vec::new();
        for (now, step) in (1..).zip(steps) {
            match step {
                Step::Directory(path) => { let _ = fs.create_directory(TMP_ROOT, &path, now); }
                Step::File(path, len) => {
                    let _ = fs.write_whole(&format!("/tmp/{path}"), &vec![1; len.into()], now);
                }
                Step::Link(target, path) => { let _ = fs.create_link(&target, TMP_ROOT, &path, now); }
                Step::Hard(from, to) => { let _ = fs.link((TMP_ROOT, &from), (TMP_ROOT, &to), now); }
                Step::Rename(from, to) => { let _ = fs.rename((TMP_ROOT, &from), (TMP_ROOT, &to), now); }
                Step::Unlink(path) => { let _ = fs.unlink(TMP_ROOT, &path, now); }
                Step::Remove(path) => { let _ = fs.remove_directory(TMP_ROOT, &path, now); }
                Step::Hold(path) => {
                    if let Ok(node) = fs.find(TMP_ROOT, &path, true) {
                        fs.retain(node);
                        held.push(node);
                    }
                }
                Step::Drop => {
                    if let Some(node) = held.pop() {
                        fs.release(node);
                    }
                }
            }
            prop_assert!(fs.quota().used() <= fs.quota().limit());
            for (id, node) in &fs.nodes {
                if let Kind::Directory(directory) = &node.kind
                    && node.links > 0
                    && directory.parent != *id
                {
                    let mut cookie = COOKIE_PARENT;
                    let mut listed = false;
                    while let Some(entry) = fs.list(directory.parent, cookie).unwrap() {
                        cookie = entry.cookie;
                        listed |= entry.inode == id.0;
                    }
                    prop_assert!(listed, "{id:?}");
                }
            }
        }
        clear(&mut fs, TMP_ROOT, ".");
        for node in held {
            fs.release(node);
        }
        prop_assert_eq!(fs.quota().used(), 0);
        prop_assert_eq!(fs.nodes.len(), 2);
    }

    /// Any bytes are an archive or an error.
    #[test]
    fn any_bytes(at in 0..2048_usize, value: u8, length in 0..4096_usize, reseal: bool) {
        let mut bytes = [member("dir/file", b'0', b"abc"), member("long", b'L', b"x\0"), member("y", b'5', b"")].concat();
        let at = at % bytes.len();
        bytes[at] = value;
        if reseal {
            seal(&mut bytes[at / 512 * 512..][..512]);
        }
        bytes.truncate(length);
        drop(Fs::new(Vec::leak(bytes), Quota::new(1 << 20, || u64::MAX)));
    }
}
