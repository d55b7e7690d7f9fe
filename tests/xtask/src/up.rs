//! `up`: build, then become `warren up`.

use crate::{build, paths, prepare, shell};
use anyhow::{Context, Result};
use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

/// Options of `up`.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  cargo xtask up                 start Warren here; Ctrl-C stops it
  cargo xtask up --demo --once   deploy and invoke the demo functions, print where the time went, stop")]
pub(crate) struct Options {
    /// Deploy and invoke the demo functions.
    #[arg(long)]
    demo: bool,
    /// Stop after the demo; exit code 0 if everything was right.
    #[arg(long)]
    once: bool,
    /// Where Warren keeps its state.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the API listens.
    #[arg(long)]
    listen: Option<String>,
    /// More for `warren up`, after `--`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds and executes; returns only on failure.
pub(crate) fn run(options: &Options) -> Result<()> {
    build::run(&build::Options::default())?;
    prepare::require(&[], prepare::Programs::Built)?;
    let data = options.data.clone().or_else(|| default_data(options.once));
    let mut command = Command::new(paths::program("warren"));
    command.arg("up");
    if let Some(data) = &data {
        command.arg("--data").arg(data);
    }
    if options.demo {
        command.arg("--demo").arg("--functions").arg(paths::collected().join("functions"));
        command.arg("--samples").arg(paths::root().join("tests/functions/data"));
    }
    if let (true, Some(data)) = (options.once, &data) {
        // Beside a Warren that may already run here.
        command.args(["--once", "--listen", "127.0.0.1:0", "--config"]).arg(data.join("client.toml"));
    }
    if let Some(listen) = &options.listen {
        command.arg("--listen").arg(listen);
    }
    command.args(&options.rest);
    if let (true, None, Some(data)) = (options.once, &options.data, &data) {
        let status = command.status().context("cannot start warren")?;
        std::fs::remove_dir_all(data).with_context(|| format!("remove {}", data.display()))?;
        anyhow::ensure!(status.success(), "warren up ended with {status}");
        return Ok(());
    }
    Err(command.exec()).context("cannot start warren")
}

/// Root's: beside the build when other users can reach it (control and agent run under users of their own), else
/// elsewhere. Anybody else's stays in the home directory, unless it is only for once.
fn default_data(once: bool) -> Option<PathBuf> {
    let name = if once { format!("once-{}", std::process::id()) } else { "data".to_owned() };
    let beside = paths::collected();
    if !shell::is_root() {
        return once.then(|| beside.join(name));
    }
    if !reachable(&beside) {
        return Some(PathBuf::from("/var/tmp/warren-dev").join(name));
    }
    Some(beside.join(name))
}

fn reachable(path: &Path) -> bool {
    path.ancestors().all(|dir| dir.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}
