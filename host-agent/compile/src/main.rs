//! `warren-compile`: the command line around the library.

mod file;
mod jailed;
mod options;

use clap::Parser as _;
use options::{Cli, Command};
use std::process::ExitCode;

/// Compiling is mostly allocating: musl's own allocator takes longer over it than the code generator over its work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Jailed(target) => jailed::run(target),
        Command::File(options) => file::run(&options),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("warren-compile: {error:#}");
            ExitCode::from(2)
        }
    }
}
