//! The rules of WASI preview 1 as a function sees them: the event names a case, the answer is `ok`, or what was
//! otherwise on the log and exit code 1. The event `list` answers every name, one a line.
//!
//! The cases are named after the programs of the public WASI test suite and try the same rules, in words of their own;
//! `vmm/guest/wasi/CONFORMANCE.md` is the table. Each works in a directory of its own under `/tmp`, which must be empty
//! again at its end.
#![allow(clippy::wildcard_imports, reason = "a case names half of the interface")]
#![allow(clippy::unit_arg, reason = "a case ends with its last step")]

mod abi;
mod files;
mod instance;
mod links;
mod paths;

use abi::{Fd, TMP};
use std::{
    io::{Read as _, stdin},
    process::ExitCode,
};

/// What a case says: nothing, or what was not as the rule has it.
type Verdict = Result<(), String>;
/// A case, given an empty directory.
type Case = (&'static str, fn(Fd) -> Verdict);

/// Ends a case unless both are equal.
#[macro_export]
macro_rules! is {
    ($got:expr, $want:expr) => {{
        let (got, want) = ($got, $want);
        if got != want {
            return Err(format!("{}:{}: {} is {got:?}, not {want:?}", file!(), line!(), stringify!($got)));
        }
    }};
}

/// The value, or the end of the case.
#[macro_export]
macro_rules! get {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(errno) => {
                return Err(format!("{}:{}: {} gives {errno:?}", file!(), line!(), stringify!($result)));
            }
        }
    };
}

fn cases() -> impl Iterator<Item = Case> {
    [instance::CASES, files::CASES, paths::CASES, links::CASES].into_iter().flatten().copied()
}

fn run((name, case): Case) -> Verdict {
    let folder = format!("case-{}", name.replace('/', "-"));
    // There already after a case that ended the instance.
    match abi::create_directory(TMP, &folder) {
        Ok(()) | Err(abi::EXIST) => {}
        Err(errno) => return Err(format!("no folder: {errno:?}")),
    }
    let dir = get!(abi::open(TMP, &folder, abi::DIRECTORY));
    case(dir)?;
    // A case may have given its descriptors away; the folder is removed through the preopen if that is still there.
    let _ = abi::close(dir);
    if abi::filetype(TMP).is_ok() {
        get!(abi::remove_directory(TMP, &folder));
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut event = String::new();
    if stdin().read_to_string(&mut event).is_err() {
        return ExitCode::from(2);
    }
    let wanted = event.trim();
    if wanted == "list" {
        cases().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    match cases().find(|(name, _)| *name == wanted).map(run) {
        // Not `println!`: a case may have moved stdout away, and put it back.
        Some(Ok(())) => match abi::write(1, &[b"ok"]) {
            Ok(_) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Some(Err(what)) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("no case is called {wanted:?}");
            ExitCode::from(2)
        }
    }
}
