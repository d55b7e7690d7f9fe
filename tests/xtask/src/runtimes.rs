//! What the lab's cases of Linux functions carry: runtimes and kernel, made once and kept in `target/guests`; programs and
//! functions. And how they are called.

use crate::{guests, paths, programs::TestProgram, shell};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The runtimes that functions of the quick form run on, and of the full one besides: what compiles for minutes.
const QUICK: [&str; 2] = ["debian-base", "debian-python"];
const FULL: [&str; 1] = ["debian-node"];
/// A root file system with two extensions, which is imported.
const EXTENSIONS: &str = "extensions";
/// The scratch disk that the functions have.
const SCRATCH: &str = "scratch/1024.sparse";

/// Linux functions through the whole path: their lives (`linux-functions.sh`), then every runtime through every step (suite
/// `runtimes`). Nothing where their runtimes cannot be made.
///
/// In virtual time: the product's time limits are exact, and nothing waits for them.
pub(crate) fn lab(root: &Path, programs: &[TestProgram], full: bool) -> Result<Option<Command>> {
    if !shell::is_root() {
        println!("warren-skipped: lab::linux-functions: only root can make root file systems");
        return Ok(None);
    }
    let is = |p: &&TestProgram| p.is_suite() && p.name == "runtimes";
    let suite = programs.iter().find(is).context("there is no such test program")?;
    let mut carries = made(full)?;
    for part in ["bin", "policies", "functions/hello.wasm"] {
        carries.push((paths::collected().join(part), format!("/opt/warren/{part}")));
    }
    carries.push((root.join("tests/functions/linux"), "/functions".to_owned()));
    let case = root.join("tests/lab/cases/linux-functions.sh");
    carries.push((case, "/opt/tests/linux-functions.sh".to_owned()));
    carries.push((suite.file.clone(), "/opt/tests/runtimes".to_owned()));
    for folder in ["shell", "python", "node"] {
        carries.push((root.join("vmm/init/tests/functions").join(folder), format!("/matrix/{folder}")));
    }
    let mut command = Command::new(paths::built("warren-lab"));
    // The full form has more to carry, and disks that are full.
    let (limit, memory, soak) = if full { ("3600", "5120", "WARREN_SOAK=1 ") } else { ("900", "3072", "") };
    command.args(["--virtual-time", "--limit", limit, "--memory-mib", memory]);
    for (from, to) in &carries {
        command.arg("--carry").arg(format!("{}={to}", from.display()));
    }
    command.arg("--").arg(format!(
        "sh /opt/tests/linux-functions.sh && cd /opt/tests && \
         WARREN_COLLECTED=/opt/warren WARREN_MATRIX=/matrix {soak}./runtimes"
    ));
    Ok(Some(command))
}

/// Makes what is missing, and says what to carry. Runtimes of the same recipe are kept; the kernel is made each time, for init
/// may be another.
fn made(full: bool) -> Result<Vec<(PathBuf, String)>> {
    let shelf = paths::target().join("guests");
    std::fs::create_dir_all(&shelf).with_context(|| shelf.display().to_string())?;
    let warren = paths::collected().join("bin/warren");
    let make = |words: &[&str]| {
        let mut command = Command::new(&warren);
        command.arg("runtime").args(words).arg("--guests").arg(&shelf);
        shell::step(&format!("warren runtime {}", words.join(" ")), &mut command)
    };
    make(&["kernel"])?;
    let mut runtimes = QUICK.to_vec();
    let mut carries = Vec::new();
    if full {
        let fixtures = guests::fixtures(&["one", "two"])?;
        carries.push((fixtures.join("bootstrap"), "/matrix/rust/bootstrap".to_owned()));
        make(&["import", EXTENSIONS, &fixtures.join("root.ext4").display().to_string()])?;
        runtimes.extend(FULL);
    }
    for name in &runtimes {
        make(&["build", name])?;
    }
    runtimes.extend(full.then_some(EXTENSIONS));
    let runtimes = runtimes
        .iter()
        .flat_map(|name| ["root.img", "manifest.json"].map(|file| format!("runtimes/{name}/{file}")));
    let kernel = ["vmlinux", "initrd", "manifest.json"].map(|file| format!("kernels/6.1/{file}"));
    let files = runtimes.chain(kernel).chain([SCRATCH.to_owned()]);
    carries.extend(files.map(|file| (shelf.join(&file), format!("/guests/{file}"))));
    Ok(carries)
}
