//! Running other programs: one step, one line, one time.

use crate::paths;
use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A cargo command in a directory, free of what the outer `cargo run` put in the environment: build scripts would
/// otherwise see another environment than in a direct build, and everything below them would be built twice.
pub(crate) fn cargo(directory: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| text.starts_with(p))
            || text == "CARGO"
            || text == "LD_LIBRARY_PATH"
        {
            command.env_remove(name);
        }
    }
    if directory != paths::root() {
        // Guest and functions are workspaces with output directories of their own.
        command.env_remove("CARGO_TARGET_DIR");
    }
    command
}

/// Runs a command to its end with its output shown, and says how long it took.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<()> {
    println!("==> {name}");
    let begin = Instant::now();
    let status =
        command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{name} failed ({status}): {}", words(command));
    }
    println!("    {name}: {}", short(begin.elapsed()));
    Ok(())
}

/// Like [`step`], with each line of its standard output given to `take`.
pub(crate) fn piped(name: &str, command: &mut Command, mut take: impl FnMut(&str)) -> Result<()> {
    println!("==> {name}");
    let begin = Instant::now();
    let program = command.get_program().display().to_string();
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {program}"))?;
    let out = child.stdout.take().context("no output")?;
    for line in BufReader::new(out).lines() {
        take(&line?);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{name} failed ({status}): {}", words(command));
    }
    println!("    {name}: {}", short(begin.elapsed()));
    Ok(())
}

/// Runs a command quietly and gives its standard output; on failure shows everything it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    if !done.status.success() {
        bail!(
            "{} failed ({}):\n{}",
            words(command),
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Whether a command exists and ends well.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = if program == "cargo" { cargo(Path::new(".")) } else { Command::new(program) };
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The first directory of PATH that has this program.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// `1.2 s`, `3 m 20 s`.
pub(crate) fn short(time: Duration) -> String {
    if time.as_secs() < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} m {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

fn words(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(|part| part.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
