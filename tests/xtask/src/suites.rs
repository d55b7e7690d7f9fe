//! `test`, `soak`, `bench`, `lab`.

use crate::{
    build, check, fuzz, guests, jail,
    lanes::{self, Part},
    link, linux, network, paths, prepare,
    programs::{self, TestProgram},
    runtimes, setup, shell, systemd,
    tally::Tally,
};
use anyhow::{Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// Options of `test`.
#[derive(clap::Args, Clone, Default)]
#[command(after_help = "\
Examples:
  cargo xtask test             everything this machine can run
  cargo xtask test --only e2e  one part: unit, guest, fuzz, e2e, lab
  cargo xtask test --only lab --named runtimes
                               what of the lab's part has this in its name
  cargo xtask test --check     `cargo xtask check` first")]
pub(crate) struct Options {
    /// Run `check` first.
    #[arg(long)]
    check: bool,
    /// Only this part.
    #[arg(long, value_parser = ["unit", "guest", "fuzz", "e2e", "lab"])]
    only: Option<String>,
    /// With `--only lab`: those with this in their names.
    #[arg(long, requires = "only", default_value = "")]
    named: String,
}

/// Runs every part and sums up; parts go on after a failure, so that one run tells all.
pub(crate) fn run(options: &Options) -> Result<()> {
    let begin = Instant::now();
    // Who is not root builds first, so that everything root has to do is one line.
    let packages = setup::run(&setup::Options::default())?;
    if options.check {
        check::run(&check::Options::default())?;
    }
    build::run(&build::Options::default())?;
    prepare::require(&packages, prepare::Programs::Built)?;
    let wanted = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    if wanted("unit") {
        prepare::require_kvm()?;
    }
    let mut tally = Tally::default();
    let root = paths::root();
    let programs = programs::build()?;
    if wanted("unit") {
        let (can, cannot): (Vec<_>, Vec<_>) = programs
            .iter()
            .filter(|program| !program.is_suite())
            .partition(|program| shell::is_root() || !program.needs_root());
        tally.programs("unit tests", can.into_iter());
        for program in cannot {
            tally.skipped += 1;
            println!("warren-skipped: {}: needs root; the lab host runs the jail's", program.label());
        }
        own(&mut tally, &root);
    }
    if wanted("guest") {
        guest(&mut tally, &root);
    }
    if wanted("fuzz") {
        fuzz_targets(&mut tally);
    }
    if wanted("e2e") {
        end_to_end(&mut tally, &programs);
    }
    if wanted("lab") {
        lab_host(&mut tally, &root, &programs, &options.named);
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

/// This command's own. For the host, as it was itself built: everything below it is there, and its tests are one crate more.
fn own(tally: &mut Tally, root: &Path) {
    let mut command = shell::cargo(root);
    command.args(["test", "--locked", "--package", "xtask", "--target", "host-tuple"]);
    tally.part("unit tests of xtask", &mut command);
}

fn guest(tally: &mut Tally, root: &Path) {
    let directory = root.join("vmm/guest");
    if directory.join("Cargo.toml").exists() {
        let mut command = shell::cargo(&directory);
        command.args(["test", "--locked", "-p", "warren-wasi", "--target", paths::MUSL, "--no-fail-fast"]);
        tally.part("guest tests", &mut command);
    }
}

/// Seconds of each target: what is known stays mended, and a new way in shows at once.
fn fuzz_targets(tally: &mut Tally) {
    println!("==> fuzz targets");
    match fuzz::every(fuzz::QUICK) {
        Ok((passed, failed)) => {
            tally.passed += passed;
            tally.failed += failed;
            if failed > 0 {
                tally.broken.push("fuzz targets".into());
            }
        }
        Err(error) => tally.fail(format!("fuzz targets: {error:#}")),
    }
}

/// The suites over a real `warren up`. They say themselves how many cases need /dev/kvm and are skipped without it.
fn end_to_end(tally: &mut Tally, programs: &[TestProgram]) {
    let before = tally.passed;
    tally.programs("end-to-end suites (local KVM)", programs.iter().filter(|program| program.is_suite()));
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
fn lab_host(tally: &mut Tally, root: &Path, programs: &[TestProgram], named: &str) {
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
    let mut parts = vec![part("lab::demo", lab_command(&carries, demo))];
    // A machine prepared for a real account, then everything without root; lab::demo above is root's way.
    let mut prepared = carries.clone();
    let cases = root.join("tests/lab/cases");
    prepared.push((cases.join("prepared.sh"), "/opt/tests/prepared.sh".to_owned()));
    match systemd::files() {
        Ok(files) => {
            prepared.extend(files);
            prepared.push((cases.join("systemd-init.sh"), "/lab/init".to_owned()));
        }
        Err(why) => println!("    without systemd in lab::prepared, the jailer is started by hand: {why:#}"),
    }
    parts.push(part("lab::prepared", lab_command(&prepared, "sh /opt/tests/prepared.sh")));
    let suites = [
        ("jailer/jailer", &["jail", "hostile", "life"][..], ""),
        ("tests/escape", &["escape"], "WARREN_VMM=/opt/warren/bin/warren-vmm "),
        (
            "vmm/monitor",
            &["contract", "hostile_guest", "hostile_agent", "seal", "snapshots", "reset", "real_guest"],
            "WARREN_VMM=/opt/warren/bin/warren-vmm WARREN_COMPILE=/opt/warren/bin/warren-compile \
             WARREN_GUEST_IMAGE=/opt/warren/bin/warren-guest ",
        ),
    ];
    for (place, tests, environment) in suites {
        for test in tests {
            let name = format!("lab::{place}::{test}");
            let is = |p: &&TestProgram| p.beside && p.place() == Path::new(place) && p.name == *test;
            let Some(program) = programs.iter().find(is) else {
                tally.fail(format!("{name}: there is no such test program"));
                continue;
            };
            let mut carries = carries.clone();
            // The jailer's tests look for the programs they start beside themselves.
            for started in ["warren-jailer", "jail-probe", "warren-escape"] {
                carries.push((paths::built(started), format!("/opt/tests/{started}")));
            }
            carries.push((program.file.clone(), format!("/opt/tests/{test}")));
            let command = format!("cd /opt/tests && {environment}./{test}");
            // Its neighbour is a VM: the host's first and last make its kernel patch itself.
            let on_installed_emulator = place == "tests/escape";
            parts.push(Part { on_installed_emulator, ..part(&name, lab_command(&carries, &command)) });
        }
    }
    // The longest of all, and so the first.
    let guests: [(&str, linux::Maker<'_>); 6] = [
        ("lab::vmm/monitor::linux", &|| guests::monitor(programs, "").map(Some)),
        ("lab::vmm/init::guest", &|| guests::supervisor(programs, "").map(Some)),
        ("lab::linux-functions", &|| runtimes::lives(root, false)),
        ("lab::runtimes", &|| runtimes::every(root, programs, false)),
        ("lab::linux-network", &|| network::lab(root, "6.1", false)),
        ("lab::tests/hostile-guest", &|| guests::hostile(programs, "").map(Some)),
    ];
    let mut first = Vec::new();
    for (name, make) in guests.into_iter().filter(|(name, _)| name.contains(named)) {
        match make() {
            Ok(Some(command)) => first.push(Part { on_installed_emulator: true, ..part(name, command) }),
            Ok(None) => tally.skipped += 1,
            Err(error) => tally.fail(format!("{name}: {error:#}")),
        }
    }
    first.extend(parts.into_iter().filter(|part| part.name.contains(named)));
    if first.is_empty() {
        tally.fail(format!("no part of the lab's has {named:?} in its name"));
    }
    for ended in lanes::run("lab host", first) {
        tally.case(ended);
    }
}

fn part(name: &str, command: Command) -> Part {
    Part { name: name.to_owned(), command, on_installed_emulator: false }
}

fn lab_command(carries: &[(PathBuf, String)], words: &str) -> Command {
    lab_with(&[], carries, words)
}

fn lab_with(flags: &[&str], carries: &[(PathBuf, String)], words: &str) -> Command {
    let mut command = Command::new(paths::built("warren-lab"));
    command.args(["--limit", "900"]).args(flags);
    for (from, to) in carries {
        command.arg("--carry").arg(format!("{}={to}", from.display()));
    }
    command.args(["--", words]);
    command
}

/// The full form of one suite; of `linux` and `jail`, the parts whose names begin with `part`.
pub(crate) fn soak(name: &str, part: &str) -> Result<()> {
    build::run(&build::Options::default())?;
    let programs = programs::build()?;
    let suites: Vec<_> = programs.iter().filter(|program| program.has_full_form()).collect();
    if name == "list" {
        for suite in &suites {
            println!("{}", suite.name);
        }
        println!("linux\njail\nfuzz");
        return Ok(());
    }
    if name == "fuzz" || name == "all" {
        let (passed, failed) = fuzz::every(fuzz::FULL)?;
        println!("==> soak fuzz: {passed} targets found nothing, {failed} did");
        if failed > 0 {
            bail!("{failed} fuzz targets have findings");
        }
        if name == "fuzz" {
            return Ok(());
        }
    }
    if name == "linux" || name == "all" {
        linux::soak(&programs, part)?;
        if name == "linux" {
            return Ok(());
        }
    }
    if name == "jail" || name == "all" {
        jail::soak(&programs, part)?;
        if name == "jail" {
            return Ok(());
        }
    }
    let wanted: Vec<_> = suites.iter().filter(|suite| name == "all" || suite.name == name).collect();
    if wanted.is_empty() {
        bail!("there is no suite {name}; `cargo xtask soak list` names them");
    }
    wanted.iter().try_for_each(|suite| {
        shell::step(&format!("soak {}", suite.name), suite.command().env("WARREN_SOAK", "1"))
    })
}

/// One benchmark.
pub(crate) fn bench(name: &str, rest: &[String]) -> Result<()> {
    if !paths::root().join("tests/bench/Cargo.toml").exists() {
        bail!("there is no benchmark crate in this checkout (tests/bench)");
    }
    build::run(&build::Options::default())?;
    let mut command = match name {
        // Beside the engine, whose private parts it measures.
        "policy" => {
            let mut example = shell::cargo(&paths::root());
            example.args([
                "build",
                "--locked",
                "--workspace",
                "--exclude",
                "xtask",
                "--example",
                "policy_bench",
            ]);
            shell::step("policy_bench", &mut example)?;
            Command::new(paths::built("examples/policy_bench"))
        }
        // Needs a KVM that boots stock kernels, and time that other processes do not stretch.
        "linux-boot" | "linux-restore" | "vsock" | "block" | "net" => {
            let mut lab = Command::new(paths::built("warren-lab"));
            lab.args(["--guests", "--virtual-time", "--memory-mib", "2048", "--limit", "1200"]);
            for program in ["warren-vmm", "warren-bench", "warren-init", "guest-probe"] {
                lab.arg("--carry").arg(format!("{}=/bench/{program}", paths::built(program).display()));
            }
            let runs = match name {
                "vsock" => 200,
                "linux-restore" => 3,
                _ => 1,
            };
            // debugfs: where KVM counts exits.
            let words = format!(
                "mount -t debugfs debugfs /sys/kernel/debug; \
                 /bench/warren-bench --host lab --runs {runs} --bin /bench --guests /guest {name}"
            );
            lab.args(["--", &words]);
            lab
        }
        "snapshot-link" => link::bench()?,
        name => {
            let mut command = Command::new(paths::built("warren-bench"));
            command.arg(name);
            command
        }
    };
    command.args(rest);
    shell::step(&format!("bench {name}"), &mut command)
}

/// One benchmark on the lab host, in virtual time: one instruction is one nanosecond, so that the same build gives the
/// same figures however busy this machine is.
pub(crate) fn bench_in_lab(name: &str, rest: &[String]) -> Result<()> {
    if name == "fairness" {
        return fairness_in_lab(rest);
    }
    if !name.starts_with("vm-") {
        bail!("{name} runs on this machine only: without --host lab");
    }
    build::run(&build::Options::default())?;
    let mut carries = vec![(paths::built("warren-bench"), "/opt/warren/bin/warren-bench".to_owned())];
    for program in
        ["bin/warren-guest", "bin/warren-compile", "functions/hello.wasm", "functions/hello-component.wasm"]
    {
        carries.push((paths::collected().join(program), format!("/opt/warren/{program}")));
    }
    let words = format!("warren-bench {name} --host lab --runs 200 {}", rest.join(" "));
    let mut command = lab_with(&["--virtual-time", "--memory-mib", "2048"], &carries, &words);
    shell::step(&format!("bench {name} on the lab host"), &mut command)
}

/// Of a whole Warren on one processor and under cgroup v2: who gets how much of it. In time as it goes by: what counts is what each had
/// of the processor, not how fast it is.
fn fairness_in_lab(rest: &[String]) -> Result<()> {
    build::run(&build::Options::default())?;
    let mut carries = vec![(paths::built("warren-bench"), "/opt/warren/bin/warren-bench".to_owned())];
    for part in ["bin", "policies", "functions"] {
        carries.push((paths::collected().join(part), format!("/opt/warren/{part}")));
    }
    let words = format!("/opt/warren/bin/warren-bench fairness --host lab --runs 0 {}", rest.join(" "));
    shell::step("bench fairness on the lab host", &mut lab_command(&carries, &words))
}

/// The lab host.
pub(crate) fn lab(rest: &[String]) -> Result<()> {
    setup::task(&setup::Options::default())?;
    build::run(&build::Options::default())?;
    shell::step("lab", Command::new(paths::built("warren-lab")).args(rest))
}
