//! The lab's case of what Linux functions reach: a runtime with curl and a kernel, made in `target/guests`, and how it is called.

use crate::{guests, paths, shell};
use anyhow::{Context as _, Result};
use std::{path::Path, process::Command};

/// The runtime of its functions, and the scratch disk that they have.
const RUNTIME: &str = "debian-base";
const SCRATCH: &str = "scratch/1024.sparse";
const CASE: &str = "linux-network.sh";

/// The case with this kernel in the guests, in its full form if wanted; nothing where the runtime cannot be made.
pub(crate) fn lab(root: &Path, kernel: &str, full: bool) -> Result<Option<Command>> {
    if !shell::is_root() {
        println!("warren-skipped: lab::linux-network: only root can make root file systems");
        return Ok(None);
    }
    let shelf = paths::target().join("guests");
    std::fs::create_dir_all(&shelf).with_context(|| shelf.display().to_string())?;
    for words in [["kernel", kernel], ["build", RUNTIME]] {
        let mut command = Command::new(paths::collected().join("bin/warren"));
        command.arg("runtime").args(words).arg("--guests").arg(&shelf);
        shell::step(&format!("warren runtime {}", words.join(" ")), &mut command)?;
    }
    let mut command = Command::new(paths::built("warren-lab"));
    command.args(["--network", "--limit", if full { "3600" } else { "900" }]);
    if full {
        // Three guests boot at once: whether they do within the product's limits is then the machine's matter, not its load's.
        command.args(guests::IN_VIRTUAL_TIME);
    }
    let mut carry = |from: &Path, to: &str| {
        command.arg("--carry").arg(format!("{}={to}", from.display()));
    };
    for file in ["root.img", "manifest.json"].map(|file| format!("runtimes/{RUNTIME}/{file}")) {
        carry(&shelf.join(&file), &format!("/guests/{file}"));
    }
    for file in ["vmlinux", "initrd", "manifest.json"].map(|file| format!("kernels/{kernel}/{file}")) {
        carry(&shelf.join(&file), &format!("/guests/{file}"));
    }
    carry(&shelf.join(SCRATCH), &format!("/guests/{SCRATCH}"));
    for part in ["bin", "policies"] {
        carry(&paths::collected().join(part), &format!("/opt/warren/{part}"));
    }
    carry(&root.join("tests/functions/linux"), "/functions");
    carry(&root.join("tests/lab/cases").join(CASE), &format!("/opt/tests/{CASE}"));
    let form = if full { "WARREN_SOAK=1 " } else { "" };
    command.arg("--").arg(format!("{}{form}sh /opt/tests/{CASE}", guests::NO_POLLING));
    Ok(Some(command))
}
