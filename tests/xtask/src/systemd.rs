//! This machine's systemd, to be carried into the lab: there it is PID 1 and runs the jailer's real unit.

use crate::shell;
use anyhow::{Result, ensure};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAMS: [&str; 2] = ["/lib/systemd/systemd", "/usr/bin/systemctl"];

/// The programs and the libraries they need, each with its place in the lab.
pub(crate) fn files() -> Result<Vec<(PathBuf, String)>> {
    let mut paths: BTreeSet<String> = BTreeSet::new();
    for program in PROGRAMS {
        ensure!(Path::new(program).is_file(), "{program} is not on this machine");
        paths.insert(program.to_owned());
        paths.extend(libraries(&shell::output(Command::new("ldd").arg(program))?));
    }
    Ok(paths.into_iter().map(|path| (PathBuf::from(&path), path)).collect())
}

/// The paths in what `ldd` says; the kernel's own object has none.
pub(crate) fn libraries(said: &str) -> impl Iterator<Item = String> {
    said.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn every_path_is_found() {
        let said = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        assert_eq!(libraries(said).collect::<Vec<_>>(), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
    }
}
