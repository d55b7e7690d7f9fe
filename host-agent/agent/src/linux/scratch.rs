//! A sandbox's scratch disk: an empty file system, in a file without a name.
//!
//! Nothing can be left behind of it: when the VMM and this agent let go of the descriptor, by whatever end, it is gone.

use super::offer::LinuxError;
use crate::memfd::SealedFile;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::{fs, fs::File, io::Read as _, os::unix::fs::FileExt as _, path::Path};
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

/// Makes one that holds what another held: [`Sparse`]'s bytes of it. Blocks.
pub fn copy(disk: &SealedFile, folder: &Path) -> Result<File, LinuxError> {
    let mut bytes = Vec::new();
    disk.reader().read_to_end(&mut bytes).map_err(LinuxError::io("read a snapshot's disk"))?;
    let damaged = |_| LinuxError::Damaged { what: "a snapshot's disk".to_owned() };
    written(&Sparse::parse(&bytes).map_err(damaged)?, folder)
}

fn written(sparse: &Sparse, folder: &Path) -> Result<File, LinuxError> {
    let failed = || LinuxError::io(format!("make a scratch disk in {}", folder.display()));
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR).map_err(std::io::Error::from);
    let file = File::from(file.map_err(failed())?);
    file.set_len(sparse.len()).map_err(failed())?;
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
        // A copy of it is another file with the same in it.
        let kept = SealedFile::new("disk", &Sparse::of_file(&file).unwrap().to_bytes()).unwrap();
        file.write_all_at(b"later", 1024).unwrap();
        let other = copy(&kept, &folder).unwrap();
        other.read_exact_at(&mut back, 1024).unwrap();
        assert_eq!((&back, other.metadata().unwrap().len()), (b"superblock", 1024 << 20));
        let none = SealedFile::new("disk", b"WSPARSE1").unwrap();
        assert!(matches!(copy(&none, &folder), Err(LinuxError::Damaged { .. })));
        // The next size is not on the shelf.
        assert!(matches!(make(&shelf, &folder, 800), Err(LinuxError::Io { .. })));
    }
}
