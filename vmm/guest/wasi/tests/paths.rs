//! Paths, directories and links: the rules that the public WASI test suite checks, in programs of our own.
#![allow(clippy::missing_panics_doc, missing_docs, reason = "tests")]

mod support;

use support::*;
use warren_wasi::{
    Errno,
    abi::{oflags, rights},
};

const AS_DIRECTORY: How = How { oflags: oflags::DIRECTORY, ..BARE };
const FOLLOW: How = How { follow: true, ..BARE };

#[test]
fn paths_stay_below_their_directory() {
    let mut guest = Guest::new();
    guest.mkdir(TMP, "dir").unwrap();
    guest.mkdir(TMP, "dir/nested").unwrap();
    guest.file("dir/nested/file", b"x");
    let mut check = |path: &str, expect: Result<(), Errno>| {
        assert_eq!(guest.open(TMP, path, BARE).map(drop), expect, "{path:?}");
    };
    check("dir/nested/file", Ok(()));
    check("dir/.//nested/../../dir/nested/../nested///./file", Ok(()));
    check("dir/nested/", Ok(()));
    check("dir/nested///", Ok(()));
    check(".", Ok(()));
    check("dir/..", Ok(()));
    check("/dir/nested/file", Err(Errno::Perm));
    check("..", Err(Errno::Perm));
    check("dir/nested/../../../tmp/dir", Err(Errno::Perm));
    check("dir/nested/file\0", Err(Errno::Inval));
    check("dir/nested/file/", Err(Errno::NotDir));
    check("dir/nested/file///", Err(Errno::NotDir));
    check("dir/nested/file/.", Err(Errno::NotDir));
    check("dir/nested/file/x", Err(Errno::NotDir));
    check("dir/none", Err(Errno::NoEnt));
    check("dir/none/x", Err(Errno::NoEnt));
    check("", Err(Errno::NoEnt));
    check(&"n".repeat(256), Err(Errno::NameTooLong));
    check(&"d/".repeat(2049), Err(Errno::NameTooLong));
    // A descriptor of a directory bounds paths as a preopen does.
    let nested = guest.open(TMP, "dir/nested", READ_DIRECTORY).unwrap();
    assert_eq!(guest.open(nested, "file", BARE).map(drop), Ok(()));
    assert_eq!(guest.open(nested, "../nested/file", BARE), Err(Errno::Perm));
    assert_eq!(guest.call(|w, m| w.path_create_directory(m, TMP, 0x1000, u32::MAX)), Err(Errno::Fault));
    guest.put(0x1000, &[0xFF, 0xFE]);
    assert_eq!(guest.call(|w, m| w.path_create_directory(m, TMP, 0x1000, 2)), Err(Errno::IlSeq));
}

const READ_DIRECTORY: How = How { rights: rights::DIRECTORY, ..AS_DIRECTORY };

#[test]
fn opening() {
    let mut guest = Guest::new();
    guest.file("file", b"");
    guest.mkdir(TMP, "dir").unwrap();
    let exclusive = How { oflags: oflags::CREAT | oflags::EXCL, ..READ_WRITE };
    assert_eq!(guest.open(TMP, "file", exclusive), Err(Errno::Exist));
    assert_eq!(guest.open(TMP, "file", AS_DIRECTORY), Err(Errno::NotDir));
    assert_eq!(guest.open(TMP, "none", READ_WRITE), Err(Errno::NoEnt));
    assert_eq!(guest.open(TMP, "new/", CREATE), Err(Errno::IsDir));
    assert_eq!(guest.open(TMP, "dir", CREATE), Err(Errno::IsDir));
    assert_eq!(guest.open(TMP, "dir", How { oflags: oflags::TRUNC, ..BARE }), Err(Errno::IsDir));
    let writing = How { rights: rights::FD_READ | rights::FD_WRITE, ..AS_DIRECTORY };
    assert_eq!(guest.open(TMP, ".", writing), Err(Errno::IsDir));
    assert!(guest.open(TMP, ".", How { rights: rights::FD_READ, ..AS_DIRECTORY }).is_ok());
    let (filetype, _, base, inheriting) = guest.fdstat(TMP).unwrap();
    assert_eq!((filetype, base & rights::DIRECTORY), (DIRECTORY, rights::DIRECTORY));
    assert_eq!(inheriting & rights::FILE, rights::FILE);
    let same = guest.open(TMP, ".", How { rights: base, ..BARE }).unwrap();
    assert_eq!(guest.fdstat(same).unwrap().2, base);
    // A file is no place for paths.
    let file = guest.open(TMP, "file", READ_WRITE).unwrap();
    assert_eq!(guest.open(file, "x", BARE), Err(Errno::NotDir));
    assert_eq!(guest.open(99, "x", BARE), Err(Errno::BadF));
}

#[test]
fn directories_have_no_bytes() {
    let mut guest = Guest::new();
    guest.mkdir(TMP, "dir").unwrap();
    let all = How { rights: rights::DIRECTORY | rights::FD_SEEK | rights::FD_READ, ..AS_DIRECTORY };
    let fd = guest.open(TMP, "dir", all).unwrap();
    assert_eq!(guest.fdstat(fd).unwrap().2 & (rights::FD_SEEK | rights::FD_READ), 0);
    assert_eq!(guest.read(fd, 1), Err(Errno::BadF));
    assert_eq!(guest.pread(fd, 1, 0), Err(Errno::BadF));
    assert_eq!(guest.write(fd, b"x"), Err(Errno::BadF));
    assert_eq!(guest.pwrite(fd, b"x", 0), Err(Errno::BadF));
    assert_eq!(guest.tell(fd), Err(Errno::BadF));
    for whence in 0..3 {
        assert_eq!(guest.seek(fd, 0, whence), Err(Errno::BadF));
    }
    assert_eq!(guest.call(|w, m| w.fd_allocate(m, fd, 0, 1)), Err(Errno::BadF));
    assert_eq!(guest.call(|w, m| w.fd_filestat_set_size(m, fd, 0)), Err(Errno::BadF));
}

#[test]
fn removing() {
    let mut guest = Guest::new();
    guest.mkdir(TMP, "dir").unwrap();
    assert_eq!(guest.mkdir(TMP, "dir"), Err(Errno::Exist));
    guest.file("dir/file", b"");
    assert_eq!(guest.rmdir(TMP, "dir"), Err(Errno::NotEmpty));
    assert_eq!(guest.unlink(TMP, "dir"), Err(Errno::IsDir));
    assert_eq!(guest.unlink(TMP, "dir/"), Err(Errno::IsDir));
    assert_eq!(guest.unlink(TMP, "dir/file/"), Err(Errno::NotDir));
    assert_eq!(guest.rmdir(TMP, "dir/file"), Err(Errno::NotDir));
    assert_eq!(guest.rmdir(TMP, "dir/file/"), Err(Errno::NotDir));
    assert_eq!(guest.unlink(TMP, "dir/file"), Ok(()));
    assert_eq!(guest.rmdir(TMP, "dir/"), Ok(()));
    assert_eq!(guest.rmdir(TMP, "dir"), Err(Errno::NoEnt));
    assert_eq!(guest.rmdir(TMP, "."), Err(Errno::Inval));
    // A removed directory that is still open takes no entries.
    guest.mkdir(TMP, "dir").unwrap();
    let fd = guest.open(TMP, "dir", READ_DIRECTORY).unwrap();
    assert_eq!(guest.rmdir(TMP, "dir"), Ok(()));
    assert_eq!(guest.mkdir(fd, "x"), Err(Errno::NoEnt));
    assert_eq!(guest.open(fd, "x", CREATE), Err(Errno::NoEnt));
    assert_eq!(guest.close(fd), Ok(()));
    assert_eq!(guest.wasi.fs().quota().used(), 0);
}

#[test]
fn renaming() {
    let mut guest = Guest::new();
    guest.mkdir(TMP, "source").unwrap();
    for (from, to) in
        [("source", "target"), ("target/", "source"), ("source", "target/"), ("target/", "source/")]
    {
        assert_eq!(guest.rename(TMP, from, TMP, to), Ok(()), "{from} {to}");
    }
    guest.mkdir(TMP, "target").unwrap();
    assert_eq!(guest.rename(TMP, "source", TMP, "target"), Ok(()));
    assert_eq!(guest.open(TMP, "source", AS_DIRECTORY), Err(Errno::NoEnt));
    guest.mkdir(TMP, "source").unwrap();
    guest.file("target/file", b"t");
    assert_eq!(guest.rename(TMP, "source", TMP, "target"), Err(Errno::NotEmpty));
    assert_eq!(guest.rename(TMP, "source", TMP, "target/file"), Err(Errno::NotDir));
    assert_eq!(guest.rename(TMP, "target", TMP, "target/inner"), Err(Errno::Inval));
    assert_eq!(guest.rename(TMP, "none", TMP, "x"), Err(Errno::NoEnt));
    guest.file("one", b"1");
    guest.file("two", b"2");
    assert_eq!(guest.rename(TMP, "one", TMP, "one"), Ok(()));
    assert_eq!(guest.rename(TMP, "one", TMP, "two"), Ok(()));
    let fd = guest.open(TMP, "two", READ_WRITE).unwrap();
    assert_eq!(guest.read(fd, 9), Ok(b"1".to_vec()));
    assert_eq!(guest.rename(TMP, "two", TMP, "source"), Err(Errno::IsDir));
    assert_eq!(guest.rename(TMP, "two", TMP, "three/"), Err(Errno::NotDir));
    assert_eq!(guest.rename(TMP, "two", TASK, "two"), Err(Errno::XDev));
    // `..` of a moved directory is where it is now.
    assert_eq!(guest.rename(TMP, "target", TMP, "source/moved"), Ok(()));
    assert!(guest.open(TMP, "source/moved/../moved/file", BARE).is_ok());
}

#[test]
fn hard_links() {
    let mut guest = Guest::new();
    guest.file("file", b"abc");
    guest.mkdir(TMP, "dir").unwrap();
    assert_eq!(guest.link(TMP, "file", TMP, "dir/link"), Ok(()));
    let (a, b) = (guest.stat_path(TMP, "file", false), guest.stat_path(TMP, "dir/link", false));
    assert_eq!(a, b);
    assert_eq!(a.unwrap().nlink, 2);
    assert_eq!(guest.link(TMP, "file", TMP, "dir/link"), Err(Errno::Exist));
    assert_eq!(guest.link(TMP, "file", TMP, "file"), Err(Errno::Exist));
    assert_eq!(guest.link(TMP, "file", TMP, "dir"), Err(Errno::Exist));
    assert_eq!(guest.link(TMP, "dir", TMP, "dir2"), Err(Errno::Perm));
    assert_eq!(guest.link(TMP, "file", TMP, "new/"), Err(Errno::NoEnt));
    assert_eq!(guest.link(TMP, "file", TASK, "new"), Err(Errno::XDev));
    assert_eq!(guest.symlink("target", TMP, "symlink"), Ok(()));
    assert_eq!(guest.link(TMP, "symlink", TMP, "second"), Ok(()));
    assert_eq!(guest.link(TMP, "file", TMP, "symlink"), Err(Errno::Exist));
    let following = guest.call(|w, m| w.path_link(m, TMP, 1, 0x1000, 4, TMP, 0x3000, 4));
    assert_eq!(following, Err(Errno::Inval));
    for name in ["file", "dir/link", "second", "symlink"] {
        assert_eq!(guest.unlink(TMP, name), Ok(()), "{name}");
    }
    assert_eq!(guest.rmdir(TMP, "dir"), Ok(()));
    assert_eq!(guest.wasi.fs().quota().used(), 0);
}

#[test]
fn symbolic_links() {
    let mut guest = Guest::new();
    guest.mkdir(TMP, "dir").unwrap();
    guest.file("dir/file", b"abc");
    guest.symlink("dir/file", TMP, "to-file").unwrap();
    guest.symlink("dir", TMP, "to-dir").unwrap();
    guest.symlink("gone", TMP, "dangling").unwrap();
    guest.symlink("loop", TMP, "loop").unwrap();
    guest.symlink("../../up", TMP, "dir/escape").unwrap();
    assert_eq!(guest.symlink("/etc", TMP, "absolute"), Err(Errno::Perm));
    for (name, is, leads_to) in [("to-file", LINK, REGULAR), ("to-dir", LINK, DIRECTORY)] {
        assert_eq!(guest.stat_path(TMP, name, false).unwrap().filetype, is, "{name}");
        assert_eq!(guest.stat_path(TMP, name, true).unwrap().filetype, leads_to, "{name}");
    }
    assert_eq!(guest.open(TMP, "to-file", BARE), Err(Errno::Loop));
    assert!(guest.open(TMP, "to-file", FOLLOW).is_ok());
    assert_eq!(guest.open(TMP, "to-dir", AS_DIRECTORY), Err(Errno::Loop));
    assert!(guest.open(TMP, "to-dir", How { follow: true, ..AS_DIRECTORY }).is_ok());
    assert!(guest.open(TMP, "to-dir/file", BARE).is_ok());
    assert!(guest.open(TMP, "to-dir/", BARE).is_ok());
    assert_eq!(guest.open(TMP, "to-file", How { follow: true, ..AS_DIRECTORY }), Err(Errno::NotDir));
    assert_eq!(guest.open(TMP, "dangling", FOLLOW), Err(Errno::NoEnt));
    assert_eq!(guest.open(TMP, "loop", FOLLOW), Err(Errno::Loop));
    assert_eq!(guest.open(TMP, "loop/x", BARE), Err(Errno::Loop));
    assert_eq!(guest.open(TMP, "dir/escape", FOLLOW), Err(Errno::Perm));
    // Creating through a dangling link makes what it leads to.
    assert!(guest.open(TMP, "dangling", How { follow: true, ..CREATE }).is_ok());
    assert_eq!(guest.stat_path(TMP, "gone", false).unwrap().filetype, REGULAR);
    assert_eq!(guest.readlink(TMP, "to-file", 100), Ok(b"dir/file".to_vec()));
    assert_eq!(guest.readlink(TMP, "to-file", 4), Ok(b"dir/".to_vec()));
    assert_eq!(guest.readlink(TMP, "dir", 4), Err(Errno::Inval));
    assert_eq!(guest.symlink("source", TMP, "new/"), Err(Errno::NoEnt));
    assert_eq!(guest.symlink("source", TMP, "dir/"), Err(Errno::Exist));
    assert_eq!(guest.symlink("source", TMP, "dir"), Err(Errno::Exist));
    assert_eq!(guest.symlink("source", TMP, "gone/"), Err(Errno::NotDir));
    // Times of the link, and through it.
    let file = guest.stat_path(TMP, "dir/file", false).unwrap();
    guest.put(0x1000, b"to-file");
    assert_eq!(guest.call(|w, m| w.path_filestat_set_times(m, TMP, 0, 0x1000, 7, 0, 77, 4)), Ok(()));
    assert_eq!(guest.stat_path(TMP, "to-file", false).unwrap().mtim, 77);
    assert_eq!(guest.stat_path(TMP, "to-file", true).unwrap().mtim, file.mtim);
    guest.put(0x1000, b"to-file");
    assert_eq!(guest.call(|w, m| w.path_filestat_set_times(m, TMP, 1, 0x1000, 7, 0, 88, 4)), Ok(()));
    assert_eq!(guest.stat_path(TMP, "dir/file", false).unwrap().mtim, 88);
}

#[test]
fn listings() {
    let mut guest = Guest::new();
    let (own, root) = (guest.stat(TMP).unwrap().ino, guest.list(TMP));
    assert_eq!(root.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), [".", ".."]);
    assert!(root.iter().all(|e| e.filetype == DIRECTORY && e.inode == own));
    guest.file("file", b"");
    let inode = guest.stat_path(TMP, "file", false).unwrap().ino;
    let listed = guest.list(TMP);
    assert_eq!((listed[2].name.as_str(), listed[2].filetype, listed[2].inode), ("file", REGULAR, inode));
    assert_eq!(guest.readdir(TMP, 256, listed[1].next).unwrap().0.len(), 1);
    assert_eq!(guest.readdir(TMP, 256, u64::MAX).unwrap(), (vec![], true));
    // A buffer too small for an entry is filled to its end.
    assert_eq!(guest.readdir(TMP, 10, 0).unwrap(), (vec![], false));
    for count in 0..1000 {
        guest.file(&format!("file.{count}"), b"");
    }
    assert_eq!(guest.list(TMP).len(), 1003);
    // Removing what was just listed loses nothing of the rest.
    let (mut cookie, mut removed) = (0, 0);
    loop {
        let (entries, end) = guest.readdir(TMP, 300, cookie).unwrap();
        for entry in &entries {
            cookie = entry.next;
            if entry.filetype == REGULAR {
                guest.unlink(TMP, &entry.name).unwrap();
                removed += 1;
            }
        }
        if end {
            break;
        }
    }
    assert_eq!((removed, guest.list(TMP).len()), (1001, 2));
    assert_eq!(guest.wasi.fs().quota().used(), 0);
}
