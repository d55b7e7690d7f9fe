//! Paths and directories.

use crate::{Case, Verdict, abi::*, get, is};

pub const CASES: &[Case] = &[
    ("rust/dangling_fd", a_name_can_be_taken_again),
    ("rust/dir_fd_op_failures", directories_have_no_bytes),
    ("rust/directory_seek", directories_have_no_place),
    ("rust/fd_readdir", listings),
    ("rust/interesting_paths", paths_stay_below),
    ("rust/path_exists", what_a_path_leads_to),
    ("rust/path_filestat", a_paths_attributes),
    ("rust/path_open_create_existing", exclusive_creation),
    ("rust/path_open_dirfd_not_dir", a_file_holds_no_paths),
    ("rust/path_open_missing", what_is_not_there),
    ("rust/path_open_nonblock", a_directory_takes_the_flag),
    ("rust/path_open_preopen", preopens_open_again),
    ("rust/path_rename", renaming),
    ("rust/path_rename_dir_trailing_slashes", renaming_with_slashes),
    ("rust/remove_directory_trailing_slashes", removing_with_slashes),
    ("rust/remove_nonempty_directory", only_empty_directories_go),
    ("rust/unlink_file_trailing_slashes", unlinking_with_slashes),
    ("c/fdopendir-with-access", inodes_agree),
];

fn touch(dir: Fd, path: &str) -> Answer<()> {
    open(dir, path, bare(CREAT)).and_then(close)
}

fn a_name_can_be_taken_again(dir: Fd) -> Verdict {
    // Closed before removal and removed while open: the name is free either way.
    for held in [false, true] {
        get!(touch(dir, "f"));
        let fd = get!(open(dir, "f", BARE));
        if !held {
            get!(close(fd));
        }
        get!(unlink(dir, "f"));
        get!(touch(dir, "f"));
        get!(unlink(dir, "f"));
        get!(create_directory(dir, "d"));
        let sub = get!(open(dir, "d", bare(OPEN_DIRECTORY)));
        if !held {
            get!(close(sub));
        }
        get!(remove_directory(dir, "d"));
        get!(create_directory(dir, "d"));
        get!(remove_directory(dir, "d"));
        if held {
            get!(close(sub));
            get!(close(fd));
        }
    }
    Ok(())
}

fn directories_have_no_bytes(dir: Fd) -> Verdict {
    is!(get!(stat(dir)).filetype, u64::from(TYPE_DIRECTORY));
    let (_, len) = get!(prestat(TMP));
    is!(matches!(preopen_name(TMP, 0), Err(INVAL | NAMETOOLONG)), true);
    is!(get!(preopen_name(TMP, len as usize + 1)), b"/tmp\0".to_vec());
    let refused = |answer: Result<(), Errno>| matches!(answer, Err(ISDIR | BADF | NOTCAPABLE));
    is!(refused(read(dir, &[128]).map(drop)), true);
    is!(refused(pread(dir, &[128], 0).map(drop)), true);
    is!(refused(write(dir, &[&[0; 128]]).map(drop)), true);
    is!(refused(pwrite(dir, &[&[0; 128]], 0).map(drop)), true);
    for whence in 0..3 {
        is!(refused(seek(dir, 0, whence).map(drop)), true);
    }
    is!(refused(tell(dir).map(drop)), true);
    is!(refused(allocate(dir, 0, 0)), true);
    is!(refused(set_size(dir, 0)), true);
    Ok(())
}

fn directories_have_no_place(dir: Fd) -> Verdict {
    get!(create_directory(dir, "d"));
    let fd = get!(open(dir, "d", able(OPEN_DIRECTORY, rights::SEEK)));
    is!(matches!(seek(fd, 0, 1), Err(ISDIR | BADF | NOTCAPABLE)), true);
    let stat = get!(fdstat(fd));
    is!((stat.filetype, stat.rights & rights::SEEK), (TYPE_DIRECTORY, 0));
    get!(close(fd));
    Ok(get!(remove_directory(dir, "d")))
}

/// Name, cookie, inode and type of each whole entry in a listing.
fn entries(bytes: &[u8]) -> Vec<(String, u64, u64, u8)> {
    let word =
        |at: usize| bytes.get(at..at + 8).and_then(|w| w.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (mut all, mut at) = (Vec::new(), 0);
    while at + 24 <= bytes.len() {
        let len = usize::try_from(word(at + 16) & 0xFFFF_FFFF).unwrap_or(0);
        let Some(name) = bytes.get(at + 24..at + 24 + len) else { break };
        all.push((String::from_utf8_lossy(name).into_owned(), word(at), word(at + 8), bytes[at + 20]));
        at += 24 + len;
    }
    all
}

fn listings(dir: Fd) -> Verdict {
    let own = get!(stat(dir)).ino;
    let (room, listed) =
        (256, |cookie| readdir(dir, 256, cookie).map(|bytes| (entries(&bytes), bytes.len())));
    let (empty, used) = get!(listed(0));
    is!(used < room, true);
    let names: Vec<_> = empty.iter().map(|(name, _, _, kind)| (name.as_str(), *kind)).collect();
    is!(names, [(".", TYPE_DIRECTORY), ("..", TYPE_DIRECTORY)]);
    is!(empty[0].2, own);
    get!(touch(dir, "file"));
    let inode = get!(stat_path(dir, "file", 0)).ino;
    let (three, _) = get!(listed(0));
    is!(three.len(), 3);
    is!((three[2].0.as_str(), three[2].2, three[2].3), ("file", inode, TYPE_FILE));
    let (rest, _) = get!(listed(three[1].1));
    is!(rest, three[2..].to_vec());
    get!(unlink(dir, "file"));
    for count in 0..1000 {
        get!(touch(dir, &format!("file.{count}")));
    }
    let (mut total, mut cookie) = (0, 0);
    loop {
        let (some, used) = get!(listed(cookie));
        total += some.len();
        cookie = some.last().map_or(cookie, |entry| entry.1);
        if used < room {
            break;
        }
    }
    is!(total, 1002);
    for count in 0..1000 {
        get!(unlink(dir, &format!("file.{count}")));
    }
    Ok(())
}

fn paths_stay_below(dir: Fd) -> Verdict {
    get!(create_directory(dir, "d"));
    get!(create_directory(dir, "d/e"));
    get!(touch(dir, "d/e/f"));
    let opened = |path: &str| open(dir, path, BARE).and_then(close);
    for path in ["d/.//e/../../d/e/../e///./f", "d/e/", "d/e///", "d/..", "."] {
        is!((path, opened(path)), (path, Ok(())));
    }
    is!(matches!(opened("/d/e/f"), Err(PERM | NOTCAPABLE)), true);
    is!(matches!(opened("d/e/../../../tmp/d/e/f"), Err(PERM | NOTCAPABLE)), true);
    is!(matches!(opened(".."), Err(PERM | NOTCAPABLE)), true);
    is!(matches!(opened("d/e/f\0"), Err(INVAL | NOENT)), true);
    for path in ["d/e/f/", "d/e/f///", "d/e/f/."] {
        is!((path, opened(path)), (path, Err(NOTDIR)));
    }
    get!(unlink(dir, "d/e/f"));
    get!(remove_directory(dir, "d/e"));
    Ok(get!(remove_directory(dir, "d")))
}

fn what_a_path_leads_to(dir: Fd) -> Verdict {
    get!(create_directory(dir, "d"));
    get!(touch(dir, "d/f"));
    get!(symlink("d/f", dir, "to-file"));
    get!(symlink("d", dir, "to-dir"));
    for (path, itself, through) in [
        ("d", TYPE_DIRECTORY, TYPE_DIRECTORY),
        ("d/f", TYPE_FILE, TYPE_FILE),
        ("to-file", TYPE_LINK, TYPE_FILE),
        ("to-dir", TYPE_LINK, TYPE_DIRECTORY),
    ] {
        is!((path, type_of(dir, path, 0), type_of(dir, path, 1)), (path, Ok(itself), Ok(through)));
    }
    for path in ["to-file", "to-dir", "d/f"] {
        get!(unlink(dir, path));
    }
    Ok(get!(remove_directory(dir, "d")))
}

fn a_paths_attributes(dir: Fd) -> Verdict {
    let fd = get!(open(
        dir,
        "f",
        How { flags: APPEND | SYNC, ..able(CREAT, rights::READ | rights::WRITE | rights::PATHS) }
    ));
    is!(get!(fdstat(fd)).flags, APPEND | SYNC);
    let before = get!(stat_path(dir, "f", 0));
    is!(before.size, 0);
    let wanted = before.mtim - 100;
    get!(set_path_times(dir, "f", 0, (0, wanted), SET_MTIM));
    is!(get!(stat_path(dir, "f", 0)).mtim, wanted);
    for flags in [SET_MTIM | MTIM_NOW, SET_ATIM | ATIM_NOW] {
        is!(set_path_times(dir, "f", 0, (0, 7), flags), Err(INVAL));
    }
    is!(get!(stat_path(dir, "f", 0)).mtim, wanted);
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn exclusive_creation(dir: Fd) -> Verdict {
    get!(close(get!(open(dir, "f", bare(CREAT | EXCL)))));
    is!(open(dir, "f", bare(CREAT | EXCL)), Err(EXIST));
    Ok(get!(unlink(dir, "f")))
}

fn a_file_holds_no_paths(dir: Fd) -> Verdict {
    let fd = get!(open(dir, "f", bare(CREAT)));
    is!(matches!(open(fd, "g", bare(CREAT)), Err(NOTDIR | NOTCAPABLE)), true);
    get!(close(fd));
    Ok(get!(unlink(dir, "f")))
}

fn what_is_not_there(dir: Fd) -> Verdict {
    is!(open(dir, "none", able(0, rights::READ)), Err(NOENT));
    is!(open(dir, "none", bare(OPEN_DIRECTORY)), Err(NOENT));
    Ok(())
}

fn a_directory_takes_the_flag(dir: Fd) -> Verdict {
    Ok(get!(close(get!(open(dir, ".", How { flags: NONBLOCK, ..BARE })))))
}

fn preopens_open_again(_: Fd) -> Verdict {
    const PASSED_ON: u64 = rights::READ | rights::WRITE | rights::SEEK | rights::TELL | rights::ADVISE;
    for (fd, name) in [(TASK, "/var/task"), (TMP, "/tmp")] {
        let (tag, len) = get!(prestat(fd));
        is!((tag, len as usize), (0, name.len()));
        is!(get!(preopen_name(fd, name.len())), name.as_bytes().to_vec());
        let stat = get!(fdstat(fd));
        let base = rights::PATHS | rights::READDIR | rights::STAT | rights::SET_TIMES;
        is!(stat.rights & base, base);
        let more = base | PASSED_ON | rights::ALLOCATE | rights::SET_SIZE | rights::POLL | rights::SET_FLAGS;
        is!(stat.inheriting & more, more);
        let same = How { rights: stat.rights, inheriting: stat.inheriting, ..BARE };
        let again = get!(open(fd, ".", same));
        is!(get!(fdstat(again)), stat);
        get!(close(again));
        get!(close(get!(open(fd, ".", BARE))));
        get!(close(get!(open(fd, ".", bare(OPEN_DIRECTORY)))));
        get!(close(get!(open(fd, ".", able(OPEN_DIRECTORY, rights::READ)))));
        is!(open(fd, ".", able(OPEN_DIRECTORY, rights::READ | rights::WRITE)), Err(ISDIR));
    }
    is!(prestat(2), Err(BADF));
    is!(prestat(99), Err(BADF));
    Ok(())
}

fn renaming(dir: Fd) -> Verdict {
    let gone = |path: &str| open(dir, path, bare(0)).map(drop) == Err(NOENT);
    for existing in [false, true] {
        // A directory, to nothing and over an empty one.
        get!(create_directory(dir, "from"));
        if existing {
            get!(create_directory(dir, "to"));
        }
        get!(rename(dir, "from", dir, "to"));
        is!((gone("from"), type_of(dir, "to", 0)), (true, Ok(TYPE_DIRECTORY)));
        get!(remove_directory(dir, "to"));
        // A file, likewise.
        get!(touch(dir, "from"));
        if existing {
            get!(touch(dir, "to"));
        }
        get!(rename(dir, "from", dir, "to"));
        is!((gone("from"), type_of(dir, "to", 0)), (true, Ok(TYPE_FILE)));
        get!(unlink(dir, "to"));
    }
    get!(create_directory(dir, "from"));
    get!(create_directory(dir, "to"));
    get!(touch(dir, "to/f"));
    is!(rename(dir, "from", dir, "to"), Err(NOTEMPTY));
    is!(rename(dir, "from", dir, "to/f"), Err(NOTDIR));
    is!(rename(dir, "to", dir, "to/inside"), Err(INVAL));
    get!(unlink(dir, "to/f"));
    get!(remove_directory(dir, "from"));
    get!(touch(dir, "from"));
    is!(rename(dir, "from", dir, "to"), Err(ISDIR));
    is!(rename(dir, "none", dir, "to"), Err(NOENT));
    get!(remove_directory(dir, "to"));
    Ok(get!(unlink(dir, "from")))
}

fn renaming_with_slashes(dir: Fd) -> Verdict {
    get!(create_directory(dir, "a"));
    for (from, to) in [("a/", "b"), ("b", "a/"), ("a/", "b/"), ("b", "a")] {
        is!((from, to, rename(dir, from, dir, to)), (from, to, Ok(())));
    }
    Ok(get!(remove_directory(dir, "a")))
}

fn removing_with_slashes(dir: Fd) -> Verdict {
    for path in ["d", "d/"] {
        get!(create_directory(dir, "d"));
        get!(remove_directory(dir, path));
    }
    get!(touch(dir, "f"));
    is!(remove_directory(dir, "f"), Err(NOTDIR));
    is!(remove_directory(dir, "f/"), Err(NOTDIR));
    Ok(get!(unlink(dir, "f")))
}

fn only_empty_directories_go(dir: Fd) -> Verdict {
    get!(create_directory(dir, "d"));
    get!(create_directory(dir, "d/e"));
    is!(remove_directory(dir, "d"), Err(NOTEMPTY));
    get!(remove_directory(dir, "d/e"));
    Ok(get!(remove_directory(dir, "d")))
}

fn unlinking_with_slashes(dir: Fd) -> Verdict {
    get!(create_directory(dir, "d"));
    is!(unlink(dir, "d"), Err(ISDIR));
    is!(unlink(dir, "d/"), Err(ISDIR));
    get!(remove_directory(dir, "d"));
    get!(touch(dir, "f"));
    is!(unlink(dir, "f/"), Err(NOTDIR));
    Ok(get!(unlink(dir, "f")))
}

fn inodes_agree(dir: Fd) -> Verdict {
    for name in ["file-0", "file-1"] {
        get!(touch(dir, name));
    }
    let listed = entries(&get!(readdir(dir, 1024, 0)));
    let mut seen = Vec::new();
    for (name, _, inode, _) in listed.iter().filter(|entry| !entry.0.starts_with('.')) {
        is!(get!(stat_path(dir, name, 0)).ino, *inode);
        seen.push(*inode);
    }
    is!((seen.len(), seen.first() == seen.last()), (2, false));
    get!(unlink(dir, "file-0"));
    Ok(get!(unlink(dir, "file-1")))
}
