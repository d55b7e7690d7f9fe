//! Kernel modules: where one lies, what it needs first, in which order they load.

use crate::{BuildError, tool};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// What a guest of ours needs, as far as its kernel has it as modules: transport, disks, entropy, network, vsock, file
/// systems.
pub const GUEST: [&str; 7] = [
    "virtio_mmio",
    "virtio_blk",
    "virtio-rng",
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "overlay",
    "erofs",
];
/// Those of them that a kernel may lack: a guest without such a device does without.
pub const OPTIONAL: [&str; 1] = ["virtio_net"];
/// Of devices that functions do not have: memory that comes and goes.
pub const MEMORY: [&str; 2] = ["virtio_balloon", "virtio_mem"];

/// The modules of one kernel by name, `-` and `_` being the same.
#[derive(Debug)]
pub struct Tree {
    files: HashMap<String, PathBuf>,
    builtin: Vec<String>,
}

/// One module, unpacked.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name, `_` for `-`.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Tree {
    /// Reads `lib/modules` of an unpacked package.
    pub fn read(root: &Path) -> Result<Self, BuildError> {
        let mut tree = Self { files: HashMap::new(), builtin: Vec::new() };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let failed = || BuildError::io(format!("read {}", folder.display()));
            for entry in fs::read_dir(&folder).map_err(failed())? {
                let path = entry.map_err(failed())?.path();
                let Some(file) = path.file_name().and_then(OsStr::to_str) else { continue };
                if let Some((name, "ko" | "ko.xz" | "ko.zst")) = file.split_once('.') {
                    // An unpacked one beside its packed self is the same; the packed one is taken, the archive's own.
                    tree.files.insert(plain(name), path);
                } else if file == "modules.builtin" {
                    let text = fs::read_to_string(&path).map_err(failed())?;
                    let names = text.lines().filter_map(|line| Path::new(line).file_stem()?.to_str());
                    tree.builtin.extend(names.map(plain));
                } else if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                }
            }
        }
        Ok(tree)
    }

    /// A module's bytes, unpacked; `None` if the kernel has none of this name.
    pub fn load(&self, name: &str) -> Result<Option<Module>, BuildError> {
        let name = plain(name);
        let Some(path) = self.files.get(&name) else { return Ok(None) };
        let unpack = |tool: &str| tool::run(tool::command(tool).arg("-dc").arg(path));
        let bytes = match path.extension().and_then(OsStr::to_str) {
            Some("xz") => unpack("xz")?,
            Some("zst") => unpack("zstd")?,
            _ => fs::read(path).map_err(BuildError::io(format!("read {}", path.display())))?,
        };
        Ok(Some(Module { name, bytes }))
    }

    /// Whether the kernel has it built in.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&plain(name))
    }

    /// These modules and all they need, each after what it needs. Names that are neither modules nor built in come back too.
    pub fn closure(&self, names: &[&str]) -> Result<(Vec<Module>, Vec<String>), BuildError> {
        let (mut order, mut lacking): (Vec<Module>, Vec<String>) = (Vec::new(), Vec::new());
        // What is still to be looked at; a module comes a second time, loaded, behind what it needs.
        let mut waiting: Vec<(String, Option<Module>)> =
            names.iter().rev().map(|name| (plain(name), None)).collect();
        while let Some((name, loaded)) = waiting.pop() {
            if order.iter().any(|done| done.name == name) {
                continue;
            }
            if let Some(module) = loaded {
                order.push(module);
                continue;
            }
            // A circle would never end; there is none among modules that load.
            let open = waiting.iter().any(|(other, loaded)| *other == name && loaded.is_some());
            match self.load(&name)? {
                Some(module) if !open => {
                    let needs = needs(&module.bytes);
                    waiting.push((name, Some(module)));
                    waiting.extend(needs.into_iter().rev().map(|need| (need, None)));
                }
                Some(_) => {}
                None if self.is_builtin(&name) => {}
                None => lacking.push(name),
            }
        }
        Ok((order, lacking))
    }
}

/// What a module says it needs: `depends=` in its section `.modinfo`, strings that end in zero bytes.
fn needs(module: &[u8]) -> Vec<String> {
    let strings = module.split(|byte| *byte == 0);
    let depends = strings.filter_map(|string| string.strip_prefix(b"depends="));
    let names = depends.flat_map(|list| list.split(|byte| *byte == b','));
    names.filter(|name| !name.is_empty()).map(|name| plain(&String::from_utf8_lossy(name))).collect()
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(modules: &[(&str, &str)], builtin: &str) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("6.1/kernel");
        fs::create_dir_all(&folder).unwrap();
        for (name, needs) in modules {
            let bytes = format!("\x7fELF\0license=GPL\0depends={needs}\0name=x\0");
            fs::write(folder.join(format!("{name}.ko")), bytes).unwrap();
        }
        fs::write(dir.path().join("6.1/modules.builtin"), builtin).unwrap();
        let tree = Tree::read(dir.path()).unwrap();
        (dir, tree)
    }

    fn check(modules: &[(&str, &str)], wanted: &[&str], order: &[&str], lacking: &[&str]) {
        let (_dir, tree) = tree(modules, "kernel/fs/ext4.ko\nkernel/lib/crc-16.ko\n");
        let (found, missing) = tree.closure(wanted).unwrap();
        let names: Vec<_> = found.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(
            (names.as_slice(), missing),
            (order, lacking.iter().map(|s| (*s).to_owned()).collect()),
            "{wanted:?}"
        );
    }

    #[test]
    fn each_after_what_it_needs() {
        let modules =
            [("ring", ""), ("virtio", "ring"), ("virtio-blk", "virtio,ring"), ("a", "b"), ("b", "a")];
        check(&modules, &["virtio_blk"], &["ring", "virtio", "virtio_blk"], &[]);
        check(&modules, &["virtio-blk", "ring"], &["ring", "virtio", "virtio_blk"], &[]);
        check(&modules, &["ext4", "crc_16", "gone"], &[], &["gone"]);
        check(&modules, &["a"], &["b", "a"], &[]);
    }
}
