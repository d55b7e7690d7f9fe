//! `warren`: everything a person types.
//!
//! - Tables for people, `--json` for programs; colour and progress only on a terminal, and never with `NO_COLOR`.
//! - An error prints what happened, whose fault it is, and what to do next; the exit code says which kind
//!   ([`report::EXIT_CODES`]).
//! - It talks to Warren through the public gRPC API only. `warren up` additionally starts and watches processes.
#![forbid(unsafe_code)]
// They panic where nothing can be written: `screen` has what does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod charts;
mod cli;
mod commands;
mod demo;
mod host;
mod report;
mod screen;
mod shape;
mod up;

use clap::Parser as _;
use std::process::ExitCode;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let json = cli.json;
    match cli::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report::show(&failure, json),
    }
}
