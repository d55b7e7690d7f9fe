//! The command tree.

use crate::{
    commands::{doctor, functions, invoke, logs, operate, policy, runtime, snapshot},
    host,
    report::EXIT_CODES,
    up,
};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;
use warren_client::{Client, Config, Outcome, default_path};

/// Deploy functions and run them in jailed microVMs on your own machines.
#[derive(Parser)]
#[command(name = "warren", version, arg_required_else_help = true, after_help = format!("\
Examples:
  sudo warren host prepare                        once, so that you can run Warren without sudo
  warren up                                       start Warren on this machine
  warren fn create hello hello.wasm               deploy a function
  warren invoke hello --payload '{{\"name\":\"Ada\"}}'  call it
  warren logs -f hello                            follow its log

{EXIT_CODES}"))]
pub(crate) struct Cli {
    /// JSON instead of tables, and of error messages.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Client configuration [default: ~/.config/warren/client.toml].
    #[arg(long, global = true, env = "WARREN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine; Ctrl-C stops it.
    Up(Box<up::Options>),
    /// Prepare this machine once, to run Warren without root.
    #[command(subcommand)]
    Host(host::Command),
    /// Create, update, list, show and remove functions.
    #[command(subcommand, name = "fn", visible_alias = "function")]
    Functions(functions::Command),
    /// Make what Linux functions run on: root file systems, kernels.
    #[command(subcommand)]
    Runtime(runtime::Command),
    /// Call a function.
    Invoke(Box<invoke::Options>),
    /// Print the log of a function.
    Logs(logs::Options),
    /// List sandboxes.
    Ps(operate::PsOptions),
    /// List worker hosts; take one out of service and back.
    #[command(after_help = "Examples:\n  warren hosts\n  warren hosts --json | jq '.[].free_memory_mib'\n  \
                            warren hosts drain NAME\n  warren hosts undrain NAME")]
    Hosts(operate::HostsOptions),
    /// Look at the snapshots from which cold starts begin; check them, remove them.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Look at placement, packing and routing policies.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Say what works on this machine and how to fix what does not.
    Doctor(doctor::Options),
    /// Sum up the state of the control layer.
    #[command(after_help = "Examples:\n  warren status\n  warren status --json")]
    Status,
    /// Print the completion script of a shell.
    #[command(after_help = "Examples:\n  warren completions bash > /etc/bash_completion.d/warren\n  \
                            warren completions zsh > ~/.zfunc/_warren")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs one command line.
pub(crate) async fn run(cli: Cli) -> Outcome {
    let path = cli.config.unwrap_or_else(default_path);
    let json = cli.json;
    let connect = async || -> Outcome<Client> { Client::connect(&Config::load(&path)?).await };
    match cli.command {
        Command::Up(options) => up::run(&options, &path, json).await,
        Command::Host(command) => host::run(&command, json),
        Command::Functions(command) => functions::run(command, &connect().await?, json).await,
        Command::Runtime(command) => runtime::run(command, json).await,
        Command::Invoke(options) => invoke::run(&options, &connect().await?, json).await,
        Command::Logs(options) => logs::run(options, &connect().await?, json).await,
        Command::Ps(options) => operate::ps(options, &connect().await?, json).await,
        Command::Hosts(options) => operate::hosts(options, &connect().await?, json).await,
        Command::Status => operate::status(&connect().await?, json).await,
        Command::Snapshot(command) => snapshot::run(command, &connect().await?, json).await,
        Command::Policy(command) => policy::run(command, &connect().await?, json).await,
        Command::Doctor(options) => doctor::run(&options, &path, json),
        Command::Completions { shell } => {
            // Not straight to standard output: whoever reads may stop before the end.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "warren", &mut script);
            crate::screen::print(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command a person can type shows at least one example.
    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            if command.has_subcommands() {
                for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
                    check(below, &format!("{path} {}", below.get_name()));
                }
            } else {
                let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(text.contains("Examples:"), "{path} has no example");
            }
        }
        check(&Cli::command(), "warren");
    }
}
