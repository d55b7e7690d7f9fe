//! Debian packages, fetched and unpacked into a folder, never installed.

use crate::{BuildError, alone, tool};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// A kernel series of Debian 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// The stock cloud kernel.
    V6_1,
    /// The newer one, of backports or security.
    V6_12,
}

impl Series {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// The series with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|series| series.name() == name)
    }

    /// The name as typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The present package of the series.
    pub fn newest_package(self) -> Result<String, BuildError> {
        match self {
            // The meta package names the present one.
            Self::V6_1 => {
                let said = tool::run(tool::command("apt-cache").args(["depends", "linux-image-cloud-amd64"]));
                let text = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
                let found =
                    text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-6.1"));
                let rest = found.ok_or_else(|| self.unknown("run `apt-get update`; it is in Debian 12"))?;
                Ok(format!("linux-image-6.1{rest}"))
            }
            Self::V6_12 => {
                let pattern = "linux-image-6.12.*cloud-amd64-unsigned";
                let said = tool::run(tool::command("apt-cache").args(["search", "--names-only", pattern]))?;
                let text = String::from_utf8_lossy(&said).into_owned();
                let names = text.lines().filter_map(|line| line.split_whitespace().next());
                let newest = names.max_by_key(|name| numbers(name)).map(str::to_owned);
                newest.ok_or_else(|| {
                    self.unknown("enable bookworm-backports or bookworm-security and `apt-get update`")
                })
            }
        }
    }

    fn unknown(self, fix: &'static str) -> BuildError {
        BuildError::NoPackage { what: format!("{} cloud kernel", self.name()), fix }
    }
}

/// Downloads packages and unpacks them below `root`, which is made if need be. A folder with the mark `complete` is left as
/// it is; a broken download leaves no mark. Whoever comes while another does this waits for that.
pub fn unpack(root: &Path, packages: &[&str]) -> Result<(), BuildError> {
    complete(root, &packages.join("\n"), || {
        // apt fetches as a user of its own where it can; this folder may be closed to it, which is only worth a warning.
        tool::run(tool::command("apt-get").arg("download").args(packages).current_dir(root))?;
        for package in files_ending(root, "deb")? {
            tool::run(tool::command("dpkg-deb").arg("-x").arg(&package).arg(root))?;
            fs::remove_file(&package).map_err(BuildError::io(format!("remove {}", package.display())))?;
        }
        Ok(())
    })
}

/// Fills a folder once, whoever else wants it at the same time: the others wait, and find it filled.
fn complete(
    root: &Path,
    mark: &str,
    fill: impl FnOnce() -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let failed = || BuildError::io(format!("prepare {}", root.display()));
    let _alone = alone::at(root)?;
    let marked = root.join("complete");
    if marked.exists() {
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(root).map_err(failed())?;
    }
    fs::create_dir_all(root).map_err(failed())?;
    fill()?;
    fs::write(&marked, mark).map_err(failed())
}

/// The files of a folder whose names end so; all, for an empty extension.
pub fn files_ending(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, BuildError> {
    let failed = || BuildError::io(format!("read {}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if extension.is_empty() || path.extension().and_then(OsStr::to_str) == Some(extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The numbers in a name, for ordering.
#[must_use]
pub fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicU32, Ordering},
        },
        thread,
    };

    #[test]
    fn who_comes_at_once_fills_it_once() {
        let scratch = tempfile::tempdir().unwrap();
        let (root, fills, begin) = (scratch.path().join("6.1"), AtomicU32::new(0), Barrier::new(8));
        let fill = |fails: bool| {
            complete(&root, "mark", || {
                fills.fetch_add(1, Ordering::SeqCst);
                fs::write(root.join("part"), "half").unwrap();
                thread::yield_now();
                assert_eq!(fs::read_to_string(root.join("part")).unwrap(), "half");
                if fails { Err(BuildError::malformed(&root, "no such package")) } else { Ok(()) }
            })
        };
        // One that fails leaves no mark: the next begins again.
        assert!(fill(true).is_err() && !root.join("complete").exists());
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begin.wait();
                    fill(false).unwrap();
                    assert!(root.join("complete").exists());
                });
            }
        });
        assert_eq!(fills.into_inner(), 2);
    }

    #[test]
    fn the_newest_package_is_by_number_not_by_letter() {
        let names = [
            "linux-image-6.12.9+deb12-cloud",
            "linux-image-6.12.117+deb12-cloud",
            "linux-image-6.12.43+deb12-cloud",
        ];
        assert_eq!(names.iter().max_by_key(|name| numbers(name)), Some(&names[1]));
        assert_eq!(Series::from_name("6.12"), Some(Series::V6_12));
        assert_eq!(Series::from_name("6"), None);
    }
}
