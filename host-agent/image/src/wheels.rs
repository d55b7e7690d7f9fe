//! Packages of the Python registry, prebuilt only: nothing of theirs runs on this machine.

use crate::{BuildError, tool};
use std::path::Path;

/// Where Debian's Python looks for packages that are not Debian's.
const FOLDER: &str = "usr/local/lib/python3.11/dist-packages";

/// Adds them to a tree, each with its version.
pub(crate) fn add(wheels: &[&str], tree: &Path, epoch: u64) -> Result<(), BuildError> {
    let target = tree.join(FOLDER);
    let mut pip = tool::command("pip3");
    pip.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
    pip.args([
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--no-cache-dir",
        "--root-user-action=ignore",
    ]);
    pip.args(["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"]);
    pip.args(["--platform=manylinux2014_x86_64", "--platform=manylinux_2_28_x86_64"]);
    pip.arg("--target").arg(&target).args(wheels);
    tool::run(&mut pip)?;
    // Bytecode that is not compared with times: a cold start reads it as it is.
    let mut compile = tool::command("chroot");
    compile.arg(tree).env("PYTHONHASHSEED", "0").env("SOURCE_DATE_EPOCH", epoch.to_string());
    compile.args(["/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]);
    tool::run(compile.arg(format!("/{FOLDER}"))).map(drop)
}
