//! Regular files: bytes, places, sizes, times, rights.

use crate::{Case, Verdict, abi::*, get, is};

pub const CASES: &[Case] = &[
    ("rust/fd_advise", advice_changes_nothing),
    ("rust/fd_fdstat_set_rights", rights_only_shrink),
    ("rust/fd_filestat_set", sizes_and_times),
    ("rust/fd_flags_set", appending_can_be_switched),
    ("rust/file_allocate", allocation_only_extends),
    ("rust/file_pread_pwrite", positioned_access),
    ("rust/file_seek_tell", places),
    ("rust/file_truncation", opening_truncates),
    ("rust/file_unbuffered_write", a_write_is_seen_at_once),
    ("rust/fstflags_validate", a_time_is_a_value_or_now),
    ("rust/path_open_read_write", rights_decide),
    ("rust/truncation_rights", truncation_is_the_directorys_right),
    ("c/lseek", reading_moves_the_place),
    ("c/pread-with-access", reading_at_a_place_does_not_move_it),
    ("c/pwrite-with-access", writing_at_a_place_does_not_move_it),
    ("c/pwrite-with-append", positioned_writes_of_an_appender),
    ("c/stat-dev-ino", files_are_told_apart),
    ("c/fopen-with-access", files_of_the_task_are_read),
    ("c/fopen-with-no-access", outside_is_out_of_reach),
];

const READ_WRITE: u64 = rights::READ | rights::WRITE;
const MOVE: u64 = rights::SEEK | rights::TELL;

fn advice_changes_nothing(dir: Fd) -> Verdict {
    let all = READ_WRITE | rights::ADVISE | rights::STAT | rights::SET_SIZE | rights::ALLOCATE;
    let fd = get!(open(dir, "f", able(CREAT, all)));
    get!(set_size(fd, 100));
    for advice in 0..=5 {
        get!(advise(fd, 10, 50, advice));
    }
    is!(advise(fd, 10, 50, 6), Err(INVAL));
    is!(get!(stat(fd)).size, 100);
    get!(allocate(fd, 100, 100));
    is!(get!(stat(fd)).size, 200);
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn rights_only_shrink(dir: Fd) -> Verdict {
    let fd = get!(open(dir, "f", able(CREAT, READ_WRITE | MOVE)));
    get!(write(fd, &[&[0, 1, 2, 3]]));
    get!(seek(fd, 0, 0));
    is!(read(fd, &[4]), Ok(vec![0, 1, 2, 3]));
    let before = get!(fdstat(fd));
    get!(set_rights(fd, before.rights & !READ_WRITE, before.inheriting));
    let after = get!(fdstat(fd)).rights;
    is!((after & READ_WRITE, after & rights::SEEK), (0, rights::SEEK));
    is!(matches!(read(fd, &[4]), Err(BADF | NOTCAPABLE)), true);
    is!(matches!(write(fd, &[b"x"]), Err(BADF | NOTCAPABLE)), true);
    is!(set_rights(fd, before.rights, before.inheriting), Err(NOTCAPABLE));
    is!(set_rights(fd, after, before.inheriting | READ_WRITE), Err(NOTCAPABLE));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn sizes_and_times(dir: Fd) -> Verdict {
    let all = READ_WRITE | rights::STAT | rights::SET_SIZE | rights::SET_TIMES;
    let fd = get!(open(dir, "f", able(CREAT, all)));
    is!(get!(stat(fd)).size, 0);
    get!(set_size(fd, 100));
    let before = get!(stat(fd));
    is!(before.size, 100);
    let wanted = before.mtim - 100;
    get!(set_times(fd, wanted, wanted, SET_MTIM));
    let after = get!(stat(fd));
    is!((after.size, after.mtim, after.atim), (100, wanted, before.atim));
    get!(set_times(fd, 5, 0, SET_ATIM | MTIM_NOW));
    let last = get!(stat(fd));
    is!((last.atim, last.mtim > wanted), (5, true));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn appending_can_be_switched(dir: Fd) -> Verdict {
    let how = How { flags: APPEND, ..able(CREAT, READ_WRITE | MOVE | rights::SET_FLAGS) };
    let fd = get!(open(dir, "f", how));
    for byte in [0_u8, 1] {
        get!(seek(fd, 0, 0));
        is!(write(fd, &[&[byte; 100]]), Ok(100));
        get!(seek(fd, i64::from(byte) * 100, 0));
        is!(read(fd, &[100]), Ok(vec![byte; 100]));
    }
    get!(set_flags(fd, 0));
    get!(seek(fd, 0, 0));
    is!(write(fd, &[&[2; 100]]), Ok(100));
    get!(seek(fd, 0, 0));
    is!(read(fd, &[200]), Ok([[2; 100], [1; 100]].concat()));
    get!(close(fd));
    is!(get!(stat_path(dir, "f", 0)).size, 200);
    Ok(get!(unlink(dir, "f")))
}

fn allocation_only_extends(dir: Fd) -> Verdict {
    let fd = get!(open(dir, "f", able(CREAT, READ_WRITE | rights::ALLOCATE | rights::STAT)));
    for (offset, len, size) in [(0, 100, 100), (10, 10, 100), (90, 20, 110)] {
        get!(allocate(fd, offset, len));
        is!(get!(stat(fd)).size, size);
    }
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn positioned_access(dir: Fd) -> Verdict {
    let fd = get!(open(dir, "f", able(CREAT, READ_WRITE | rights::SEEK)));
    is!(pwrite(fd, &[&[0, 1, 2, 3]], 0), Ok(4));
    is!(pread(fd, &[4], 0), Ok(vec![0, 1, 2, 3]));
    is!(pwrite(fd, &[&[4, 5], &[], &[6, 7]], 4), Ok(4));
    is!(pread(fd, &[3, 0, 9], 1), Ok(vec![1, 2, 3, 4, 5, 6, 7]));
    is!(pread(fd, &[4], 6), Ok(vec![6, 7]));
    is!(pread(fd, &[4], 8), Ok(vec![]));
    is!(pwrite(fd, &[&[1, 0]], 2), Ok(2));
    is!(pread(fd, &[4], 0), Ok(vec![0, 1, 1, 0]));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn places(dir: Fd) -> Verdict {
    let fd = get!(open(dir, "f", able(CREAT, READ_WRITE | MOVE)));
    is!(tell(fd), Ok(0));
    is!(write(fd, &[&[0; 100]]), Ok(100));
    is!(tell(fd), Ok(100));
    is!(seek(fd, -50, 1), Ok(50));
    is!(seek(fd, 0, 0), Ok(0));
    is!(seek(fd, 1000, 1), Ok(1000));
    is!(read(fd, &[1]), Ok(vec![]));
    is!(seek(fd, -2000, 1), Err(INVAL));
    is!(tell(fd), Ok(1000));
    is!(seek(fd, 0, 0), Ok(0));
    is!(get!(read(fd, &[100])).len(), 100);
    is!(tell(fd), Ok(100));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn opening_truncates(dir: Fd) -> Verdict {
    let fd = get!(open(dir, "f", able(CREAT, rights::WRITE)));
    get!(write(fd, &[b"soon gone"]));
    get!(close(fd));
    let fd = get!(open(dir, "f", able(CREAT | TRUNC, READ_WRITE)));
    is!(read(fd, &[100]), Ok(vec![]));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn a_write_is_seen_at_once(dir: Fd) -> Verdict {
    let reader = get!(open(dir, "f", able(CREAT, rights::READ)));
    let writer = get!(open(dir, "f", able(0, rights::WRITE)));
    is!(read(reader, &[1]), Ok(vec![]));
    is!(write(writer, &[&[1]]), Ok(1));
    is!(read(reader, &[1]), Ok(vec![1]));
    get!(close(writer));
    get!(close(reader));
    Ok(get!(unlink(dir, "f")))
}

fn a_time_is_a_value_or_now(dir: Fd) -> Verdict {
    let fd = get!(open(dir, "f", able(CREAT, rights::READ | rights::SET_TIMES)));
    for flags in [SET_MTIM | MTIM_NOW, SET_ATIM | ATIM_NOW, 16] {
        is!(set_times(fd, 100, 200, flags), Err(INVAL));
    }
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn rights_decide(dir: Fd) -> Verdict {
    get!(close(get!(open(dir, "f", bare(CREAT)))));
    let reader = get!(open(dir, "f", able(0, rights::READ)));
    is!(get!(fdstat(reader)).rights & READ_WRITE, rights::READ);
    is!(read(reader, &[100]), Ok(vec![]));
    is!(matches!(write(reader, &[b"x"]), Err(BADF | NOTCAPABLE)), true);
    get!(close(reader));
    let writer = get!(open(dir, "f", able(0, rights::WRITE)));
    is!(get!(fdstat(writer)).rights & READ_WRITE, rights::WRITE);
    is!(matches!(read(writer, &[1]), Err(BADF | NOTCAPABLE)), true);
    is!(write(writer, &[&[1; 50]]), Ok(50));
    get!(close(writer));
    let both = get!(open(dir, "f", able(0, READ_WRITE | rights::STAT)));
    is!(get!(fdstat(both)).rights & READ_WRITE, READ_WRITE);
    is!(read(both, &[100]), Ok(vec![1; 50]));
    is!(write(both, &[&[2; 25]]), Ok(25));
    is!(get!(stat(both)).size, 75);
    get!(close(both));
    Ok(get!(unlink(dir, "f")))
}

fn truncation_is_the_directorys_right(dir: Fd) -> Verdict {
    get!(close(get!(open(dir, "f", bare(CREAT)))));
    let before = get!(fdstat(dir));
    is!((before.filetype, before.flags, before.rights & rights::SET_SIZE), (TYPE_DIRECTORY, 0, 0));
    get!(close(get!(open(dir, "f", bare(TRUNC)))));
    // The right to pass on is another one.
    let inheriting = before.inheriting & !rights::SET_SIZE;
    get!(set_rights(dir, before.rights, inheriting));
    get!(close(get!(open(dir, "f", bare(TRUNC)))));
    get!(set_rights(dir, before.rights & !rights::PATH_SET_SIZE, inheriting));
    is!(get!(fdstat(dir)).rights & rights::PATH_SET_SIZE, 0);
    is!(matches!(open(dir, "f", bare(TRUNC)), Err(PERM | NOTCAPABLE)), true);
    Ok(get!(unlink(dir, "f")))
}

/// A file of eight digits, and what made it closed again.
fn digits(dir: Fd, rights: u64) -> Answer<Fd> {
    let fd = open(dir, "f", able(CREAT, rights::WRITE))?;
    write(fd, &[b"01234567"])?;
    close(fd)?;
    open(dir, "f", able(0, rights))
}

fn reading_moves_the_place(dir: Fd) -> Verdict {
    let fd = get!(digits(dir, rights::READ | MOVE));
    is!(read(fd, &[4]), Ok(b"0123".to_vec()));
    is!(seek(fd, 0, 1), Ok(4));
    is!(read(fd, &[1]), Ok(b"4".to_vec()));
    is!(tell(fd), Ok(5));
    is!(seek(fd, 0, 0), Ok(0));
    is!(seek(fd, 0, 2), Ok(8));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn reading_at_a_place_does_not_move_it(dir: Fd) -> Verdict {
    let fd = get!(digits(dir, rights::READ | MOVE));
    is!(pread(fd, &[3], 2), Ok(b"234".to_vec()));
    is!(tell(fd), Ok(0));
    is!(pread(fd, &[9], 6), Ok(b"67".to_vec()));
    is!(read(fd, &[2]), Ok(b"01".to_vec()));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn writing_at_a_place_does_not_move_it(dir: Fd) -> Verdict {
    let fd = get!(digits(dir, READ_WRITE | MOVE));
    is!(pwrite(fd, &[b"xyz"], 4), Ok(3));
    is!(tell(fd), Ok(0));
    is!(read(fd, &[99]), Ok(b"0123xyz7".to_vec()));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn positioned_writes_of_an_appender(dir: Fd) -> Verdict {
    let how = How { flags: APPEND, ..able(CREAT, rights::WRITE | MOVE) };
    let fd = get!(open(dir, "f", how));
    is!(write(fd, &[b"ab"]), Ok(2));
    is!(seek(fd, 0, 0), Ok(0));
    is!(write(fd, &[b"cd"]), Ok(2));
    is!(seek(fd, 0, 1), Ok(4));
    is!(pwrite(fd, &[b"efg"], 0), Ok(3));
    is!(seek(fd, 0, 1), Ok(4));
    // As Linux has it; the standard's other reading would be 4.
    is!(seek(fd, 0, 2), Ok(7));
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn files_are_told_apart(dir: Fd) -> Verdict {
    for name in ["a", "b"] {
        get!(close(get!(open(dir, name, bare(CREAT)))));
    }
    let (a, b) = (get!(stat_path(dir, "a", 0)), get!(stat_path(dir, "b", 0)));
    is!(a.dev, b.dev);
    is!(a.ino == b.ino, false);
    is!(get!(stat(TASK)).dev == a.dev, false);
    get!(unlink(dir, "a"));
    Ok(get!(unlink(dir, "b")))
}

fn files_of_the_task_are_read(_: Fd) -> Verdict {
    // Through the toolchain's library, as a program would.
    let text = std::fs::read_to_string("/var/task/rules/greeting.txt").map_err(|error| error.to_string())?;
    is!(text.as_str(), "hello from the task\n");
    Ok(())
}

fn outside_is_out_of_reach(_: Fd) -> Verdict {
    for path in ["/etc/passwd", "fs/file", "/var/task/../../etc/passwd", "/"] {
        is!(std::fs::read(path).is_err(), true);
    }
    Ok(())
}
