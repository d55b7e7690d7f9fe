//! `warren-jailer`: the only privileged process. It plans jails, applies them, and cleans up after them.
//!
//! - `plan` prints, without privilege, what would be done: part one by the jailer, part two by the jailed program.
//! - `serve` does it, on request of one user, over one socket.
//!
//! Principles: the plan is data and is walked as it is; every phase undoes itself; the cgroup hierarchy is the
//! record of what lives; the jailer confines itself before it takes the first request; it trusts a request no
//! further than its types.

mod cgroup;
mod child;
mod confine;
mod folder;
mod jails;
mod network;
mod plan_command;
mod probe;
mod programs;
mod ready;
mod serve;
mod slots;
mod spawn;
mod steps;
mod sys;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "warren-jailer", version, about = "Plans jails, applies them, cleans up after them")]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve spawn requests of the agent (root).
    ///
    /// SIGTERM and SIGINT end every jail and remove all that was made; SIGHUP exits and leaves the jails running for
    /// the next jailer, as does a crash.
    Serve(serve::Options),
    /// Print what a jail is made of; needs no privilege.
    Plan(plan_command::Options),
    /// Print what there is of the sandboxes' network on this host, as JSON (root).
    Network(serve::start::NetworkOptions),
}

fn main() -> ExitCode {
    let result = match Command::parse().action {
        Action::Serve(options) => serve::serve(&options),
        Action::Plan(options) => plan_command::print(&options),
        Action::Network(options) => serve::start::print_network(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren-jailer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
