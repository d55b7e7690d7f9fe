//! What the lab's cases of Linux functions carry: runtimes and kernel, made once and kept in `target/guests`; programs and
//! functions. And how they are called.

use crate::{guests, paths, programs::TestProgram, shell, zip};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The runtimes of the full form; the last compiles for minutes.
const FULL: [&str; 3] = ["debian-base", "debian-python", "debian-node"];
/// And of the quick one: what `linux-functions` does not run already.
const QUICK: [&str; 1] = ["debian-python"];
/// A root file system with two extensions, which is imported.
const EXTENSIONS: &str = "extensions";
/// The scratch disk that the functions have.
const SCRATCH: &str = "scratch/1024.sparse";

/// The lives of Linux functions' sandboxes, through the whole path, in the full form in virtual time; nothing where runtimes
/// cannot be made.
pub(crate) fn lives(root: &Path, full: bool) -> Result<Option<Command>> {
    let Some(mut carries) = carries(&["debian-base"])? else { return Ok(None) };
    carries.push((root.join("tests/functions/linux"), "/functions".to_owned()));
    let case = root.join("tests/lab/cases/linux-functions.sh");
    carries.push((case, "/opt/tests/linux-functions.sh".to_owned()));
    let words = "sh /opt/tests/linux-functions.sh";
    Ok(Some(if full {
        let zips = paths::target().join("guest-fixtures/zips");
        zip::largest(&zips, &root.join("tests/functions/linux/weigh/bootstrap"))?;
        carries.push((zips, "/zips".to_owned()));
        // 250 MiB of files are there several times while they are deployed. What a sandbox writes is on a disk, as it would be:
        // in the lab's memory it would be charged to the sandbox.
        let flags =
            [&guests::IN_VIRTUAL_TIME[..], &["--limit=3600", "--memory-mib=6144", "--disk=2560"]].concat();
        lab(&flags, &carries, &format!("WARREN_SOAK=1 {words}"))
    } else {
        // Beside sandboxes and what the pager sets aside there is room for one that is written down.
        lab(&["--limit", "900", "--memory-mib", "4096"], &carries, words)
    }))
}

/// A worker that becomes another processor and back, as far as its Linux functions see.
pub(crate) fn templates(root: &Path) -> Result<Option<Command>> {
    const CASE: &str = "linux-templates.sh";
    let Some(mut carries) = carries(&["debian-base"])? else { return Ok(None) };
    carries.push((root.join("tests/functions/linux"), "/functions".to_owned()));
    carries.push((root.join("tests/lab/cases").join(CASE), format!("/opt/tests/{CASE}")));
    let flags = ["--limit", "900", "--memory-mib", "4096"];
    Ok(Some(lab(&flags, &carries, &format!("sh /opt/tests/{CASE}"))))
}

/// Every runtime through every step: the suite `runtimes`, in virtual time, so that the product's time limits are exact and
/// nothing waits for them. The quick form is Python's main steps, in time as it goes by: virtual time takes minutes.
pub(crate) fn every(root: &Path, programs: &[TestProgram], full: bool) -> Result<Option<Command>> {
    let is = |p: &&TestProgram| p.is_suite() && p.name == "runtimes";
    let suite = programs.iter().find(is).context("there is no such test program")?;
    let names: &[&str] = if full { &FULL } else { &QUICK };
    let Some(mut carries) = carries(names)? else { return Ok(None) };
    if full {
        let fixtures = guests::fixtures(&["one", "two"])?;
        carries.push((fixtures.join("bootstrap"), "/matrix/rust/bootstrap".to_owned()));
        make(&["import", EXTENSIONS, &fixtures.join("root.ext4").display().to_string()])?;
        carries.extend(files_of(EXTENSIONS));
    }
    carries.push((suite.file.clone(), "/opt/tests/runtimes".to_owned()));
    for folder in ["shell", "python", "node"] {
        carries.push((root.join("vmm/init/tests/functions").join(folder), format!("/matrix/{folder}")));
    }
    let words = "cd /opt/tests && WARREN_COLLECTED=/opt/warren WARREN_MATRIX=/matrix";
    let command = if full {
        // More to carry; and scratch disks that are filled, on a disk, as they would be.
        let more = ["--limit=7200", "--memory-mib=6144", "--disk=3072"];
        let flags = [&guests::IN_VIRTUAL_TIME[..], &more].concat();
        lab(&flags, &carries, &format!("{words} WARREN_SOAK=1 ./runtimes"))
    } else {
        lab(&["--limit", "600", "--memory-mib", "3072"], &carries, &format!("{words} ./runtimes python"))
    };
    Ok(Some(command))
}

fn lab(flags: &[&str], carries: &[(PathBuf, String)], words: &str) -> Command {
    let mut command = Command::new(paths::built("warren-lab"));
    command.args(flags);
    for (from, to) in carries {
        command.arg("--carry").arg(format!("{}={to}", from.display()));
    }
    command.arg("--").arg(guests::NO_POLLING.to_owned() + words);
    command
}

fn shelf() -> PathBuf {
    paths::target().join("guests")
}

fn make(words: &[&str]) -> Result<()> {
    let mut command = Command::new(paths::collected().join("bin/warren"));
    command.arg("runtime").args(words).arg("--guests").arg(shelf());
    shell::step(&format!("warren runtime {}", words.join(" ")), &mut command)
}

/// A runtime's files, and where they go.
fn files_of(name: &str) -> [(PathBuf, String); 2] {
    ["root.img", "manifest.json"]
        .map(|file| format!("runtimes/{name}/{file}"))
        .map(|file| (shelf().join(&file), format!("/guests/{file}")))
}

/// Makes what is missing, and says what to carry besides functions. Runtimes of the same recipe are kept; the kernel is made each
/// time, for init may be another.
pub(crate) fn carries(names: &[&str]) -> Result<Option<Vec<(PathBuf, String)>>> {
    if !shell::is_root() {
        println!("warren-skipped: lab: Linux functions: only root can make root file systems");
        return Ok(None);
    }
    std::fs::create_dir_all(shelf()).with_context(|| shelf().display().to_string())?;
    make(&["kernel"])?;
    let mut carries = Vec::new();
    for name in names {
        make(&["build", name])?;
        carries.extend(files_of(name));
    }
    let kernel = ["vmlinux", "initrd", "manifest.json"].map(|file| format!("kernels/6.1/{file}"));
    let files = kernel.into_iter().chain([SCRATCH.to_owned()]);
    carries.extend(files.map(|file| (shelf().join(&file), format!("/guests/{file}"))));
    for part in ["bin", "policies", "functions/hello.wasm"] {
        carries.push((paths::collected().join(part), format!("/opt/warren/{part}")));
    }
    Ok(Some(carries))
}
