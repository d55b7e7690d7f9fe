//! Links of both kinds.

use crate::{Case, Verdict, abi::*, get, is};

pub const CASES: &[Case] = &[
    ("rust/dangling_symlink", a_link_to_nothing),
    ("rust/nofollow_errors", links_are_followed_on_request),
    ("rust/path_link", hard_links),
    ("rust/path_symlink_trailing_slashes", a_links_own_name),
    ("rust/readlink", a_links_target),
    ("rust/symlink_create", links_lead_somewhere),
    ("rust/symlink_filestat", a_links_own_times),
    ("rust/symlink_loop", a_link_to_itself),
];

fn touch(dir: Fd, path: &str) -> Answer<()> {
    open(dir, path, bare(CREAT)).and_then(close)
}

fn a_link_to_nothing(dir: Fd) -> Verdict {
    get!(symlink("nothing", dir, "l"));
    is!(matches!(open(dir, "l", bare(OPEN_DIRECTORY)), Err(NOTDIR | LOOP)), true);
    is!(open(dir, "l", BARE), Err(LOOP));
    is!(open(dir, "l", follow(0)), Err(NOENT));
    Ok(get!(unlink(dir, "l")))
}

fn links_are_followed_on_request(dir: Fd) -> Verdict {
    get!(create_directory(dir, "to"));
    get!(symlink("to", dir, "l"));
    is!(matches!(open(dir, "l", bare(OPEN_DIRECTORY)), Err(NOTDIR | LOOP)), true);
    is!(open(dir, "l", BARE), Err(LOOP));
    get!(close(get!(open(dir, "l", follow(OPEN_DIRECTORY)))));
    get!(unlink(dir, "l"));
    get!(remove_directory(dir, "to"));
    get!(touch(dir, "to"));
    get!(symlink("to", dir, "l"));
    is!(matches!(open(dir, "l", bare(OPEN_DIRECTORY)), Err(NOTDIR | LOOP)), true);
    is!(open(dir, "l", BARE), Err(LOOP));
    is!(open(dir, "l", follow(OPEN_DIRECTORY)), Err(NOTDIR));
    get!(unlink(dir, "to"));
    Ok(get!(unlink(dir, "l")))
}

fn hard_links(dir: Fd) -> Verdict {
    let able = able(CREAT, rights::READ | rights::STAT);
    let file = get!(open(dir, "f", able));
    get!(create_directory(dir, "d"));
    let sub = get!(open(dir, "d", DIRECTORY));
    for (place, path) in [(dir, "l"), (sub, "l")] {
        get!(link(dir, 0, "f", place, path));
        let second = get!(open(place, path, How { oflags: 0, ..able }));
        is!(get!(stat(second)), get!(stat(file)));
        is!(get!(fdstat(second)), get!(fdstat(file)));
        is!(get!(stat(file)).nlink, 2);
        get!(close(second));
        get!(unlink(place, path));
    }
    get!(close(sub));
    get!(close(file));
    is!(link(dir, 0, "f", dir, "f"), Err(EXIST));
    is!(link(dir, 0, "f", dir, "d"), Err(EXIST));
    is!(link(dir, 0, "d", dir, "l"), Err(PERM));
    is!(link(dir, 0, "f", dir, "l/"), Err(NOENT));
    // Links to nothing and to themselves are linked as they are.
    for target in ["nothing", "s"] {
        get!(symlink(target, dir, "s"));
        get!(link(dir, 0, "s", dir, "l"));
        is!(link(dir, 0, "f", dir, "s"), Err(EXIST));
        is!(matches!(link(dir, 1, "s", dir, "m"), Err(INVAL | NOENT)), true);
        get!(unlink(dir, "s"));
        get!(unlink(dir, "l"));
    }
    get!(remove_directory(dir, "d"));
    Ok(get!(unlink(dir, "f")))
}

fn a_links_own_name(dir: Fd) -> Verdict {
    is!(symlink("from", dir, "l/"), Err(NOENT));
    get!(symlink("from", dir, "l"));
    get!(unlink(dir, "l"));
    get!(create_directory(dir, "l"));
    is!(symlink("from", dir, "l/"), Err(EXIST));
    is!(symlink("from", dir, "l"), Err(EXIST));
    get!(remove_directory(dir, "l"));
    get!(touch(dir, "l"));
    is!(matches!(symlink("from", dir, "l/"), Err(NOTDIR | EXIST)), true);
    is!(symlink("from", dir, "l"), Err(EXIST));
    Ok(get!(unlink(dir, "l")))
}

fn a_links_target(dir: Fd) -> Verdict {
    get!(symlink("target", dir, "l"));
    is!(readlink(dir, "l", 10, b'-'), Ok((b"target----".to_vec(), 6)));
    is!(readlink(dir, "l", 4, b'-'), Ok((b"targ".to_vec(), 4)));
    is!(readlink(dir, ".", 4, b'-').map(drop), Err(INVAL));
    Ok(get!(unlink(dir, "l")))
}

fn links_lead_somewhere(dir: Fd) -> Verdict {
    get!(touch(dir, "f"));
    get!(create_directory(dir, "d"));
    for (target, oflags) in [("f", 0), ("d", OPEN_DIRECTORY)] {
        get!(symlink(target, dir, "l"));
        get!(close(get!(open(dir, "l", follow(oflags)))));
        get!(unlink(dir, "l"));
    }
    is!(symlink("/", dir, "l").is_err(), true);
    // Up and out is refused when it is walked.
    get!(symlink("../../var/task", dir, "l"));
    is!(matches!(open(dir, "l", follow(0)), Err(PERM | NOTCAPABLE)), true);
    get!(unlink(dir, "l"));
    get!(unlink(dir, "f"));
    Ok(get!(remove_directory(dir, "d")))
}

fn a_links_own_times(dir: Fd) -> Verdict {
    get!(touch(dir, "f"));
    get!(symlink("f", dir, "l"));
    let (file, link) = (get!(stat_path(dir, "f", 0)), get!(stat_path(dir, "l", 0)));
    get!(set_path_times(dir, "l", 0, (0, link.mtim - 200), SET_MTIM));
    is!(get!(stat_path(dir, "l", 0)).mtim, link.mtim - 200);
    is!(get!(stat_path(dir, "f", 0)).mtim, file.mtim);
    is!(get!(stat_path(dir, "l", 1)).mtim, file.mtim);
    get!(set_path_times(dir, "l", 1, (0, link.mtim - 300), SET_MTIM));
    is!(get!(stat_path(dir, "f", 0)).mtim, link.mtim - 300);
    get!(unlink(dir, "l"));
    Ok(get!(unlink(dir, "f")))
}

fn a_link_to_itself(dir: Fd) -> Verdict {
    get!(symlink("l", dir, "l"));
    is!(open(dir, "l", BARE), Err(LOOP));
    is!(open(dir, "l", follow(0)), Err(LOOP));
    Ok(get!(unlink(dir, "l")))
}
