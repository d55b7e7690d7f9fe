//! Empty scratch disks: an ext4 file system with nothing in it, of a few sizes, kept without its holes (60 to 170 KiB).
//!
//! What a guest's programs may write is its first process's to limit, to the MiB; the disk has room for that, for the
//! function's files, and for the file system's own books.

use crate::{BuildError, ext4, shelf::Shelf, sparse::Sparse};
use std::fs::{self, File};

/// The sizes, MiB.
pub const SIZES_MIB: [u32; 5] = [1024, 1536, 2560, 4608, 11_008];
/// Room for the function's files, MiB.
const FILES_MIB: u32 = 272;

/// The size of a disk for programs that may write so much.
#[must_use]
pub fn size_for(mib: u32) -> Option<u32> {
    // A 32nd part for the books.
    let needed = mib.checked_add(mib / 32)?.checked_add(FILES_MIB)?;
    SIZES_MIB.into_iter().find(|size| *size >= needed)
}

/// Makes the disks that are not there yet; says how many it made.
pub fn build(shelf: &Shelf, epoch: u64) -> Result<usize, BuildError> {
    let mut made = 0;
    for mib in SIZES_MIB {
        let path = shelf.scratch(mib);
        if path.exists() {
            continue;
        }
        let stage = shelf.stage(&format!("scratch-{mib}"))?;
        let image = stage.path().join("empty");
        ext4::empty(&image, mib, epoch)?;
        let failed = || BuildError::io(format!("make {}", path.display()));
        let file = File::open(&image).map_err(failed())?;
        let sparse = Sparse::of_file(&file).map_err(failed())?;
        let fresh = stage.path().join("sparse");
        fs::write(&fresh, sparse.to_bytes()).map_err(failed())?;
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(failed())?;
        fs::rename(&fresh, &path).map_err(failed())?;
        made += 1;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        for (asked, size) in [
            (1, Some(1024)),
            (512, Some(1024)),
            (1024, Some(1536)),
            (2048, Some(2560)),
            (4096, Some(4608)),
            (4204, Some(4608)),
            (4206, Some(11_008)),
            (10_240, Some(11_008)),
            (u32::MAX, None),
        ] {
            assert_eq!(size_for(asked), size, "{asked}");
        }
    }
}
