//! Stock Debian kernels, fetched as packages and unpacked (never installed) into a cache directory.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The modules a worker host needs, in loading order.
const HOST_MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];

/// Which kernel the lab host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian 12's stock cloud kernel: Landlock ABI 2.
    V6_1,
    /// Debian 12's newer cloud kernel: Landlock ABI 6.
    V6_12,
}

impl Release {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// The release with this name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "6.1" => Ok(Self::V6_1),
            "6.12" => Ok(Self::V6_12),
            other => bail!("no lab kernel `{other}`: choose 6.1 or 6.12"),
        }
    }

    /// The name as typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// The modules of a worker host, unpacked, in loading order.
    pub modules: Vec<PathBuf>,
    /// A static busybox.
    pub busybox: PathBuf,
    /// All of its modules.
    pub tree: PathBuf,
}

/// Fetches and unpacks what is not in `cache` yet. Safe to repeat; a broken download leaves no finished mark.
pub fn prepare(release: Release, cache: &Path) -> Result<Kernel> {
    let root = cache.join(release.name());
    let mark = root.join("complete");
    if !mark.exists() {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        let image = newest_image_package(release)?;
        println!("lab: fetching {image} and busybox-static (Debian packages, unpacked only)");
        run(Command::new("apt-get").args(["download", &image, "busybox-static"]).current_dir(&root))?;
        for package in files_ending(&root, "deb")? {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root))?;
            fs::remove_file(package)?;
        }
        fs::write(&mark, image)?;
    }
    locate(&root)
}

fn newest_image_package(release: Release) -> Result<String> {
    match release {
        // The meta package names the present one.
        Release::V6_1 => {
            let text = output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
            let found = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-6.1"));
            let rest = found.context("apt knows no 6.1 cloud kernel: run `apt-get update` on Debian 12")?;
            Ok(format!("linux-image-6.1{rest}"))
        }
        Release::V6_12 => {
            let text = output(Command::new("apt-cache").args([
                "search",
                "--names-only",
                "linux-image-6.12.*cloud-amd64-unsigned",
            ]))?;
            let names = text.lines().filter_map(|line| line.split_whitespace().next());
            let newest = names.max_by_key(|name| numbers(name));
            Ok(newest.context("apt knows no 6.12 cloud kernel: enable Debian 12 backports")?.to_owned())
        }
    }
}

/// The numbers in a package name, for ordering.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn locate(root: &Path) -> Result<Kernel> {
    let image = files_ending(&root.join("boot"), "")?
        .into_iter()
        .find(|path| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("vmlinuz")))
        .with_context(|| format!("no vmlinuz under {}", root.display()))?;
    let tree = root.join("lib/modules");
    let modules = HOST_MODULES.iter().map(|name| find_module(&tree, name)).collect::<Result<Vec<_>>>()?;
    Ok(Kernel { image, modules, busybox: root.join("bin/busybox"), tree })
}

/// Finds a module and unpacks it when it is compressed (6.12 ships `.ko.xz`).
pub(crate) fn find_module(tree: &Path, name: &str) -> Result<PathBuf> {
    let plain = format!("{name}.ko");
    let packed = format!("{name}.ko.xz");
    let mut folders = vec![tree.to_owned()];
    let mut compressed = None;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            match path.file_name().and_then(OsStr::to_str) {
                Some(file) if file == plain => return Ok(path),
                Some(file) if file == packed => compressed = Some(path),
                _ if path.is_dir() && !path.is_symlink() => folders.push(path),
                _ => {}
            }
        }
    }
    let packed = compressed.with_context(|| format!("module {name} is not under {}", tree.display()))?;
    run(Command::new("xz").args(["--decompress", "--keep", "--force"]).arg(&packed))?;
    Ok(packed.with_extension(""))
}

pub(crate) fn files_ending(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if extension.is_empty() || path.extension().and_then(OsStr::to_str) == Some(extension) {
            found.push(path);
        }
    }
    Ok(found)
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?} ended with {}", out.status);
    Ok(String::from_utf8(out.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_by_number_not_by_letter() {
        let names = [
            "linux-image-6.12.9+deb12-cloud",
            "linux-image-6.12.117+deb12-cloud",
            "linux-image-6.12.43+deb12-cloud",
        ];
        assert_eq!(names.iter().max_by_key(|name| numbers(name)), Some(&names[1]));
    }
}
