//! `test`, `soak`, `bench`, `lab`.

use crate::{build, check, paths, setup, shell};
use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// Options of `test`.
#[derive(clap::Args, Clone, Default)]
#[command(after_help = "\
Examples:
  cargo xtask test             everything this machine can run
  cargo xtask test --only e2e  one part: unit, guest, e2e, lab
  cargo xtask test --check     `cargo xtask check` first")]
pub(crate) struct Options {
    /// Run `check` first.
    #[arg(long)]
    check: bool,
    /// Only this part.
    #[arg(long, value_parser = ["unit", "guest", "e2e", "lab"])]
    only: Option<String>,
}

/// What the parts counted.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    broken: Vec<String>,
}

/// Runs every part and sums up; parts go on after a failure, so that one run tells all.
pub(crate) fn run(options: &Options) -> Result<()> {
    let begin = Instant::now();
    setup::run(&setup::Options::default())?;
    if options.check {
        check::run(&check::Options::default())?;
    }
    build::run(&build::Options::default())?;
    let wanted = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    let mut tally = Tally::default();
    let root = paths::root();
    if wanted("unit") {
        let mut command = shell::cargo(&root);
        command.args(["test", "--locked", "--workspace", "--exclude", "warren-suites", "--exclude", "xtask"]);
        command.args(["--lib", "--bins", "--tests", "--no-fail-fast"]);
        tally.part("unit tests", &mut command);
        let mut helpers = shell::cargo(&root);
        helpers.args(["test", "--locked", "-p", "warren-suites", "--lib"]);
        tally.part("unit tests of the suites' own helpers", &mut helpers);
    }
    if wanted("guest") {
        guest(&mut tally, &root);
    }
    if wanted("e2e") {
        end_to_end(&mut tally, &root);
    }
    if wanted("lab") {
        lab_host(&mut tally, &root);
    }
    println!(
        "\n{} passed, {} failed, {} skipped, in {}",
        tally.passed,
        tally.failed,
        tally.skipped,
        shell::short(begin.elapsed())
    );
    if tally.failed > 0 || !tally.broken.is_empty() {
        bail!("failed: {}", tally.broken.join(", "));
    }
    Ok(())
}

fn guest(tally: &mut Tally, root: &Path) {
    let directory = root.join("vmm/guest");
    if directory.join("Cargo.toml").exists() {
        let mut command = shell::cargo(&directory);
        command.args(["test", "--locked", "-p", "warren-wasi", "--target", paths::MUSL, "--no-fail-fast"]);
        tally.part("guest tests", &mut command);
    }
}

/// The suites over a real `warren up`. They say themselves how many cases need /dev/kvm and are skipped without it.
fn end_to_end(tally: &mut Tally, root: &Path) {
    let mut command = shell::cargo(root);
    command.args(["test", "--locked", "-p", "warren-suites", "--test", "*", "--no-fail-fast"]);
    let before = tally.passed;
    tally.part("end-to-end suites (local KVM)", &mut command);
    if Path::new("/dev/kvm").exists() {
        if tally.passed == before {
            tally.failed += 1;
            tally.broken.push("/dev/kvm exists, but its suite did not run".into());
        }
    } else {
        println!("    no /dev/kvm: the cases above that say so were skipped");
    }
}

/// The same path on a stock kernel with cgroup v2 and Landlock, and the jail's own tests there. A machine that cannot
/// run the lab host fails: it needs no hardware, so there is no reason to skip it.
fn lab_host(tally: &mut Tally, root: &Path) {
    // Without jq: compiling its 3 MiB takes longer in software emulation than a compilation may.
    let demo = "warren up --data /var/lib/warren --demo --once --functions /opt/warren/functions \
                --samples /src/tests/functions/data --only hello,thumbnail,markdown,fib";
    let carries = vec![
        (paths::collected().join("bin"), "/opt/warren/bin".to_owned()),
        (paths::collected().join("policies"), "/opt/warren/policies".to_owned()),
        (paths::collected().join("functions"), "/opt/warren/functions".to_owned()),
        (root.join("tests/functions/data"), "/src/tests/functions/data".to_owned()),
        (root.join("README.md"), "/src/README.md".to_owned()),
    ];
    tally.case("lab::demo", &mut lab_command(root, &carries, demo));
    let suites = [
        ("warren-jailer", &["jail", "hostile", "life"][..], ""),
        (
            "warren-vmm",
            &["contract", "hostile_guest", "hostile_agent", "seal"],
            "WARREN_VMM=/opt/warren/bin/warren-vmm ",
        ),
    ];
    for (package, tests, environment) in suites {
        for test in tests {
            let name = format!("lab::{package}-{test}");
            match test_program(root, package, test) {
                Ok(program) => {
                    let mut carries = carries.clone();
                    // The jailer's tests look for the programs they start beside themselves.
                    let built = program.parent().and_then(Path::parent).unwrap_or(root);
                    for started in ["warren-jailer", "jail-probe"] {
                        carries.push((built.join(started), format!("/opt/tests/{started}")));
                    }
                    carries.push((program, format!("/opt/tests/{test}")));
                    let command = format!("cd /opt/tests && {environment}./{test}");
                    tally.case(&name, &mut lab_command(root, &carries, &command));
                }
                Err(error) => tally.fail(format!("{name} ({error:#})")),
            }
        }
    }
}

fn lab_command(root: &Path, carries: &[(PathBuf, String)], words: &str) -> Command {
    let mut command = shell::cargo(root);
    command.args(["run", "--quiet", "--locked", "-p", "warren-lab", "--", "--limit", "900"]);
    for (from, to) in carries {
        command.arg("--carry").arg(format!("{}={to}", from.display()));
    }
    command.args(["--", words]);
    command
}

/// Builds one integration test and gives its file.
fn test_program(root: &Path, package: &str, test: &str) -> Result<PathBuf> {
    let mut command = shell::cargo(root);
    command.args([
        "test",
        "--locked",
        "--quiet",
        "-p",
        package,
        "--test",
        test,
        "--no-run",
        "--message-format=json",
    ]);
    let messages = shell::output(&mut command)?;
    let mut program = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let found = message["reason"] == "compiler-artifact" && message["target"]["name"] == test;
        found.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    program.next_back().with_context(|| format!("no test program {package}::{test}"))
}

/// The full form of one suite.
pub(crate) fn soak(name: &str) -> Result<()> {
    build::run(&build::Options::default())?;
    let mut command = shell::cargo(&paths::root());
    command.args(["test", "--locked", "-p", "warren-suites", "--no-fail-fast"]).env("WARREN_SOAK", "1");
    match name {
        "list" => {
            command.args(["--test", "*", "--", "--list"]);
        }
        "all" => {
            command.args(["--test", "*"]);
        }
        one => {
            command.args(["--test", one]);
        }
    }
    shell::step(&format!("soak {name}"), &mut command)
}

/// One benchmark.
pub(crate) fn bench(name: &str, rest: &[String]) -> Result<()> {
    if !paths::root().join("tests/bench/Cargo.toml").exists() {
        bail!("there is no benchmark crate in this checkout (tests/bench)");
    }
    build::run(&build::Options::default())?;
    let mut command = shell::cargo(&paths::root());
    match name {
        // Beside the engine, whose private parts it measures.
        "policy" => command.args([
            "run",
            "--quiet",
            "--locked",
            "-p",
            "warren-policy-engine",
            "--example",
            "policy_bench",
            "--",
        ]),
        name => command.args(["run", "--quiet", "--locked", "-p", "warren-bench", "--", name]),
    };
    command.args(rest);
    shell::step(&format!("bench {name}"), &mut command)
}

/// The lab host.
pub(crate) fn lab(rest: &[String]) -> Result<()> {
    setup::run(&setup::Options::default())?;
    build::run(&build::Options::default())?;
    let mut command = shell::cargo(&paths::root());
    command.args(["run", "--quiet", "--locked", "-p", "warren-lab", "--"]).args(rest);
    shell::step("lab", &mut command)
}

impl Tally {
    /// Runs a test command, shows its output, and counts the `test result:` lines of libtest.
    fn part(&mut self, name: &str, command: &mut Command) {
        println!("==> {name}");
        let begin = Instant::now();
        let before = self.failed;
        match self.count(command) {
            Ok(true) => println!("    {name}: {}", shell::short(begin.elapsed())),
            Ok(false) => {
                self.failed = self.failed.max(before + 1);
                self.broken.push(name.to_owned());
            }
            Err(error) => {
                self.failed += 1;
                self.broken.push(format!("{name} ({error:#})"));
            }
        }
    }

    /// One command that is one case.
    fn case(&mut self, name: &str, command: &mut Command) {
        match shell::step(name, command) {
            Ok(()) => self.passed += 1,
            Err(error) => self.fail(format!("{name} ({error:#})")),
        }
    }

    fn fail(&mut self, what: String) {
        eprintln!("    FAILED {what}");
        self.failed += 1;
        self.broken.push(what);
    }

    fn count(&mut self, command: &mut Command) -> Result<bool> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
        let out = child.stdout.take().context("no output")?;
        for line in BufReader::new(out).lines() {
            let line = line?;
            let quiet = line.starts_with("running 0 tests") || line.ends_with("... ok") || line.is_empty();
            if let Some(counts) = line.strip_prefix("test result: ") {
                self.add(counts);
            } else if line.starts_with("warren-skipped: ") {
                self.skipped += 1;
                println!("{line}");
            } else if !quiet {
                println!("{line}");
            }
        }
        Ok(child.wait()?.success())
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; ...`
    fn add(&mut self, counts: &str) {
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(number), Some(what)) = (words.next(), words.next()) {
                let number = number.parse::<u64>().unwrap_or(0);
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.skipped += number,
                    _ => {}
                }
            }
        }
    }
}
