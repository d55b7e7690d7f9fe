//! Tests of Linux guests on the lab host: what they carry, and how they are called.

use crate::{paths, programs::TestProgram, shell};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Before every command that starts guests in the lab: a halted guest's CPU is given back at once. KVM would look for up to
/// 200 us first whether something wakes it, a loop of PAUSE, and to software emulation one PAUSE is as dear as a thousand
/// other instructions. (Benches leave it as it is: their peers' figures were measured so.)
pub(crate) const NO_POLLING: &str = "echo 0 > /sys/module/kvm/parameters/halt_poll_ns && ";

/// What takes long has an emulator that delivers an interrupt once. (Benches have the one that is installed, as their peers had.)
const MENDED: &str = "--emulator=mended";
/// How the lab runs what takes long in virtual time.
pub(crate) const IN_VIRTUAL_TIME: [&str; 2] = ["--virtual-time", MENDED];

/// The monitor's Linux guests: stock kernels on the lab host.
pub(crate) fn monitor(programs: &[TestProgram], environment: &str) -> Result<Command> {
    let is = |p: &&TestProgram| p.beside && p.place() == Path::new("vmm/monitor") && p.name == "linux";
    let program = programs.iter().find(is).context("there is no such test program")?;
    let mut command = Command::new(paths::built("warren-lab"));
    // The full form boots two dozen guests more.
    let limit = if environment.is_empty() { "900" } else { "3600" };
    command.args(["--limit", limit, "--guests"]);
    if !environment.is_empty() {
        command.arg(MENDED);
    }
    for (from, to) in [
        (paths::built("warren-vmm"), "warren-vmm"),
        (paths::built("warren-init"), "warren-init"),
        (paths::built("warren-pager"), "warren-pager"),
        (paths::built("guest-probe"), "guest-probe"),
        (program.file.clone(), "linux"),
    ] {
        command.arg("--carry").arg(format!("{}=/opt/tests/{to}", from.display()));
    }
    command.arg("--").arg(format!(
        "{NO_POLLING}cd /opt/tests && WARREN_GUESTS=/guest WARREN_INIT=/opt/tests/warren-init \
         WARREN_PROBE=/opt/tests/guest-probe WARREN_PAGER=/opt/tests/warren-pager \
         WARREN_VMM=/opt/tests/warren-vmm {environment}./linux --test-threads=1"
    ));
    Ok(command)
}

/// Hostile guests, with the module that a card needs: a share of the cases, or what `environment` says.
pub(crate) fn hostile(programs: &[TestProgram], environment: &str) -> Result<Command> {
    let is = |p: &&TestProgram| p.beside && p.place() == Path::new("tests/hostile-guest");
    let program = programs.iter().find(is).context("there is no such test program")?;
    let mut command = Command::new(paths::built("warren-lab"));
    let (limit, form) =
        if environment.is_empty() { ("900", "WARREN_SHARE=8 ") } else { ("3600", environment) };
    command.args(["--limit", limit, "--guests"]);
    if !environment.is_empty() {
        command.arg(MENDED);
    }
    for (from, to) in [
        (paths::built("warren-vmm"), "warren-vmm"),
        (paths::built("warren-jailer"), "warren-jailer"),
        (program.file.clone(), "hostile-guest"),
    ] {
        command.arg("--carry").arg(format!("{}=/opt/tests/{to}", from.display()));
    }
    command.arg("--").arg(format!(
        "{NO_POLLING}cd /opt/tests && WARREN_VMM=/opt/tests/warren-vmm {form}\
         ./hostile-guest --test-threads=1 --nocapture"
    ));
    Ok(command)
}

/// `warren-init` as the supervisor of a function, in stock guests.
pub(crate) fn supervisor(programs: &[TestProgram], environment: &str) -> Result<Command> {
    let is = |p: &&TestProgram| p.beside && p.place() == Path::new("vmm/init") && p.name == "guest";
    let program = programs.iter().find(is).context("there is no such test program")?;
    let fixtures = fixtures(&["extension"])?;
    let mut command = Command::new(paths::built("warren-lab"));
    // In virtual time limits are exact; it takes minutes more and is the full form's. In time as it goes by they are at least kept.
    let virtual_time = if environment.is_empty() {
        ""
    } else {
        command.args(IN_VIRTUAL_TIME);
        "WARREN_VIRTUAL_TIME=1 "
    };
    let limit = if environment.is_empty() { "900" } else { "3600" };
    command.args(["--limit", limit, "--guests", "--memory-mib", "2048"]);
    for (from, to) in [
        (paths::built("warren-vmm"), "warren-vmm"),
        (paths::built("warren-init"), "warren-init"),
        (program.file.clone(), "guest"),
        (fixtures.join("bootstrap"), "fixtures/bootstrap"),
        (fixtures.join("root.ext4"), "fixtures/root.ext4"),
        (fixtures.join("scratch.ext4"), "fixtures/scratch.ext4"),
    ] {
        command.arg("--carry").arg(format!("{}=/opt/tests/{to}", from.display()));
    }
    command.arg("--").arg(format!(
        "{NO_POLLING}cd /opt/tests && WARREN_GUESTS=/guest WARREN_FIXTURES=/opt/tests/fixtures \
         WARREN_INIT=/opt/tests/warren-init WARREN_VMM=/opt/tests/warren-vmm \
         {virtual_time}{environment}./guest --test-threads=1"
    ));
    Ok(command)
}

/// The function, a root file system with extensions of these names, and an empty scratch disk.
pub(crate) fn fixtures(extensions: &[&str]) -> Result<PathBuf> {
    let source = paths::root().join("vmm/init/tests/functions");
    shell::step("functions of guests", shell::cargo(&source).args(["build", "--locked"]))?;
    let built = source.join("target").join(paths::MUSL).join("debug");
    let out = paths::target().join("guest-fixtures").join(extensions.join("-"));
    let tree = out.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for folder in ["dev", "proc", "sys", "tmp", "run", "etc", "opt/extensions"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    for name in extensions {
        fs::copy(built.join("extension"), tree.join("opt/extensions").join(name))?;
    }
    fs::copy(built.join("bootstrap"), out.join("bootstrap"))?;
    make(&out.join("root.ext4"), &["-d".as_ref(), tree.as_os_str()], "32M")?;
    make(&out.join("scratch.ext4"), &["-m".as_ref(), "0".as_ref()], "96M")?;
    Ok(out)
}

fn make(image: &Path, arguments: &[&std::ffi::OsStr], size: &str) -> Result<()> {
    if image.exists() {
        fs::remove_file(image)?;
    }
    let program = shell::which("mke2fs").unwrap_or_else(|| "/usr/sbin/mke2fs".into());
    let mut command = Command::new(program);
    command.args(["-q", "-t", "ext4", "-O", "^has_journal"]).args(arguments).arg(image).arg(size);
    shell::output(&mut command).map(drop)
}
