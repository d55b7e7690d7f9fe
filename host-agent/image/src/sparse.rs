//! A file's bytes without its holes, small enough to keep in memory and to make fresh copies from.
//!
//! `WSPARSE1`, the file's length, then for each run of blocks that hold something its offset, its length, its bytes; numbers
//! are little-endian u64.

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use std::{fs::File, io, os::unix::fs::FileExt as _};

/// How a sparse file begins.
const MAGIC: &[u8; 8] = b"WSPARSE1";
/// What is looked at at once.
const BLOCK: usize = 4096;

/// A sparse file as it lies in memory. Holding one proves that every run lies within the length, in rising order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparse {
    len: u64,
    runs: Vec<(u64, Vec<u8>)>,
}

/// Bytes that are no sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sparse file, or cut short")]
pub struct NotSparse;

impl Sparse {
    /// Reads a file, leaving out its holes and every block that holds nothing.
    pub fn of_file(file: &File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let (mut sparse, mut at) = (Self { len, runs: Vec::new() }, 0);
        let mut block = [0; BLOCK];
        while at < len {
            // On file systems without holes everything is data.
            at = match seek(file, SeekFrom::Data(at)) {
                Ok(data) => data / BLOCK as u64 * BLOCK as u64,
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let hole = seek(file, SeekFrom::Hole(at))?;
            while at < hole {
                let whole = (len - at).min(BLOCK as u64);
                let block = block.get_mut(..usize::try_from(whole).unwrap_or(BLOCK)).unwrap_or_default();
                file.read_exact_at(block, at)?;
                sparse.add(at, block);
                at += whole;
            }
        }
        Ok(sparse)
    }

    fn add(&mut self, at: u64, block: &[u8]) {
        if block.iter().all(|byte| *byte == 0) {
            return;
        }
        match self.runs.last_mut() {
            Some((start, bytes)) if *start + bytes.len() as u64 == at => bytes.extend_from_slice(block),
            _ => self.runs.push((at, block.to_vec())),
        }
    }

    /// The length of the whole file.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the whole file is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is to be written where; everything else is zero.
    pub fn runs(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.runs.iter().map(|(at, bytes)| (*at, bytes.as_slice()))
    }

    /// As it is kept.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.len.to_le_bytes());
        for (at, bytes) in &self.runs {
            out.extend(at.to_le_bytes());
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        }
        out
    }

    /// The reverse of [`to_bytes`](Self::to_bytes), for bytes of any origin.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotSparse> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(NotSparse)?;
        let len = number(&mut rest)?;
        let (mut runs, mut end) = (Vec::new(), 0_u64);
        while !rest.is_empty() {
            let (at, count) = (number(&mut rest)?, number(&mut rest)?);
            let size = usize::try_from(count).map_err(|_| NotSparse)?;
            let (run, behind) = rest.split_at_checked(size).ok_or(NotSparse)?;
            let run_end = at.checked_add(count).filter(|run_end| *run_end <= len).ok_or(NotSparse)?;
            if at < end || run.is_empty() {
                return Err(NotSparse);
            }
            runs.push((at, run.to_vec()));
            (rest, end) = (behind, run_end);
        }
        Ok(Self { len, runs })
    }
}

fn number(rest: &mut &[u8]) -> Result<u64, NotSparse> {
    let (head, behind) = rest.split_first_chunk::<8>().ok_or(NotSparse)?;
    *rest = behind;
    Ok(u64::from_le_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn whole(sparse: &Sparse) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(sparse.len()).unwrap()];
        for (at, run) in sparse.runs() {
            let at = usize::try_from(at).unwrap();
            out[at..at + run.len()].copy_from_slice(run);
        }
        out
    }

    proptest! {
        #[test]
        fn comes_back(blocks in proptest::collection::vec(proptest::option::of(any::<u8>()), 0..12), tail in 0_usize..4096, hole in 0_usize..20_000) {
            let mut file: Vec<u8> = blocks.iter().flat_map(|block| vec![block.unwrap_or(0); BLOCK]).collect();
            file.extend(vec![7; tail]);
            let mut kept = tempfile::tempfile().unwrap();
            kept.write_all(&file).unwrap();
            // A hole at the end, of whatever length.
            kept.set_len((file.len() + hole) as u64).unwrap();
            file.resize(file.len() + hole, 0);
            let sparse = Sparse::of_file(&kept).unwrap();
            prop_assert_eq!(whole(&sparse), &file[..]);
            prop_assert_eq!(Sparse::parse(&sparse.to_bytes()), Ok(sparse));
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..80), sound in any::<bool>()) {
            let mut bytes = bytes;
            if sound {
                bytes.splice(0..0, *MAGIC);
            }
            if let Ok(sparse) = Sparse::parse(&bytes) {
                prop_assert!(sparse.runs().all(|(at, run)| at + run.len() as u64 <= sparse.len()));
            }
        }
    }
}
