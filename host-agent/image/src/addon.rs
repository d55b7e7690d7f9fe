//! A package of the npm registry that compiles code of its own.
//!
//! ```text
//! npm pack -> digests compared -> a tree with compilers and headers -> compiled there, by nobody, without network -> what
//! is run later comes into the image; the tree is removed
//! ```
//! So neither compilers nor the package's sources are in the image, and nothing that a package brings runs as root.

use crate::{BuildError, digest, recipe::Addon, tool};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where packages lie in the tree in which they are compiled: where Node.js looks from one for another.
const BUILD: &str = "build/node_modules";
/// The same in the image.
const MODULES: &str = "var/runtime/node_modules";
/// Who compiles: `nobody`, who owns nothing else there.
const NOBODY: &str = "65534:65534";

/// Compiles it in `builder`, which has its tools, and puts what is kept below `tree`.
pub(crate) fn add(addon: &Addon, builder: &Path, tree: &Path, epoch: u64) -> Result<(), BuildError> {
    let modules = builder.join(BUILD);
    for package in addon.packages {
        let fetched = fetch(builder, &format!("{}@{}", package.name, package.version), package.digest)?;
        let folder = modules.join(package.name);
        fs::create_dir_all(&folder).map_err(BuildError::io(format!("make {}", folder.display())))?;
        let mut tar = tool::command("tar");
        tar.args(["--extract", "--gzip", "--no-same-owner", "--strip-components=1", "--file"]).arg(fetched);
        tool::run(tar.arg("--directory").arg(&folder))?;
    }
    let name = addon.packages.first().map_or("", |package| package.name);
    for (file, text) in addon.sources {
        let path = modules.join(name).join(file);
        fs::write(&path, text).map_err(BuildError::io(format!("write {}", path.display())))?;
    }
    tool::run(tool::command("chown").args(["--recursive", NOBODY]).arg(builder.join("build")))?;
    tool::run(&mut compile(addon, builder, &format!("/{BUILD}/{name}"), epoch))?;
    let target = tree.join(MODULES).join(name);
    fs::create_dir_all(&target).map_err(BuildError::io(format!("make {}", target.display())))?;
    let mut copy = tool::command("cp");
    copy.args(["--recursive", "--no-dereference", "--target-directory"]).arg(target);
    tool::run(copy.args(addon.keep.iter().map(|part| modules.join(name).join(part)))).map(drop)
}

/// One archive, as the registry has it and as the recipe knows it. Nothing of it runs.
fn fetch(builder: &Path, package: &str, wanted: &str) -> Result<PathBuf, BuildError> {
    let mut npm = tool::command("npm");
    npm.args(["pack", "--silent", "--ignore-scripts", "--pack-destination"]).arg(builder);
    let said = tool::run(npm.arg(package))?;
    let name = String::from_utf8_lossy(&said).lines().last().unwrap_or_default().trim().to_owned();
    let file = builder.join(&name);
    if name.contains('/') || !file.is_file() {
        return Err(BuildError::malformed(builder, format!("npm pack {package} left no archive")));
    }
    let found = digest::of_file(&file)?;
    if found != wanted {
        return Err(BuildError::malformed(file, format!("the digest of {package} is {found}, not {wanted}")));
    }
    Ok(file)
}

fn compile(addon: &Addon, builder: &Path, folder: &str, epoch: u64) -> Command {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = tool::command("unshare");
    command.args(["--net", "chroot", &format!("--userspec={NOBODY}")]).arg(builder);
    command.args([
        "/usr/bin/env",
        "--ignore-environment",
        "PATH=/usr/bin:/bin",
        "LC_ALL=C.UTF-8",
        "HOME=/build",
    ]);
    command.arg(format!("SOURCE_DATE_EPOCH={epoch}")).arg(format!("MAKEFLAGS=-j{jobs}"));
    command.args(["/bin/sh", "-euc", &format!("cd {folder}\n{}", addon.script)]);
    command
}
