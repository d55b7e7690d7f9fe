//! What a pager that was taken over might try, each in a copy of this program behind the real seal: the filter ends it, and Landlock,
//! where the kernel has it, leaves the folders that were given.
#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, openat, unlinkat};
use std::{
    fs::File,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
};
use warren_pager::seal::{Folders, seal};

/// Tells a copy what to try, and where its folders are.
const TRY: &str = "WARREN_TEST_TRY";
const PLACE: &str = "WARREN_TEST_PLACE";
/// The status of a copy whose call came back, that of one that was refused, and that of one on a kernel without Landlock.
const DONE: i32 = 70;
const REFUSED: i32 = 71;
const NO_LANDLOCK: i32 = 72;

const SIGSYS: i32 = 31;
const SIGABRT: i32 = 6;

struct Given {
    origin: OwnedFd,
    cache: OwnedFd,
}

type Attempt = fn(&Given) -> rustix::io::Result<()>;

/// Ended by the filter, on every kernel.
const ESCAPES: &[(&str, Attempt)] = &[
    ("make a socket", |_| refused(std::net::UdpSocket::bind("127.0.0.1:0"))),
    ("make a pair of sockets", |_| refused(std::os::unix::net::UnixStream::pair())),
    ("start a program", |_| refused(Command::new("/bin/true").status())),
    ("send a signal", |_| {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::CHILD)
    }),
    ("make a descriptor of memory", |_| {
        rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).map(drop)
    }),
    ("change the folder it is in", |given| rustix::process::fchdir(&given.origin)),
    ("give a file another name", |given| {
        rustix::fs::linkat(&given.origin, "chunk", &given.cache, "chunk", rustix::fs::AtFlags::empty())
    }),
    ("make a link", |given| rustix::fs::symlinkat("/etc", &given.cache, "link")),
    ("be dumped", |_| rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)),
    ("have other limits", |_| {
        let all = rustix::process::Rlimit { current: None, maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Core, all)
    }),
    ("get memory to run code in", |_| map_executable_memory()),
];

/// Refused by Landlock.
const BESIDE: &[(&str, Attempt)] = &[
    ("read a file of the host", |_| openat(CWD, "/etc/passwd", OFlags::RDONLY, Mode::empty()).map(drop)),
    ("go up from the origin", |given| read(&given.origin, "../beside")),
    ("go up from the cache", |given| read(&given.cache, "../beside")),
    ("write to the origin", |given| openat(&given.origin, "chunk", OFlags::WRONLY, Mode::empty()).map(drop)),
    ("make something in the origin", |given| mkdirat(&given.origin, "new", Mode::RWXU)),
    ("remove a chunk", |given| unlinkat(&given.origin, "chunk", rustix::fs::AtFlags::empty())),
];

/// What it is for.
const WORK: &[(&str, Attempt)] = &[
    ("read a chunk", |given| read(&given.origin, "chunk")),
    ("keep one", |given| {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        openat(&given.cache, "kept", flags, Mode::RUSR).map(drop)?;
        unlinkat(&given.cache, "kept", rustix::fs::AtFlags::empty())
    }),
    ("let others go first", |_| {
        std::thread::yield_now();
        Ok(())
    }),
    ("give memory back", |_| {
        // Many of one size, every other one freed: what the allocator keeps of them it tells the kernel is free.
        let mut all: Vec<Vec<u8>> = (0..64).map(|number| vec![number; 40_000]).collect();
        let mut number = 0;
        all.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        Ok(())
    }),
    ("open a folder up", |given| {
        mkdirat(&given.cache, "ab", Mode::RWXU)?;
        rustix::fs::chmodat(&given.cache, "ab", Mode::RWXU | Mode::RWXG, rustix::fs::AtFlags::empty())
    }),
    ("start a thread", |_| {
        std::thread::Builder::new().name("one".into()).spawn(|| ()).unwrap().join().unwrap();
        Ok(())
    }),
];

fn refused<T>(result: std::io::Result<T>) -> rustix::io::Result<()> {
    result.map(drop).map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap())
}

fn read(folder: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let file = openat(folder, name, OFlags::RDONLY, Mode::empty())?;
    rustix::io::read(&file, &mut [0; 8]).map(drop)
}

#[allow(unsafe_code, reason = "mapping memory is unsafe in general")]
fn map_executable_memory() -> rustix::io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let rights = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: 1. the kernel chooses a free place for new, private memory; 2. nobody ever uses it.
    unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, rights, MapFlags::PRIVATE) }.map(drop)
}

fn all() -> impl Iterator<Item = &'static (&'static str, Attempt)> {
    ESCAPES.iter().chain(BESIDE).chain(WORK)
}

#[test]
fn child() {
    let (Ok(what), Some(place)) = (std::env::var(TRY), std::env::var_os(PLACE)) else { return };
    let place = Path::new(&place);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = |name: &str| open(place.join(name), flags, Mode::empty()).unwrap();
    let given = Given { origin: folder("origin"), cache: folder("cache") };
    let origin = [given.origin.as_fd(); 2];
    let landlock = seal(&Folders { origin, cache: Some(given.cache.as_fd()) }).unwrap();
    if what == "panic" {
        std::process::abort();
    }
    let (_, attempt) = all().find(|(name, _)| *name == what).unwrap();
    let beside = BESIDE.iter().any(|(name, _)| *name == what);
    if beside && landlock == landlock::RulesetStatus::NotEnforced {
        std::process::exit(NO_LANDLOCK);
    }
    let code = if attempt(&given).is_ok() { DONE } else { REFUSED };
    std::process::exit(code);
}

fn tried(what: &str) -> ExitStatus {
    let place = tempfile::tempdir().unwrap();
    for folder in ["origin", "cache"] {
        std::fs::create_dir(place.path().join(folder)).unwrap();
    }
    std::fs::write(place.path().join("beside"), b"beside").unwrap();
    std::fs::write(place.path().join("origin/chunk"), b"a chunk").unwrap();
    let this = std::env::current_exe().unwrap();
    let quiet = || Stdio::from(File::create("/dev/null").unwrap());
    let words = ["--exact", "child", "--nocapture", "--test-threads=1"];
    let mut command = Command::new(this);
    command.args(words).env(TRY, what).env(PLACE, place.path()).stdout(quiet()).stderr(quiet());
    command.status().unwrap()
}

#[test]
fn what_it_is_not_for_ends_it() {
    for (what, _) in ESCAPES {
        assert_eq!(tried(what).signal(), Some(SIGSYS), "{what}");
    }
    assert_eq!(tried("panic").signal(), Some(SIGABRT), "its own end has its own name");
}

#[test]
fn what_it_is_for_it_can() {
    for (what, _) in WORK {
        assert_eq!(tried(what).code(), Some(DONE), "{what}");
    }
}

#[test]
fn landlock_leaves_the_folders_given() {
    for (what, _) in BESIDE {
        match tried(what).code() {
            Some(NO_LANDLOCK) => println!("warren-skipped: seal: this kernel has no Landlock: {what}"),
            code => assert_eq!(code, Some(REFUSED), "{what}"),
        }
    }
}
