//! The real program with real descriptors: what it answers, and what its own half of the jail refuses it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it found by failing")]

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::process::{Signal, getpid, kill_process};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use warren_abi::isa::IsaSet;
use warren_artefact::{CompileError, CompileResult, Purpose, ResultError};

const GOOD: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";
const SIGSYS: i32 = 31;
const SIGABRT: i32 = 6;

/// A memfd that children inherit.
fn memory(contents: &[u8]) -> File {
    let mut file = File::from(memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap());
    file.write_all(contents).unwrap();
    file.rewind().unwrap();
    file
}

/// Runs `warren-compile jailed` with these as descriptors 3 and 4. A shell places them, as the jailer would.
fn jailed(module: &File, output: &File, purpose: Purpose) -> ExitStatus {
    jailed_with("", module, output, purpose)
}

/// The same after some words of shell, for limits.
fn jailed_with(first: &str, module: &File, output: &File, purpose: Purpose) -> ExitStatus {
    let place = format!(
        "{first} exec 3<&{} 4<>/proc/self/fd/{}; exec \"$0\" jailed --purpose {} --isa {}",
        module.as_raw_fd(),
        output.as_raw_fd(),
        purpose.name(),
        IsaSet::BASELINE.0
    );
    let program = env!("CARGO_BIN_EXE_warren-compile");
    Command::new("/bin/sh").args(["-c", &place, program]).env_clear().stdin(Stdio::null()).status().unwrap()
}

fn answer(module: &[u8], purpose: Purpose) -> CompileResult {
    let input = memory(module);
    fcntl_add_seals(&input, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
    let output = memory(b"");
    let status = jailed(&input, &output, purpose);
    assert_eq!(status.code(), Some(0), "{status}");
    CompileResult::read(&output).unwrap()
}

#[test]
fn a_good_module_gives_the_same_code_as_outside_the_jail() {
    let module = wat::parse_str(GOOD).unwrap();
    let (facts, code) = warren_compile::compile(&module, Purpose::Function, IsaSet::BASELINE).unwrap();
    assert_eq!(answer(&module, Purpose::Function), CompileResult::Compiled { facts, code });
}

#[test]
fn a_bad_module_gives_a_typed_answer() {
    let module = wat::parse_str("(module (import \"env\" \"system\" (func)))").unwrap();
    match answer(&module, Purpose::Function) {
        CompileResult::Refused(CompileError::MissingImport { import, .. }) => {
            assert_eq!(import, "env.system");
        }
        other => panic!("{other:?}"),
    }
    for (bytes, purpose) in [(&b""[..], Purpose::Function), (b"\x7fELF", Purpose::Policy)] {
        let refused =
            matches!(answer(bytes, purpose), CompileResult::Refused(CompileError::Malformed { .. }));
        assert!(refused, "{bytes:?}");
    }
}

#[test]
fn a_module_over_the_limit_is_not_read() {
    let module = memory(b"");
    // Sparse: four times what is allowed, and no page of it is there.
    module.set_len(256 << 20).unwrap();
    let output = memory(b"");
    assert_eq!(jailed(&module, &output, Purpose::Function).code(), Some(0));
    let answer = CompileResult::read(&output).unwrap();
    assert_eq!(answer, CompileResult::Refused(CompileError::TooLarge { limit: 64 << 20 }));
}

/// Memory that runs out ends in the allocator's abort, which the filter lets happen; the agent sees SIGABRT.
#[test]
fn out_of_memory_is_an_abort_and_no_answer() {
    let module = memory(b"");
    module.set_len(60 << 20).unwrap();
    let output = memory(b"");
    let status = jailed_with("ulimit -v 40960;", &module, &output, Purpose::Function);
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");
    assert!(matches!(CompileResult::read(&output), Err(ResultError::Empty)));
}

#[test]
fn without_descriptors_it_says_so_and_answers_nothing() {
    let output = memory(b"");
    // Whoever started the tests may have left descriptors of those numbers open.
    let status = Command::new("sh")
        .args(["-c", "exec 3<&- 4<&-; exec \"$0\" jailed --isa baseline"])
        .arg(env!("CARGO_BIN_EXE_warren-compile"))
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(matches!(CompileResult::read(&output), Err(ResultError::Empty)));
}

/// What a compiler that was taken over might try. Each runs in a copy of this test program, behind the real lock.
const ESCAPES: &[(&str, fn())] = &[
    ("open a file", || attempt(File::open("/etc/passwd"))),
    ("make a socket", || attempt(std::net::UdpSocket::bind("127.0.0.1:0"))),
    ("start a program", || attempt(Command::new("/bin/true").status())),
    ("start a thread", || attempt(std::thread::Builder::new().spawn(|| ()))),
    ("send a signal", || attempt(kill_process(getpid(), Signal::CHILD))),
    ("make a descriptor", || attempt(memfd_create("x", MemfdFlags::empty()))),
    ("copy a descriptor", || attempt(rustix::io::dup(std::io::stderr()))),
    ("give itself a name", || attempt(rustix::thread::set_name(c"other"))),
    ("get memory to run code in", map_executable_memory),
    ("change its own rights", || attempt(rustix::thread::set_no_new_privs(true))),
];

/// Whatever it gives, the process should be gone by then.
fn attempt<T>(_: T) {}

#[allow(unsafe_code, reason = "mapping memory is unsafe in general")]
fn map_executable_memory() {
    let rights = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: (1) the kernel chooses a free place for new, private memory; (2) nobody ever uses it.
    attempt(unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, rights, MapFlags::PRIVATE) });
}

const ESCAPE: &str = "WARREN_TEST_ESCAPE";

#[test]
fn every_escape_ends_the_process() {
    if let Ok(number) = std::env::var(ESCAPE) {
        return try_to_escape(&number);
    }
    for (number, (what, _)) in ESCAPES.iter().enumerate() {
        assert_eq!(in_a_copy(&number.to_string()).signal(), Some(SIGSYS), "{what}");
    }
    // The harness itself: a copy that tries nothing lives.
    assert_eq!(in_a_copy("nothing").code(), Some(7));
}

fn in_a_copy(number: &str) -> ExitStatus {
    let this = std::env::current_exe().unwrap();
    let words = ["--exact", "every_escape_ends_the_process", "--nocapture", "--test-threads=1"];
    let quiet = || Stdio::null();
    Command::new(this).args(words).env(ESCAPE, number).stdout(quiet()).stderr(quiet()).status().unwrap()
}

fn try_to_escape(number: &str) {
    warren_compile::jail::lock().unwrap();
    if let Some((_, escape)) = number.parse().ok().and_then(|number: usize| ESCAPES.get(number)) {
        escape();
    }
    std::process::exit(7);
}
