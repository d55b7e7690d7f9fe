//! `fuzz`: coverage-guided fuzzing of everything that reads outside bytes (`tests/fuzz`).
//!
//! What a run learns is kept below `tests/fuzz/target`, so that the next one goes on from there; what every run starts from is
//! `tests/fuzz/seeds`, small, and holds each input that once was a finding.

use crate::{paths, shell};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Seconds a target gets: in `test`, and in `soak fuzz`.
pub(crate) const QUICK: u64 = 2;
pub(crate) const FULL: u64 = 900;
/// An input that takes longer is a finding, seconds.
const PATIENCE: u64 = 10;
/// A target that needs more is a finding, MiB.
const MEMORY_MIB: u64 = 1024;

/// Options of `fuzz`.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                          every target for ten seconds
  cargo xtask fuzz kernel zip --seconds 600
  cargo xtask fuzz zip --input FILE         one input again, with a backtrace
  cargo xtask fuzz --list")]
pub(crate) struct Options {
    /// Which; all of them if none is named.
    targets: Vec<String>,
    /// How long each.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Run this input and nothing else.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Name the targets.
    #[arg(long)]
    list: bool,
}

/// The `fuzz` task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = build()?;
    let known = targets(&program)?;
    if options.list {
        for name in known {
            println!("{name}");
        }
        return Ok(());
    }
    if let Some(stranger) = options.targets.iter().find(|name| !known.contains(name)) {
        bail!("there is no target {stranger}; there are {}", known.join(", "));
    }
    let wanted = if options.targets.is_empty() { known } else { options.targets.clone() };
    match (&options.input, wanted.as_slice()) {
        (None, wanted) => match all(&program, wanted, options.seconds) {
            0 => Ok(()),
            failed => bail!("{failed} targets have findings"),
        },
        (Some(input), [target]) => {
            let mut command = Command::new(&program);
            command.env("WARREN_FUZZ_TARGET", target).env("RUST_BACKTRACE", "1").arg(input);
            shell::step(&format!("{target} with {}", input.display()), &mut command)
        }
        (Some(_), _) => bail!("--input is for one target: cargo xtask fuzz TARGET --input FILE"),
    }
}

/// Every target for so long; how many passed and failed.
pub(crate) fn every(seconds: u64) -> Result<(u64, u64)> {
    let program = build()?;
    let names = targets(&program)?;
    let failed = all(&program, &names, seconds);
    Ok(((names.len() as u64).saturating_sub(failed), failed))
}

fn folder() -> PathBuf {
    paths::root().join("tests/fuzz")
}

fn build() -> Result<PathBuf> {
    shell::step("fuzz targets", shell::cargo(&folder()).args(["build", "--locked"]))?;
    Ok(folder().join("target/x86_64-unknown-linux-gnu/debug/warren-fuzz"))
}

fn targets(program: &Path) -> Result<Vec<String>> {
    let list = shell::output(Command::new(program).env("WARREN_FUZZ_TARGET", "list"))?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// As many at once as there are cores; how many have findings.
fn all(program: &Path, names: &[String], seconds: u64) -> u64 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut failed = 0;
    for group in names.chunks(cores) {
        let results: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> =
                group.iter().map(|name| scope.spawn(move || one(program, name, seconds))).collect();
            running.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for (name, result) in group.iter().zip(results) {
            match result.unwrap_or_else(|_| bail!("its thread panicked")) {
                Ok(said) => println!("    fuzz {name}: {said}"),
                Err(error) => {
                    failed += 1;
                    eprintln!("    FAILED fuzz {name}: {error:#}");
                }
            }
        }
    }
    failed
}

/// One target; what it did in a line.
fn one(program: &Path, name: &str, seconds: u64) -> Result<String> {
    let kept = folder().join("target/corpus").join(name);
    let findings = folder().join("target/findings");
    let log = findings.join(format!("{name}.log"));
    for folder in [&kept, &findings] {
        fs::create_dir_all(folder)?;
    }
    let mut command = Command::new(program);
    command.env("WARREN_FUZZ_TARGET", name).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={PATIENCE}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.arg(format!("-artifact_prefix={}/{name}-", findings.display()));
    command.arg("-print_final_stats=1").arg(&kept);
    let seeds = folder().join("seeds").join(name);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let out = fs::File::create(&log)?;
    let status = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    let said = fs::read_to_string(&log).unwrap_or_else(|_| "a log that is no text".into());
    if !status.success() {
        let input = said.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, at)| at));
        let again = input.map_or_else(String::new, |at| {
            format!(
                "\nagain: cargo xtask fuzz {name} --input {at}\nmended: move it to tests/fuzz/seeds/{name}/"
            )
        });
        let why = |line: &&str| line.contains("panicked at") || line.contains("ERROR: libFuzzer");
        let from = said.lines().position(|line| why(&line)).unwrap_or_default();
        let lines: Vec<_> = said.lines().skip(from).take(4).collect();
        bail!("{status}\n{}\nall of it: {}{again}", lines.join("\n"), log.display());
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs: u64 =
        runs.and_then(|text| text.trim().parse().ok()).context("it does not say how much it ran")?;
    let edges =
        said.lines().rev().find_map(|line| Some(line.split_once("cov: ")?.1.split(' ').next()?.to_owned()));
    let time = shell::short(Duration::from_secs(seconds));
    Ok(format!("{runs} inputs, {} edges, nothing found in {time}", edges.unwrap_or_default()))
}
