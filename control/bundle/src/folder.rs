//! A folder of the caller's own.

use crate::{BundleError, pack::Pack};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// Packs a folder. Links are followed: what a person sees in it is what the function gets.
pub fn from_folder(root: &Path) -> Result<Vec<u8>, BundleError> {
    let mut pack = Pack::default();
    let mut waiting = vec![String::new()];
    while let Some(folder) = waiting.pop() {
        let here = root.join(&folder);
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| BundleError::Io { path, source }
        };
        for entry in fs::read_dir(&here).map_err(failed(&here))? {
            let entry = entry.map_err(failed(&here))?;
            let path = entry.path();
            let last = entry.file_name();
            let last = last.to_str().ok_or_else(|| BundleError::Name(path.display().to_string()))?;
            let name = if folder.is_empty() { last.to_owned() } else { format!("{folder}/{last}") };
            let about = fs::metadata(&path).map_err(failed(&path))?;
            if about.is_dir() {
                pack.folder(&name)?;
                waiting.push(name);
            } else if about.is_file() {
                if about.len() > pack.left() as u64 {
                    return Err(BundleError::TooLarge);
                }
                let bytes = fs::read(&path).map_err(failed(&path))?;
                pack.file(&name, about.permissions().mode() & 0o111 != 0, bytes)?;
            }
        }
    }
    pack.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_packs_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/b.txt"), "two").unwrap();
        fs::write(dir.path().join("a"), "one").unwrap();
        fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        let first = from_folder(dir.path()).unwrap();
        assert_eq!(first, from_folder(dir.path()).unwrap());
        let mut archive = tar::Archive::new(&*first);
        let entry = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
        };
        let found: Vec<_> = archive.entries().unwrap().map(entry).collect();
        assert_eq!(found, [("sub".into(), 0o755), ("sub/b.txt".into(), 0o644), ("a".into(), 0o755)]);
    }
}
