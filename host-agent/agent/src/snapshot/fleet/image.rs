//! A snapshot's memory and disk as images, and back.
//!
//! A VMM's file is the runs of its state one behind the other; as an image it is addressed as the guest addresses it, so that the same
//! page of two functions on one runtime lies in the same window. A disk is its own image, holes and all.

use super::super::KeptDisk;
use crate::memfd::SealedFile;
use rustix::fd::AsFd as _;
use std::{fs::File, io};
use warren_chunks::{
    cut::{FileSource, Source},
    linear::Linear,
};

/// Memory, addressed as its guest addresses it. `None`: it is not what the runs say.
pub(super) fn memory(file: &SealedFile, runs: Vec<(u64, u64)>) -> io::Result<Option<impl Source + use<>>> {
    let packed = FileSource::new(File::from(file.as_fd().try_clone_to_owned()?))?;
    Ok(Linear::new(packed, runs))
}

/// A disk at its offsets.
pub(super) fn disk(disk: &KeptDisk) -> io::Result<impl Source + use<>> {
    FileSource::new(File::from(disk.as_fd().try_clone_to_owned()?))
}

/// The reverse of [`memory`]: where a page of the image is in the file.
#[derive(Debug)]
pub(super) struct Packed {
    /// Address, bytes, and where they are in the file; ascending.
    runs: Vec<(u64, u64, u64)>,
}

impl Packed {
    pub(super) fn new(runs: &[(u64, u64)]) -> Self {
        let mut offset = 0_u64;
        let placed = runs.iter().map(|(at, len)| {
            let begin = offset;
            offset = offset.saturating_add(*len);
            (*at, *len, begin)
        });
        Self { runs: placed.collect() }
    }

    /// Where a page at this address is; `None` if the file has no such page.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        let next = self.runs.partition_point(|(at, ..)| *at <= address);
        let (at, len, offset) = self.runs.get(next.checked_sub(1)?)?;
        let into = address - at;
        (into < *len).then(|| offset.saturating_add(into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt as _;

    proptest! {
        #[test]
        fn a_page_is_where_it_was(steps in prop::collection::vec((0_u64..4, 1_u64..5), 0..8)) {
            const PAGE: u64 = 4096;
            let (mut runs, mut end) = (Vec::new(), 0);
            for (gap, pages) in steps {
                runs.push((end + gap * PAGE, pages * PAGE));
                end += (gap + pages) * PAGE;
            }
            // A model: every page of the file, with its address.
            let pages: Vec<u64> = runs.iter().flat_map(|(at, len)| (*at..at + len).step_by(4096)).collect();
            let packed = Packed::new(&runs);
            for address in (0..end + 2 * PAGE).step_by(4096) {
                let model = pages.iter().position(|page| *page == address).map(|rank| rank as u64 * PAGE);
                prop_assert_eq!(packed.offset(address), model);
            }
        }
    }

    #[test]
    fn a_disk_comes_back_as_it_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptDisk::filled(dir.path(), |file| {
            file.set_len(10 << 20)?;
            file.write_all_at(b"superblock", 1024)?;
            file.write_all_at(&[7; 9000], 5 << 20)
        });
        let kept = kept.unwrap();
        let source = disk(&kept).unwrap();
        let again = KeptDisk::filled(dir.path(), |again| {
            again.set_len(source.bytes())?;
            let mut at = 0;
            let mut page = [0; 4096];
            while let Some(data) = source.next_data(at)? {
                let begin = data / 4096 * 4096;
                source.read_at(begin, &mut page)?;
                again.write_all_at(&page, begin)?;
                at = begin + 4096;
            }
            Ok::<_, io::Error>(())
        });
        assert_eq!(again.unwrap().part().unwrap(), kept.part().unwrap());
    }
}
