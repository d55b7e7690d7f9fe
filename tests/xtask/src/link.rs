//! The bench `snapshot-link` on the lab host: what it carries, and how it is called.

use crate::{guests, paths, runtimes, shell, systemd};
use anyhow::{Context as _, Result, bail};
use std::{path::PathBuf, process::Command};

/// MiB of the guest, and files of 16 MiB of its application's data.
const FULL: [&str; 2] = ["2048", "12"];

/// The S3 server beyond the link, and its version.
const SERVER: [&str; 2] = ["s3s-fs", "0.14.1"];

/// The server, installed below the target folder where it is not there yet.
fn server() -> Result<PathBuf> {
    let [name, version] = SERVER;
    let root = paths::target().join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.exists() {
        let mut install = shell::cargo(&paths::root());
        install.args(["install", name, "--version", version, "--features", "binary", "--locked", "--quiet"]);
        // For every program here; it has no libraries to carry then.
        install.args(["--target", paths::MUSL, "--root"]).arg(&root);
        shell::step(&format!("install {name} {version}, an S3 server (two minutes)"), &mut install)?;
    }
    Ok(program)
}

/// Its command.
pub(crate) fn bench() -> Result<Command> {
    if !shell::is_root() {
        bail!("snapshot-link needs root: it makes a runtime's root file system");
    }
    let Some(mut carries) = runtimes::carries(&["debian-python"])? else {
        bail!("no runtimes can be made here")
    };
    carries.retain(|(_, to)| to.starts_with("/guests"));
    for program in ["warren-vmm", "warren-bench"] {
        carries.push((paths::built(program), format!("/bench/{program}")));
    }
    carries.push((server()?, "/bench/s3s-fs".to_owned()));
    // iproute2's: busybox has no netem.
    let tc = shell::which("tc").unwrap_or_else(|| "/usr/sbin/tc".into());
    let said = shell::output(Command::new("ldd").arg(&tc)).context("snapshot-link needs tc (iproute2)")?;
    carries.push((tc, "/usr/sbin/tc".to_owned()));
    carries.extend(systemd::libraries(&said).map(|path| (PathBuf::from(&path), path)));
    let case = paths::root().join("tests/lab/cases/snapshot-link.sh");
    carries.push((case, "/opt/tests/snapshot-link.sh".to_owned()));
    let mut command = Command::new(paths::built("warren-lab"));
    command.args(guests::IN_VIRTUAL_TIME);
    command.args(["--network", "--memory-mib=6144", "--limit=3600"]);
    for (from, to) in carries {
        command.arg("--carry").arg(format!("{}={to}", from.display()));
    }
    let words = format!("{}sh /opt/tests/snapshot-link.sh {}", guests::NO_POLLING, FULL.join(" "));
    command.args(["--", &words]);
    Ok(command)
}
