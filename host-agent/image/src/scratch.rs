//! Empty scratch disks: an ext4 file system with nothing in it, of a few sizes, kept without its holes (60 to 160 KiB).
//!
//! A sandbox's scratch disk is the quota of all that its guest writes; a size in between is rounded up.

use crate::{BuildError, ext4, shelf::Shelf, sparse::Sparse};
use std::fs::{self, File};

/// The sizes, MiB.
pub const SIZES_MIB: [u32; 5] = [512, 1024, 2048, 4096, 10_240];

/// The size of a disk that holds so much.
#[must_use]
pub fn size_for(mib: u32) -> Option<u32> {
    SIZES_MIB.into_iter().find(|size| *size >= mib)
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
        for (asked, size) in
            [(1, Some(512)), (512, Some(512)), (513, Some(1024)), (10_240, Some(10_240)), (10_241, None)]
        {
            assert_eq!(size_for(asked), size, "{asked}");
        }
    }
}
