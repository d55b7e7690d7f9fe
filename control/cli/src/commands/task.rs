//! A function's own files, as the archive that Warren shows under /var/task.

use super::payload;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use warren_client::{Failure, Outcome};

/// A tar file as it is, or a directory packed: sorted, without times or owners, so that the same files give the same
/// digest everywhere.
pub(crate) fn archive(path: &Path) -> Outcome<Bytes> {
    if !path.is_dir() {
        return payload::file(path);
    }
    pack(path).map(Bytes::from).map_err(|error| Failure::io(format!("cannot pack {}", path.display()), error))
}

fn pack(root: &Path) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        let mut entries: Vec<_> = root.join(&directory).read_dir()?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = directory.join(entry.file_name());
            // Follows links: what a person sees in the directory is what the function gets.
            let kind = std::fs::metadata(entry.path())?;
            let mut header = tar::Header::new_ustar();
            if kind.is_dir() {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                builder.append_data(&mut header, &name, std::io::empty())?;
                waiting.push(name);
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path())?;
                header.set_mode(0o644);
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, &name, bytes.as_slice())?;
            }
        }
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_packs_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/b.txt"), "two").unwrap();
        std::fs::write(dir.path().join("a.txt"), "one").unwrap();
        let first = archive(dir.path()).unwrap();
        assert_eq!(first, archive(dir.path()).unwrap());
        let mut archive = tar::Archive::new(&*first);
        let names: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(names, ["a.txt", "sub", "sub/b.txt"].map(PathBuf::from));
    }
}
