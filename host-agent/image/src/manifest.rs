//! What is written beside an image: enough to check it, to say what is in it, and to know whether it must be made again.

use crate::BuildError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fs, path::Path};

/// The file's name.
pub const FILE: &str = "manifest.json";
/// Most bytes of one.
const MAX_BYTES: u64 = 1 << 20;

/// A root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeManifest {
    /// Its name.
    pub name: String,
    /// blake3 of the image, hex: what a function's version is pinned to.
    pub digest: String,
    /// Bytes of the image.
    pub bytes: u64,
    /// The kind of file system.
    pub file_system: FileSystem,
    /// blake3 of all it was made from; empty for one that was brought along.
    pub inputs: String,
    /// Debian packages in it, `name version`.
    pub packages: Vec<String>,
    /// Packages of other registries in it, `name version`.
    pub extra: Vec<String>,
    /// Modules that a kernel must have, built in or loadable.
    pub kernel_needs: Vec<String>,
}

/// A kernel with its initrd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelManifest {
    /// Its name.
    pub name: String,
    /// The Debian package it is from.
    pub package: String,
    /// The file to boot.
    pub image: String,
    /// blake3 of that file, hex.
    pub image_digest: String,
    /// blake3 of the initrd, hex.
    pub initrd_digest: String,
    /// The modules in the initrd.
    pub modules: Vec<String>,
    /// Of those a guest needs, what the kernel has built in.
    pub builtin: Vec<String>,
}

/// A file system that the guest's kernel mounts as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// EROFS.
    Erofs,
}

impl FileSystem {
    /// As the kernel calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Erofs => "erofs",
        }
    }

    /// By the magic number at its place; raw images only, nothing is guessed.
    #[must_use]
    pub fn of_image(head: &[u8]) -> Option<Self> {
        let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
        if has(1024, &[0xE2, 0xE1, 0xF5, 0xE0]) {
            return Some(Self::Erofs);
        }
        has(1024 + 56, &[0x53, 0xEF]).then_some(Self::Ext4)
    }
}

impl KernelManifest {
    /// Whether a guest with it has this module.
    #[must_use]
    pub fn has(&self, module: &str) -> bool {
        let same = |name: &String| name.replace('-', "_") == module.replace('-', "_");
        self.modules.iter().any(same) || self.builtin.iter().any(same)
    }
}

/// Reads the manifest of a folder.
pub fn read<T: DeserializeOwned>(folder: &Path) -> Result<T, BuildError> {
    let path = folder.join(FILE);
    let failed = || BuildError::io(format!("read {}", path.display()));
    if fs::metadata(&path).map_err(failed())?.len() > MAX_BYTES {
        return Err(BuildError::malformed(path, "too large for a manifest"));
    }
    let bytes = fs::read(&path).map_err(failed())?;
    serde_json::from_slice(&bytes).map_err(|error| BuildError::malformed(path, error.to_string()))
}

/// Writes the manifest of a folder.
pub fn write<T: Serialize>(folder: &Path, manifest: &T) -> Result<(), BuildError> {
    let path = folder.join(FILE);
    let mut text = serde_json::to_vec_pretty(manifest)
        .map_err(|error| BuildError::malformed(&path, error.to_string()))?;
    text.push(b'\n');
    fs::write(&path, text).map_err(BuildError::io(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_by_their_magic() {
        let mut head = vec![0; 4096];
        assert_eq!(FileSystem::of_image(&head), None);
        head[1080..1082].copy_from_slice(&[0x53, 0xEF]);
        assert_eq!(FileSystem::of_image(&head), Some(FileSystem::Ext4));
        head[1024..1028].copy_from_slice(&[0xE2, 0xE1, 0xF5, 0xE0]);
        assert_eq!(FileSystem::of_image(&head), Some(FileSystem::Erofs));
        assert_eq!(FileSystem::of_image(&head[..1025]), None);
    }
}
