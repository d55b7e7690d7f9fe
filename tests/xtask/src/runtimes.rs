//! What the lab's case of Linux functions carries: runtimes and kernel, made once and kept in `target/guests`; programs and
//! functions.

use crate::{paths, shell};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The runtimes that the lab's case deploys on.
const RUNTIMES: [&str; 2] = ["debian-base", "debian-python"];
/// The scratch disk that its functions have.
const SCRATCH: &str = "scratch/768.sparse";

/// Makes what is missing, and says what to carry into the lab; nothing where only root could make it. Runtimes of the same
/// recipe are kept; the kernel is made each time, for init may be another.
pub(crate) fn carries(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    if !shell::is_root() {
        println!("warren-skipped: lab::linux-functions: only root can make root file systems");
        return Ok(Vec::new());
    }
    let shelf = paths::target().join("guests");
    std::fs::create_dir_all(&shelf).with_context(|| shelf.display().to_string())?;
    let warren = paths::collected().join("bin/warren");
    let make = |words: &[&str]| {
        let mut command = Command::new(&warren);
        command.arg("runtime").args(words).arg("--guests").arg(&shelf);
        shell::step(&format!("warren runtime {}", words.join(" ")), &mut command)
    };
    make(&["kernel"])?;
    for name in RUNTIMES {
        make(&["build", name])?;
    }
    let runtimes = RUNTIMES
        .iter()
        .flat_map(|name| ["root.img", "manifest.json"].map(|file| format!("runtimes/{name}/{file}")));
    let kernel = ["vmlinux", "initrd", "manifest.json"].map(|file| format!("kernels/6.1/{file}"));
    let files = runtimes.chain(kernel).chain([SCRATCH.to_owned()]);
    let mut carries: Vec<_> = files.map(|file| (shelf.join(&file), format!("/guests/{file}"))).collect();
    for part in ["bin", "policies", "functions/hello.wasm"] {
        carries.push((paths::collected().join(part), format!("/opt/warren/{part}")));
    }
    carries.push((root.join("tests/functions/linux"), "/functions".to_owned()));
    let case = root.join("tests/lab/cases/linux-functions.sh");
    carries.push((case, "/opt/tests/linux-functions.sh".to_owned()));
    Ok(carries)
}
