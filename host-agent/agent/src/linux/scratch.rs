//! A sandbox's scratch disk: an empty file system, in a file without a name.
//!
//! Nothing can be left behind of it: when the VMM and this agent let go of the descriptor, by whatever end, it is gone.

use super::offer::LinuxError;
use crate::snapshot::{KeptDisk, nameless};
use std::{fs, fs::File, os::unix::fs::FileExt as _, path::Path};
use warren_image::{Shelf, scratch::size_for, sparse::Sparse};

/// Makes one that holds so much; the file lies in `folder`'s file system. Blocks.
pub fn make(shelf: &Shelf, folder: &Path, mib: u32) -> Result<File, LinuxError> {
    let size = size_for(mib).unwrap_or(mib);
    let template = shelf.scratch(size);
    let bytes = fs::read(&template)
        .map_err(LinuxError::io(format!("read {} (`warren runtime kernel` makes it)", template.display())))?;
    let sparse =
        Sparse::parse(&bytes).map_err(|_| LinuxError::Damaged { what: template.display().to_string() })?;
    written(&sparse, folder)
}

/// Makes one that holds what another held: for a guest that is written down itself, so that all of its disk is its own. Blocks.
pub fn copy(disk: &KeptDisk, folder: &Path) -> Result<File, LinuxError> {
    disk.copy(folder)
        .map_err(LinuxError::io(format!("copy a runtime's scratch disk to {}", folder.display())))
}

/// Makes the file of one that lies over a base: as long as that, and nothing in it.
pub fn blank(folder: &Path, bytes: u64) -> Result<File, LinuxError> {
    let failed = || LinuxError::io(format!("make a scratch disk in {}", folder.display()));
    let file = nameless(folder).map_err(failed())?;
    file.set_len(bytes).map_err(failed())?;
    Ok(file)
}

fn written(sparse: &Sparse, folder: &Path) -> Result<File, LinuxError> {
    let failed = || LinuxError::io(format!("make a scratch disk in {}", folder.display()));
    let file = blank(folder, sparse.len())?;
    for (at, run) in sparse.runs() {
        file.write_all_at(run, at).map_err(failed())?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn sparse_nameless_and_of_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("shelf"));
        let whole = tempfile::tempfile().unwrap();
        whole.set_len(1024 << 20).unwrap();
        whole.write_all_at(b"superblock", 1024).unwrap();
        fs::create_dir_all(shelf.scratch(1024).parent().unwrap()).unwrap();
        fs::write(shelf.scratch(1024), Sparse::of_file(&whole).unwrap().to_bytes()).unwrap();
        let folder = dir.path().join("run");
        fs::create_dir(&folder).unwrap();
        let file = make(&shelf, &folder, 100).unwrap();
        let about = file.metadata().unwrap();
        assert_eq!(about.len(), 1024 << 20);
        assert!(about.blocks() < 100, "{} blocks", about.blocks());
        assert_eq!(about.nlink(), 0);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let mut back = [0; 10];
        file.read_exact_at(&mut back, 1024).unwrap();
        assert_eq!(&back, b"superblock");
        // What lies over another has nothing in it.
        let over = blank(&folder, 1024 << 20).unwrap().metadata().unwrap();
        assert_eq!((over.len(), over.blocks(), over.nlink()), (1024 << 20, 0, 0));
        // The next size is not on the shelf.
        assert!(matches!(make(&shelf, &folder, 800), Err(LinuxError::Io { .. })));
    }
}
