//! The bench `snapshot-link` on the lab host: what it carries, and how it is called.

use crate::{guests, paths, runtimes, shell, systemd};
use anyhow::{Context as _, Result, bail};
use std::{path::PathBuf, process::Command};

/// MiB of the guest, and files of 16 MiB of its application's data.
const FULL: [&str; 2] = ["2048", "12"];

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
