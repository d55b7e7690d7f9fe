//! Regular files: the rules that the public WASI test suite checks, in programs of our own.
#![allow(clippy::missing_panics_doc, missing_docs, reason = "tests")]

mod support;

use support::*;
use warren_wasi::{
    Errno,
    abi::{fdflags, oflags, rights},
};

#[test]
fn write_seek_read_tell() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    assert_eq!(guest.tell(fd), Ok(0));
    assert_eq!(guest.write(fd, &[7; 100]), Ok(100));
    assert_eq!(guest.tell(fd), Ok(100));
    assert_eq!(guest.seek(fd, -50, 1), Ok(50));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.seek(fd, 1000, 1), Ok(1000));
    assert_eq!(guest.seek(fd, -2000, 1), Err(Errno::Inval));
    assert_eq!(guest.seek(fd, i64::MAX, 1), Err(Errno::Inval));
    assert_eq!(guest.seek(fd, 0, 3), Err(Errno::Inval));
    assert_eq!(guest.seek(fd, -10, 2), Ok(90));
    assert_eq!(guest.read(fd, 100), Ok(vec![7; 10]));
    assert_eq!(guest.read(fd, 100), Ok(vec![]));
}

#[test]
fn positioned_access_moves_nothing() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    assert_eq!(guest.pwrite(fd, &[0, 1, 2, 3], 0), Ok(4));
    assert_eq!(guest.pread(fd, 4, 2), Ok(vec![2, 3]));
    assert_eq!(guest.pwrite(fd, &[1, 0], 2), Ok(2));
    assert_eq!(guest.tell(fd), Ok(0));
    assert_eq!(guest.read(fd, 9), Ok(vec![0, 1, 1, 0]));
    // A write beyond the end leaves a hole of zeros.
    assert_eq!(guest.pwrite(fd, &[9], 10_000), Ok(1));
    assert_eq!(guest.pread(fd, 3, 9_998), Ok(vec![0, 0, 9]));
}

#[test]
fn several_buffers_are_filled_in_order() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    guest.put(0x5000, b"abcdef");
    let iov: Vec<u8> =
        [0x5000_u32, 2, 0x5004, 0, 0x5003, 3].iter().flat_map(|word| word.to_le_bytes()).collect();
    guest.put(0x400, &iov);
    assert_eq!(guest.call(|w, m| w.fd_write(m, fd, 0x400, 3, 0x500)), Ok(()));
    assert_eq!(guest.u32_at(0x500), 5);
    assert_eq!(guest.pread(fd, 10, 0), Ok(b"abdef".to_vec()));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.call(|w, m| w.fd_read(m, fd, 0x400, 3, 0x500)), Ok(()));
    assert_eq!(guest.bytes[0x5000..0x5006], *b"abcdef");
}

#[test]
fn append_is_a_mode_that_can_be_left() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", How { flags: fdflags::APPEND.into(), ..CREATE }).unwrap();
    assert_eq!(guest.write(fd, b"one"), Ok(3));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.write(fd, b"two"), Ok(3));
    assert_eq!(guest.pread(fd, 9, 0), Ok(b"onetwo".to_vec()));
    assert_eq!(guest.call(|w, m| w.fd_fdstat_set_flags(m, fd, 0)), Ok(()));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.write(fd, b"X"), Ok(1));
    assert_eq!(guest.pread(fd, 9, 0), Ok(b"Xnetwo".to_vec()));
    assert_eq!(guest.call(|w, m| w.fd_fdstat_set_flags(m, fd, 1 << 9)), Err(Errno::Inval));
}

#[test]
fn rights_decide_reading_and_writing() {
    let mut guest = Guest::new();
    guest.file("file", b"abc");
    let reader = guest.open(TMP, "file", How { rights: rights::FD_READ, ..READ_WRITE }).unwrap();
    assert_eq!(guest.fdstat(reader).unwrap().2, rights::FD_READ);
    assert_eq!(guest.read(reader, 9), Ok(b"abc".to_vec()));
    assert_eq!(guest.write(reader, b"x"), Err(Errno::BadF));
    assert_eq!(guest.seek(reader, 0, 0), Err(Errno::NotCapable));
    let writer = guest.open(TMP, "file", How { rights: rights::FD_WRITE, ..READ_WRITE }).unwrap();
    assert_eq!(guest.write(writer, b"x"), Ok(1));
    assert_eq!(guest.read(writer, 9), Err(Errno::BadF));
    assert_eq!(guest.stat(writer), Err(Errno::NotCapable));
}

#[test]
fn rights_can_be_dropped_and_not_regained() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    let (_, _, base, inheriting) = guest.fdstat(fd).unwrap();
    let kept = base & !(rights::FD_READ | rights::FD_WRITE);
    assert_eq!(guest.call(|w, m| w.fd_fdstat_set_rights(m, fd, kept, inheriting)), Ok(()));
    assert_eq!(guest.fdstat(fd).unwrap().2, kept);
    assert_eq!(guest.read(fd, 1), Err(Errno::BadF));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    let again = guest.call(|w, m| w.fd_fdstat_set_rights(m, fd, base, inheriting));
    assert_eq!(again, Err(Errno::NotCapable));
}

#[test]
fn sizes_and_times() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    let before = guest.stat(fd).unwrap();
    assert_eq!((before.size, before.filetype, before.nlink), (0, REGULAR, 1));
    assert_eq!(guest.call(|w, m| w.fd_filestat_set_size(m, fd, 100)), Ok(()));
    assert_eq!(guest.pread(fd, 200, 0), Ok(vec![0; 100]));
    assert_eq!(guest.call(|w, m| w.fd_filestat_set_size(m, fd, u64::MAX)), Err(Errno::Inval));
    assert_eq!(guest.call(|w, m| w.fd_filestat_set_size(m, fd, 1 << 40)), Err(Errno::FBig));
    let wanted = before.mtim - 100;
    assert_eq!(guest.call(|w, m| w.fd_filestat_set_times(m, fd, wanted, wanted, 4)), Ok(()));
    let after = guest.stat(fd).unwrap();
    assert_eq!((after.size, after.mtim, after.atim), (100, wanted, before.atim));
    for flags in [4 | 8, 1 | 2, 1 << 4] {
        let result = guest.call(|w, m| w.fd_filestat_set_times(m, fd, 1, 2, flags));
        assert_eq!(result, Err(Errno::Inval), "{flags}");
    }
    assert_eq!(guest.stat(fd).unwrap().mtim, wanted);
    // Cut, then grown: what was cut is gone.
    assert_eq!(guest.pwrite(fd, &[5; 100], 0), Ok(100));
    assert_eq!(guest.call(|w, m| w.fd_filestat_set_size(m, fd, 10)), Ok(()));
    assert_eq!(guest.call(|w, m| w.fd_filestat_set_size(m, fd, 20)), Ok(()));
    assert_eq!(guest.pread(fd, 99, 0), Ok([[5; 10], [0; 10]].concat()));
}

#[test]
fn allocate_only_ever_extends() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    for (offset, len, size) in [(0, 100, 100), (10, 10, 100), (90, 20, 110)] {
        assert_eq!(guest.call(|w, m| w.fd_allocate(m, fd, offset, len)), Ok(()));
        assert_eq!(guest.stat(fd).unwrap().size, size);
    }
    assert_eq!(guest.call(|w, m| w.fd_allocate(m, fd, 0, 0)), Err(Errno::Inval));
    assert_eq!(guest.call(|w, m| w.fd_allocate(m, fd, 0, 1 << 40)), Err(Errno::NoSpc));
    assert_eq!(guest.call(|w, m| w.fd_allocate(m, fd, u64::MAX, 2)), Err(Errno::FBig));
}

#[test]
fn truncation_needs_the_directorys_right() {
    let mut guest = Guest::new();
    guest.file("file", b"abc");
    let truncate = How { oflags: oflags::TRUNC, ..BARE };
    let fd = guest.open(TMP, "file", truncate).unwrap();
    assert_eq!(guest.close(fd), Ok(()));
    assert_eq!(guest.stat_path(TMP, "file", false).unwrap().size, 0);
    let (_, flags, base, inheriting) = guest.fdstat(TMP).unwrap();
    assert_eq!((flags, base & rights::FD_FILESTAT_SET_SIZE), (0, 0));
    let kept = base & !rights::PATH_FILESTAT_SET_SIZE;
    assert_eq!(guest.call(|w, m| w.fd_fdstat_set_rights(m, TMP, kept, inheriting)), Ok(()));
    assert_eq!(guest.open(TMP, "file", truncate), Err(Errno::NotCapable));
}

#[test]
fn advice_is_checked_and_ignored() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    assert_eq!(guest.call(|w, m| w.fd_advise(m, fd, 10, 50, 0)), Ok(()));
    assert_eq!(guest.call(|w, m| w.fd_advise(m, fd, 10, 50, 6)), Err(Errno::Inval));
    assert_eq!(guest.call(|w, m| w.fd_sync(m, fd)), Ok(()));
    assert_eq!(guest.call(|w, m| w.fd_datasync(m, fd)), Ok(()));
}

#[test]
fn an_open_file_outlives_its_name() {
    let mut guest = Guest::with(&[], 64 << 10);
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    assert_eq!(guest.write(fd, &vec![1; 40_000]), Ok(40_000));
    assert_eq!(guest.unlink(TMP, "file"), Ok(()));
    assert_eq!(guest.stat(fd).unwrap().nlink, 0);
    assert_eq!(guest.pread(fd, 3, 39_999), Ok(vec![1]));
    let used = guest.wasi.fs().quota().used();
    assert!(used >= 40_000, "{used}");
    assert_eq!(guest.close(fd), Ok(()));
    assert_eq!(guest.wasi.fs().quota().used(), 0);
}

#[test]
fn what_an_instance_leaves_open_is_closed_and_files_stay() {
    let mut guest = Guest::new();
    let fd = guest.open(TMP, "file", CREATE).unwrap();
    assert_eq!(guest.write(fd, b"kept"), Ok(4));
    let gone = guest.open(TMP, "gone", CREATE).unwrap();
    assert_eq!(guest.unlink(TMP, "gone"), Ok(()));
    guest.wasi.begin_event();
    assert_eq!(guest.stat(fd), Err(Errno::BadF));
    assert_eq!(guest.stat(gone), Err(Errno::BadF));
    let fd = guest.open(TMP, "file", READ_WRITE).unwrap();
    assert_eq!(guest.read(fd, 9), Ok(b"kept".to_vec()));
}
