//! Loading the modules that the initramfs brings, in the order of their names.

use crate::{Failure, say};
use rustix::io::Errno;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Loads every module of a folder; how many are there now. One that the kernel refuses is named and left out: what
/// needed it will say so.
pub(crate) fn load_all(folder: &Path) -> Result<usize, Failure> {
    let Ok(entries) = folder.read_dir() else {
        return Ok(0);
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut loaded = 0;
    for file in files {
        match load(&file)? {
            Ok(()) | Err(Errno::EXIST) => loaded += 1,
            Err(error) => say!("{}: {error}", file.display()),
        }
    }
    Ok(loaded)
}

fn load(file: &Path) -> Result<Result<(), Errno>, Failure> {
    let opened = File::open(file).map_err(Failure::of(format!("open {}", file.display())))?;
    Ok(rustix::system::finit_module(opened, c"", 0))
}
