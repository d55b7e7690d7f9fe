//! `check`: what CI runs before tests, cheapest first.

use crate::{names, paths, setup, shell, sizes};
use anyhow::{Context, Result, bail};
use std::{path::PathBuf, process::Command, time::Instant};

/// Options of `check`.
#[derive(clap::Args, Clone, Default)]
#[command(
    after_help = "Examples:\n  cargo xtask check\n  cargo xtask check --fast   only what takes seconds"
)]
pub(crate) struct Options {
    /// Only formatting, file sizes, names of tests and dependency rules.
    #[arg(long)]
    pub fast: bool,
    /// Everything but what `--fast` did.
    #[arg(long, conflicts_with = "fast")]
    pub slow: bool,
}

/// Runs every check.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::for_build()?;
    let begin = Instant::now();
    if !options.slow {
        fast()?;
    }
    if !options.fast {
        slow()?;
    }
    println!("==> check: all good, {}", shell::short(begin.elapsed()));
    Ok(())
}

fn fast() -> Result<()> {
    for directory in workspaces() {
        let name = format!("format {}", label(&directory));
        shell::step(&name, shell::cargo(&directory).args(["fmt", "--all", "--check"]))?;
    }
    sizes::report()?;
    names::report()?;
    deny()
}

fn slow() -> Result<()> {
    let root = paths::root();
    shell::step("clippy", lint(&root).args(["--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    for directory in workspaces().into_iter().skip(1) {
        let name = format!("clippy {}", label(&directory));
        shell::step(&name, lint(&directory).args(["--", "-D", "warnings"]))?;
    }
    // No RUSTFLAGS here: documentation has its own, so nothing of the build is invalidated.
    let mut doc = shell::cargo(&root);
    doc.args(["doc", "--locked", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    shell::step("documentation", &mut doc)
}

fn lint(directory: &std::path::Path) -> Command {
    let mut command = shell::cargo(directory);
    command.args(["clippy", "--quiet"]);
    command
}

/// The main workspace and those of their own.
fn workspaces() -> Vec<PathBuf> {
    let root = paths::root();
    let own = ["vmm/guest", "tests/functions", "tests/fuzz"].map(|part| root.join(part));
    std::iter::once(root).chain(own.into_iter().filter(|dir| dir.join("Cargo.toml").exists())).collect()
}

fn label(directory: &std::path::Path) -> String {
    let root = paths::root();
    let part = directory.strip_prefix(&root).unwrap_or(directory);
    if part.as_os_str().is_empty() { "workspace".to_owned() } else { part.display().to_string() }
}

/// Licences, bans and sources without a network; advisories when their database can be had.
fn deny() -> Result<()> {
    if !shell::succeeds("cargo", &["deny", "--version"]) {
        println!("    cargo-deny is missing; installing it once (about 2 minutes)");
        let mut install = shell::cargo(&paths::root());
        // Unoptimised: it runs for a second, and is compiled on every fresh machine.
        install.args(["install", "cargo-deny", "--locked", "--quiet", "--debug"]);
        shell::step("install cargo-deny", &mut install)
            .context("cargo-deny is needed for the licence check")?;
    }
    let root = paths::root();
    // The rules are read from every crate of the lock file, also those of targets nobody builds here.
    shell::output(shell::cargo(&root).args(["fetch", "--locked", "--quiet"]))?;
    let mut offline = shell::cargo(&root);
    offline.args(["deny", "--offline", "--log-level", "error", "check", "bans", "licenses", "sources"]);
    shell::step("dependency rules", &mut offline)?;
    let mut advisories = shell::cargo(&root);
    advisories.args(["deny", "--log-level", "error", "check", "advisories"]);
    let done = advisories.output().context("cannot start cargo deny")?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() {
        println!("    advisories: none that hold");
    } else if said.contains("failed to fetch")
        || said.contains("failed to acquire")
        || said.contains("unable to")
    {
        println!("    advisories: NOT CHECKED, the database cannot be reached");
    } else {
        eprintln!("{said}");
        bail!("a dependency has an advisory");
    }
    Ok(())
}
