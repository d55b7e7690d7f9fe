//! A file's bytes without its holes, small enough to keep in memory and to make fresh copies from.
//!
//! `WSPARSE1`, the file's length, then for each run of blocks that hold something its offset, its length, its bytes; numbers
//! are little-endian u64.

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt as _,
};

/// How a sparse file begins.
const MAGIC: &[u8; 8] = b"WSPARSE1";
/// What is looked at at once.
const BLOCK: usize = 4096;
/// What is copied at once.
const PIECE: usize = 256 << 10;
/// Bytes before a run, and of the beginning: two numbers.
const HEAD: usize = 16;

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
        let mut runs = Vec::new();
        for Range { start, end } in runs_of(file, len)? {
            let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, start)?;
            runs.push((start, bytes));
        }
        Ok(Self { len, runs })
    }

    /// Writes what [`Self::to_bytes`] would give of a file, as it is read: none of it is kept in memory.
    pub fn write_of(file: &File, out: &mut impl Write) -> io::Result<()> {
        let len = file.metadata()?.len();
        out.write_all(MAGIC)?;
        out.write_all(&len.to_le_bytes())?;
        let mut piece = vec![0; PIECE];
        for Range { start, end } in runs_of(file, len)? {
            out.write_all(&start.to_le_bytes())?;
            out.write_all(&(end - start).to_le_bytes())?;
            let mut at = start;
            while at < end {
                let now = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let piece = piece.get_mut(..now).unwrap_or_default();
                file.read_exact_at(piece, at)?;
                out.write_all(piece)?;
                at += now as u64;
            }
        }
        Ok(())
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

/// Where a file holds something, by whole blocks.
fn runs_of(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
    let (mut runs, mut at): (Vec<Range<u64>>, _) = (Vec::new(), 0);
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
            let end = at + (len - at).min(BLOCK as u64);
            let block = block.get_mut(..usize::try_from(end - at).unwrap_or(BLOCK)).unwrap_or_default();
            file.read_exact_at(block, at)?;
            if block.iter().any(|byte| *byte != 0) {
                match runs.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => runs.push(at..end),
                }
            }
            at = end;
        }
    }
    Ok(runs)
}

/// The reverse of [`Sparse::write_of`], for bytes of any origin as they come: what they say goes into an empty file, holes and all.
/// Until [`Self::finish`] nothing is known of them.
#[derive(Debug)]
pub struct Unpacking<'a> {
    file: &'a File,
    most: u64,
    /// The file's length, once it is known.
    len: Option<u64>,
    /// Numbers of which not all came yet.
    head: Vec<u8>,
    /// What comes next of a run: where it goes, and how much is left of it.
    run: (u64, u64),
}

impl<'a> Unpacking<'a> {
    /// Into this file, of so many bytes at most.
    #[must_use]
    pub const fn new(file: &'a File, most: u64) -> Self {
        Self { file, most, len: None, head: Vec::new(), run: (0, 0) }
    }

    /// Says whether it was a whole one.
    pub fn finish(self) -> io::Result<()> {
        let is_whole = self.len.is_some() && self.head.is_empty() && self.run.1 == 0;
        is_whole.then_some(()).ok_or_else(not_sparse)
    }

    fn begin(&mut self) -> io::Result<()> {
        let head = std::mem::take(&mut self.head);
        let Some(len) = self.len else {
            let len = head.strip_prefix(MAGIC).and_then(|mut rest| number(&mut rest).ok());
            let len = len.filter(|len| *len <= self.most).ok_or_else(not_sparse)?;
            self.file.set_len(len)?;
            self.len = Some(len);
            return Ok(());
        };
        let mut rest = &head[..];
        let run = number(&mut rest).and_then(|at| Ok((at, number(&mut rest)?)));
        let (at, count) = run.map_err(|_| not_sparse())?;
        let end = at.checked_add(count).filter(|end| *end <= len && at >= self.run.0 && count > 0);
        self.run = end.map(|_| (at, count)).ok_or_else(not_sparse)?;
        Ok(())
    }
}

impl Write for Unpacking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (at, left) = self.run;
        if left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            self.file.write_all_at(bytes.get(..now).unwrap_or_default(), at)?;
            self.run = (at + now as u64, left - now as u64);
            return Ok(now);
        }
        let now = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..now).unwrap_or_default());
        if self.head.len() == HEAD {
            self.begin()?;
        }
        Ok(now)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn not_sparse() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, NotSparse)
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
            let mut written = Vec::new();
            Sparse::write_of(&kept, &mut written).unwrap();
            prop_assert_eq!(&written, &sparse.to_bytes());
            prop_assert_eq!(Sparse::parse(&written), Ok(sparse));
        }

        /// As they come is as they are together: the same bytes are refused, and the others are the same file.
        #[test]
        fn unpacked_in_pieces_is_what_was_packed(
            runs in proptest::collection::vec((0_u64..4, 1_usize..9000), 0..5), cut in proptest::option::of(0_usize..200),
            flip in proptest::option::of((0_usize..200, 1_u8..255)), piece in 1_usize..5000,
        ) {
            let mut sparse = Sparse { len: 0, runs: Vec::new() };
            for (gap, count) in runs {
                sparse.runs.push((sparse.len + gap, vec![7; count]));
                sparse.len += gap + count as u64;
            }
            let mut bytes = sparse.to_bytes();
            if let Some((at, with)) = flip.filter(|(at, _)| *at < bytes.len()) {
                bytes[at] ^= with;
            }
            bytes.truncate(bytes.len() - cut.unwrap_or(0).min(bytes.len()));
            let file = tempfile::tempfile().unwrap();
            let most = 1 << 20;
            let mut into = Unpacking::new(&file, most);
            let fed = bytes.chunks(piece).try_for_each(|piece| into.write_all(piece));
            let unpacked = fed.and_then(|()| into.finish());
            match Sparse::parse(&bytes) {
                Ok(sparse) if sparse.len() <= most => {
                    prop_assert!(unpacked.is_ok());
                    let mut there = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
                    file.read_exact_at(&mut there, 0).unwrap();
                    prop_assert_eq!(there, whole(&sparse));
                }
                _ => prop_assert!(unpacked.is_err()),
            }
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
