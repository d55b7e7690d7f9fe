//! A runtime: a root file system of Debian packages and what makes it a runtime, as one image.
//!
//! ```text
//! mmdebstrap -> packages of other registries -> files of ours -> traces of this machine and moment gone -> ext4 -> shelf
//! ```

use crate::{
    BuildError, Recipe, RuntimeManifest, Shelf, addon, digest, ext4,
    manifest::{self, FileSystem},
    recipe::{EXCLUDED, SUITE},
    tool, wheels,
};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, lchown},
    path::{Path, PathBuf},
    process::Command,
};

/// What mmdebstrap takes over from this machine, what logs of the installation say, and caches that programs make again.
const TRACES: [&str; 12] = [
    "etc/hostname",
    "etc/resolv.conf",
    "etc/machine-id",
    "var/cache",
    "var/log",
    "var/lib/apt",
    "var/lib/dpkg/info",
    "var/lib/dpkg/status-old",
    "var/lib/systemd",
    // What installing took, and conversions between character sets that nobody uses any more.
    "usr/share/perl",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/python3.11/test",
];
/// Folders that a guest mounts over, or where a function's files are.
const FOLDERS: [&str; 8] = ["var/cache", "var/log", "var/runtime", "var/task", "opt", "proc", "sys", "dev"];
/// Bytes of an image's head that tell its file system.
const HEAD: u64 = 2048;

/// Settings of one build.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where packages come from, if not from where mmdebstrap takes them.
    pub mirror: Option<String>,
    /// The time every file is from.
    pub epoch: u64,
    /// Make it again, with what the archive has now, even if the same inputs were used before.
    pub fresh: bool,
}

/// A made runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// What it is.
    pub manifest: RuntimeManifest,
    /// Whether it was there already.
    pub kept: bool,
}

/// Makes a runtime and puts it on the shelf.
pub fn build(
    recipe: &Recipe,
    options: &Options,
    shelf: &Shelf,
    progress: &dyn Fn(&str),
) -> Result<Built, BuildError> {
    let inputs = recipe.inputs(options.mirror.as_deref(), options.epoch);
    if let (false, Ok(there)) = (options.fresh, shelf.runtime(recipe.name))
        && there.manifest.inputs == inputs
        && there.folder.join("root.img").exists()
    {
        return Ok(Built { manifest: there.manifest, kept: true });
    }
    tool::require(&recipe.tools())?;
    if !rustix::process::geteuid().is_root() {
        return Err(BuildError::NotRoot);
    }
    let stage = shelf.stage(recipe.name)?;
    let tree = stage.path().join("tree");
    progress("fetching and unpacking Debian packages");
    tool::run(&mut mmdebstrap(recipe.packages, options, &tree))?;
    let packages = installed(&tree)?;
    if !recipe.wheels.is_empty() {
        progress("adding Python packages");
        wheels::add(recipe.wheels, &tree, options.epoch)?;
    }
    if let Some(addon) = &recipe.addon {
        progress("fetching compilers and headers, in a tree of their own");
        let builder = stage.path().join("builder");
        tool::run(&mut mmdebstrap(addon.tools, options, &builder))?;
        progress("compiling npm packages");
        addon::add(addon, &builder, &tree, options.epoch)?;
        fs::remove_dir_all(&builder).map_err(BuildError::io("remove the tree of compilers"))?;
    }
    if let Some((program, words)) = recipe.proof.split_first() {
        tool::run(tool::command("chroot").arg(&tree).arg(program).args(words))?;
    }
    progress("writing the image");
    finish(recipe, options, &tree)?;
    let image = stage.path().join("root.img");
    ext4::of_tree(&tree, &image, options.epoch)?;
    fs::remove_dir_all(&tree).map_err(BuildError::io("remove the tree"))?;
    let manifest = RuntimeManifest {
        name: recipe.name.to_owned(),
        digest: digest::of_file(&image)?,
        bytes: fs::metadata(&image).map_err(BuildError::io("look at the image"))?.len(),
        file_system: FileSystem::Ext4,
        inputs,
        packages,
        extra: recipe.extra(),
        kernel_needs: needs(FileSystem::Ext4),
    };
    manifest::write(stage.path(), &manifest)?;
    shelf.put_runtime(&stage, &manifest)?;
    Ok(Built { manifest, kept: false })
}

/// Puts an image that somebody made elsewhere on the shelf, under this name.
pub fn import(name: &str, image: &Path, shelf: &Shelf) -> Result<RuntimeManifest, BuildError> {
    let failed = || BuildError::io(format!("read {}", image.display()));
    let mut head = Vec::new();
    File::open(image).map_err(failed())?.take(HEAD).read_to_end(&mut head).map_err(failed())?;
    let file_system = FileSystem::of_image(&head).ok_or_else(|| {
        BuildError::malformed(image, "neither an ext4 nor an EROFS image (raw images only)")
    })?;
    let stage = shelf.stage(name)?;
    let copy = stage.path().join("root.img");
    fs::copy(image, &copy).map_err(failed())?;
    // A disk is read in sectors.
    let file = File::options().write(true).open(&copy).map_err(failed())?;
    let bytes = file.metadata().map_err(failed())?.len().next_multiple_of(512);
    file.set_len(bytes).map_err(failed())?;
    let manifest = RuntimeManifest {
        name: name.to_owned(),
        digest: digest::of_file(&copy)?,
        bytes,
        file_system,
        inputs: String::new(),
        packages: Vec::new(),
        extra: Vec::new(),
        kernel_needs: needs(file_system),
    };
    manifest::write(stage.path(), &manifest)?;
    shelf.put_runtime(&stage, &manifest)?;
    Ok(manifest)
}

fn needs(file_system: FileSystem) -> Vec<String> {
    let common = ["virtio_mmio", "virtio_blk", "vmw_vsock_virtio_transport", "overlay"];
    common.into_iter().chain([file_system.name()]).map(str::to_owned).collect()
}

fn mmdebstrap(packages: &[&str], options: &Options, tree: &Path) -> Command {
    let mut command = tool::command("mmdebstrap");
    command.env("SOURCE_DATE_EPOCH", options.epoch.to_string());
    command.args(["--quiet", "--mode=root", "--variant=essential", "--format=directory"]);
    command.args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=Acquire::Retries \"5\""]);
    command.args(EXCLUDED.map(|pattern| format!("--dpkgopt=path-exclude={pattern}")));
    command.arg("--dpkgopt=path-include=/usr/share/doc/*/copyright");
    // Merged from the start: a package that merges later would bring all of Perl.
    command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr");
    command.arg(format!("--include=usr-is-merged,{}", packages.join(",")));
    command.arg(SUITE).arg(tree).args(&options.mirror);
    command
}

/// What dpkg says is installed.
fn installed(tree: &Path) -> Result<Vec<String>, BuildError> {
    let path = tree.join("var/lib/dpkg/status");
    let text = fs::read_to_string(&path).map_err(BuildError::io(format!("read {}", path.display())))?;
    let (mut name, mut found) = ("", Vec::new());
    for line in text.lines() {
        if let Some(package) = line.strip_prefix("Package: ") {
            name = package;
        } else if let Some(version) = line.strip_prefix("Version: ") {
            found.push(format!("{name} {version}"));
        }
    }
    found.sort();
    Ok(found)
}

/// Our files, then away with what tells this machine and this moment.
fn finish(recipe: &Recipe, options: &Options, tree: &Path) -> Result<(), BuildError> {
    for trace in TRACES {
        let path = tree.join(trace);
        let failed = BuildError::io(format!("remove {}", path.display()));
        match path.symlink_metadata() {
            Ok(about) if about.is_dir() => fs::remove_dir_all(&path).map_err(failed)?,
            Ok(_) => fs::remove_file(&path).map_err(failed)?,
            Err(_) => {}
        }
    }
    for folder in FOLDERS {
        let path = tree.join(folder);
        fs::create_dir_all(&path).map_err(BuildError::io(format!("make {}", path.display())))?;
    }
    for (path, mode, text) in recipe.files {
        let path = tree.join(path);
        let failed = || BuildError::io(format!("write {}", path.display()));
        fs::create_dir_all(path.parent().unwrap_or(tree)).map_err(failed())?;
        fs::write(&path, text).map_err(failed())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).map_err(failed())?;
    }
    // Ids that libraries look for before anything is mounted over it.
    fs::write(tree.join("etc/machine-id"), "").map_err(BuildError::io("write etc/machine-id"))?;
    still(tree, options.epoch).map_err(BuildError::io(format!("set times below {}", tree.display())))
}

/// No file is younger than the epoch; what pip wrote is root's.
fn still(tree: &Path, epoch: u64) -> std::io::Result<()> {
    let seconds = i64::try_from(epoch).unwrap_or(i64::MAX);
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let own = [tree.join("var/runtime"), tree.join("usr/local")];
    let mut folders: Vec<PathBuf> = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let about = path.symlink_metadata()?;
            if about.is_dir() {
                folders.push(path.clone());
            }
            if own.iter().any(|own| path.starts_with(own)) {
                lchown(&path, Some(0), Some(0))?;
            }
            if std::os::unix::fs::MetadataExt::mtime(&about) >= seconds {
                utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
    }
    utimensat(CWD, tree, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_are_imported() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("shelf"));
        let image = dir.path().join("root");
        fs::write(&image, "QFI\u{fb}, a format with a format in it").unwrap();
        assert!(matches!(import("mine", &image, &shelf), Err(BuildError::Malformed { .. })));
        let mut ext4 = vec![0; 4097];
        ext4[1080..1082].copy_from_slice(&[0x53, 0xEF]);
        fs::write(&image, ext4).unwrap();
        let manifest = import("mine", &image, &shelf).unwrap();
        assert_eq!((manifest.bytes, manifest.file_system), (4608, FileSystem::Ext4));
        assert_eq!(shelf.runtime("mine").unwrap().manifest, manifest);
    }

    /// Everything but Debian's archive, which a quick test does not wait for: `tests/runtime.rs` of this crate does.
    #[test]
    fn a_tree_gives_the_same_image_twice() {
        if tool::require(&["mke2fs", "debugfs"]).is_err() || !rustix::process::geteuid().is_root() {
            return;
        }
        let image = |order: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let tree = dir.path().join("tree");
            for name in order {
                let path = tree.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, name.repeat(1000)).unwrap();
            }
            std::os::unix::fs::symlink("a", tree.join("link")).unwrap();
            finish(
                &Recipe::named("debian-python").unwrap(),
                &Options { mirror: None, epoch: 1_700_000_000, fresh: false },
                &tree,
            )
            .unwrap();
            let image = dir.path().join("root.img");
            ext4::of_tree(&tree, &image, 1_700_000_000).unwrap();
            digest::of_file(&image).unwrap()
        };
        assert_eq!(image(&["etc/a", "etc/b", "c"]), image(&["c", "etc/b", "etc/a"]));
    }
}
