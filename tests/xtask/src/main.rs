//! The developer's one command: `cargo xtask help`.
//!
//! It prepares a machine, builds, starts, tests and checks. It holds no logic of Warren itself; it needs nothing but
//! a Rust tool chain and a C compiler, and is built for the host before any other target is installed.
#![forbid(unsafe_code)]

mod build;
mod check;
mod fuzz;
mod guests;
mod jail;
mod lanes;
mod link;
mod linux;
mod names;
mod network;
mod paths;
mod prepare;
mod programs;
mod runtimes;
mod setup;
mod shell;
mod sizes;
mod suites;
mod systemd;
mod tally;
mod up;
mod zip;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Warren's developer command.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    after_help = "\
Examples:
  cargo xtask up --demo          build, start Warren here, deploy the demo functions and leave it running
  cargo xtask up --demo --once   the same, then stop; exit code 0 if every answer was right
  cargo xtask test               every test this machine can run
  cargo xtask check              what CI runs first: format, lints, docs, licences, file sizes"
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need (rustup targets, Debian packages); skips what is there.
    Setup(setup::Options),
    /// Build everything into target/warren.
    Build(build::Options),
    /// Build, then run `warren up` on this machine.
    Up(up::Options),
    /// Run every test: units, guest, policies, end-to-end suites, lab host.
    Test(suites::Options),
    /// Format, lints, documentation, dependency rules, file sizes.
    Check(check::Options),
    /// Run the full form of one suite.
    #[command(
        after_help = "Examples:\n  cargo xtask soak warm\n  cargo xtask soak linux\n  cargo xtask soak linux network\n  \
                      cargo xtask soak jail\n  cargo xtask soak jail 'hostile processes'\n  cargo xtask soak all"
    )]
    Soak {
        /// Suite name; `cargo xtask soak list` prints them.
        name: String,
        /// Of `linux` and `jail` only the parts whose names begin so.
        #[arg(default_value = "")]
        part: String,
    },
    /// Run a benchmark with its floors.
    #[command(
        after_help = "Examples:\n  cargo xtask bench invoke-warm\n  cargo xtask bench policy -- --json\n  \
                      cargo xtask bench vm-warm --host lab"
    )]
    Bench {
        /// Benchmark name; `cargo xtask bench list` prints them.
        name: String,
        /// Which host: this machine, or the lab host (vm-cold, vm-restore, vm-warm in virtual time; shares of fairness).
        #[arg(long, value_parser = ["local", "lab"], default_value = "local")]
        host: String,
        /// Passed on to the benchmark.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Fuzz what reads outside bytes, guided by coverage.
    Fuzz(fuzz::Options),
    /// Boot the lab host (a whole machine in QEMU) and run a command in it.
    #[command(after_help = "Examples:\n  cargo xtask lab -- --help")]
    Lab {
        /// Passed on to the lab.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Setup(options) => setup::task(&options),
        Task::Build(options) => build::run(&options),
        Task::Up(options) => up::run(&options),
        Task::Test(options) => suites::run(&options),
        Task::Check(options) => check::run(&options),
        Task::Soak { name, part } => suites::soak(&name, &part),
        Task::Bench { name, host, rest } if host == "lab" => suites::bench_in_lab(&name, &rest),
        Task::Bench { name, rest, .. } => suites::bench(&name, &rest),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Lab { rest } => suites::lab(&rest),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
