//! The folder of runtimes, kernels and scratch disks.

use crate::{
    BuildError, KernelManifest, RuntimeManifest,
    debian::numbers,
    manifest::{self, FILE},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Digits of a digest in the name of an older build.
const SHORT: usize = 16;

/// That folder, and others that are read after it; what is not there is simply empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    root: PathBuf,
    beside: Vec<PathBuf>,
}

/// One thing on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<M> {
    /// Its folder.
    pub folder: PathBuf,
    /// What its manifest says.
    pub manifest: M,
}

/// A place where something is made before it is put on the shelf; gone when dropped.
#[derive(Debug)]
pub struct Stage(PathBuf);

impl Stage {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Shelf {
    /// Where root puts what every user of the machine may run.
    pub const MACHINE: &str = "/var/lib/warren";

    /// At this place.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), beside: Vec::new() }
    }

    /// What is here counts as well, after what it has itself; nothing is written here.
    #[must_use]
    pub fn beside(mut self, other: impl Into<PathBuf>) -> Self {
        let other = other.into();
        if !self.roots().any(|root| root == other) {
            self.beside.push(other);
        }
        self
    }

    /// Every place that is read, its own first.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.root).chain(&self.beside).map(PathBuf::as_path)
    }

    /// The place where things are put.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every runtime whose manifest reads, older builds too, by place and folder name.
    #[must_use]
    pub fn runtimes(&self) -> Vec<Item<RuntimeManifest>> {
        self.roots().flat_map(|root| items(&root.join("runtimes"))).collect()
    }

    /// Every kernel whose manifest reads, the oldest first.
    #[must_use]
    pub fn kernels(&self) -> Vec<Item<KernelManifest>> {
        let mut found: Vec<Item<KernelManifest>> =
            self.roots().flat_map(|root| items(&root.join("kernels"))).collect();
        found.sort_by_key(|kernel| numbers(&kernel.manifest.package));
        found
    }

    /// The present build of a runtime of its own.
    pub fn runtime(&self, name: &str) -> Result<Item<RuntimeManifest>, BuildError> {
        let folder = self.place("runtimes", name)?;
        manifest::read(&folder).map(|manifest| Item { folder, manifest })
    }

    /// A kernel of its own.
    pub fn kernel(&self, name: &str) -> Result<Item<KernelManifest>, BuildError> {
        let folder = self.place("kernels", name)?;
        manifest::read(&folder).map(|manifest| Item { folder, manifest })
    }

    /// An empty scratch disk of this size: where there is one, else where it belongs.
    #[must_use]
    pub fn scratch(&self, mib: u32) -> PathBuf {
        let place = |root: &Path| root.join("scratch").join(format!("{mib}.sparse"));
        self.roots().map(place).find(|path| path.exists()).unwrap_or_else(|| place(&self.root))
    }

    /// Where packages are unpacked and kept.
    #[must_use]
    pub fn packages(&self) -> PathBuf {
        self.root.join(".packages")
    }

    /// Puts a made runtime in its place; another build of this name stays beside it.
    pub fn put_runtime(&self, stage: &Stage, manifest: &RuntimeManifest) -> Result<(), BuildError> {
        self.put("runtimes", &manifest.name, stage, |old: &RuntimeManifest| {
            (old.digest != manifest.digest).then(|| old.digest.chars().take(SHORT).collect())
        })
    }

    /// Puts a made kernel in its place; the old one goes: nothing is pinned to a kernel.
    pub fn put_kernel(&self, stage: &Stage, manifest: &KernelManifest) -> Result<(), BuildError> {
        self.put("kernels", &manifest.name, stage, |_: &KernelManifest| None)
    }

    /// A fresh folder on the same file system.
    pub fn stage(&self, what: &str) -> Result<Stage, BuildError> {
        let path = self.root.join(".making").join(format!("{what}-{}", std::process::id()));
        let failed = || BuildError::io(format!("make {}", path.display()));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(failed())?;
        }
        fs::create_dir_all(&path).map_err(failed())?;
        Ok(Stage(path))
    }

    fn put<M: serde::de::DeserializeOwned>(
        &self,
        kind: &str,
        name: &str,
        stage: &Stage,
        keep_as: impl Fn(&M) -> Option<String>,
    ) -> Result<(), BuildError> {
        let place = self.place(kind, name)?;
        let failed = || BuildError::io(format!("put {}", place.display()));
        // The agent has a user of its own, and nothing in here is secret.
        readable(stage.path()).map_err(failed())?;
        fs::create_dir_all(place.parent().unwrap_or(&place)).map_err(failed())?;
        readable(&self.root.join(kind)).map_err(failed())?;
        if place.exists() {
            let kept = manifest::read::<M>(&place).ok().and_then(|old| keep_as(&old));
            let aside = kept.map(|digest| place.with_file_name(format!("{name}.{digest}")));
            match aside.filter(|aside| !aside.exists()) {
                Some(aside) => fs::rename(&place, aside).map_err(failed())?,
                None => fs::remove_dir_all(&place).map_err(failed())?,
            }
        }
        fs::rename(stage.path(), &place).map_err(failed())
    }

    fn place(&self, kind: &str, name: &str) -> Result<PathBuf, BuildError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=64).contains(&name.len())
            && name.bytes().next().is_some_and(plain)
            && name.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.');
        if fits { Ok(self.root.join(kind).join(name)) } else { Err(BuildError::Name(name.to_owned())) }
    }
}

fn items<M: serde::de::DeserializeOwned>(folder: &Path) -> Vec<Item<M>> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let read = |folder: PathBuf| {
        let manifest = manifest::read(&folder).ok()?;
        Some(Item { folder, manifest })
    };
    folders.into_iter().filter(|folder| folder.join(FILE).exists()).filter_map(read).collect()
}

/// A folder and the files in it: read by everybody, written by the owner.
fn readable(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::FileSystem;

    fn runtime(digest: &str) -> RuntimeManifest {
        RuntimeManifest {
            name: "base".into(),
            digest: digest.into(),
            bytes: 1,
            file_system: FileSystem::Ext4,
            inputs: String::new(),
            packages: Vec::new(),
            extra: Vec::new(),
            kernel_needs: Vec::new(),
        }
    }

    #[test]
    fn an_older_build_stays_beside_the_present_one() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path());
        assert!(shelf.runtimes().is_empty() && shelf.runtime("base").is_err());
        for digest in ["a".repeat(64), "b".repeat(64), "b".repeat(64)] {
            let stage = shelf.stage("base").unwrap();
            manifest::write(stage.path(), &runtime(&digest)).unwrap();
            shelf.put_runtime(&stage, &runtime(&digest)).unwrap();
        }
        assert_eq!(shelf.runtime("base").unwrap().manifest.digest, "b".repeat(64));
        let all = shelf.runtimes();
        let digests: Vec<_> = all.iter().map(|item| item.manifest.digest.chars().next().unwrap()).collect();
        assert_eq!(digests, ['b', 'a']);
    }

    #[test]
    fn what_lies_beside_comes_after_and_is_never_written() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let machine = Shelf::new(other.path());
        let shelf = Shelf::new(own.path()).beside(other.path()).beside(own.path());
        assert_eq!(shelf.roots().collect::<Vec<_>>(), [own.path(), other.path()]);
        for (shelf, digest) in [(&machine, "a"), (&shelf, "b")] {
            let stage = shelf.stage("base").unwrap();
            manifest::write(stage.path(), &runtime(digest)).unwrap();
            shelf.put_runtime(&stage, &runtime(digest)).unwrap();
        }
        let digests = |shelf: &Shelf| -> Vec<String> {
            shelf.runtimes().into_iter().map(|item| item.manifest.digest).collect()
        };
        assert_eq!((digests(&shelf), digests(&machine)), (vec!["b".into(), "a".into()], vec!["a".into()]));
        assert!(shelf.scratch(8).starts_with(own.path()));
        fs::create_dir(other.path().join("scratch")).unwrap();
        fs::write(machine.scratch(8), "").unwrap();
        assert!(shelf.scratch(8).starts_with(other.path()));
    }

    #[test]
    fn names_lead_nowhere_else() {
        let shelf = Shelf::new("/nowhere");
        for bad in ["", "..", "a/b", "-a", "A", ".a", &"a".repeat(65)] {
            assert!(matches!(shelf.runtime(bad), Err(BuildError::Name(_))), "{bad:?}");
        }
    }
}
