//! Kernel and initrd come into memory in two parts: the huge page that the guest begins in before it is started, the rest
//! when it first reaches for it, in huge pages that are put in place together.
//!
//! ```text
//!  main thread    begin: hold ranges back, copy the huge page of the entry ── start ──▶ answers
//!  vCPU           waiting ── start ──▶ runs ── first exit, or memory that is not there ──▶ finish: copy, put in place ──▶ runs
//! ```
//! - Where KVM runs the guest's instructions by emulating them, memory that is not there is a device's access to it, which
//!   is answered from memory then ([`Shared::read`]).
//! - **Nothing but a vCPU touches a range that is held**: devices have no queues before a driver told them, which takes
//!   exits, and each vCPU finishes first, or waits for the one that does.
//! - Only of files that are sealed, and for guests of huge pages: a copy in huge pages costs a stock kernel less than the
//!   three faults a page that a mapped one takes (it patches nearly all of its code), and only the mapped one is sooner
//!   at its first instruction.

use crate::ram::held::Held;
use crate::ram::{Ram, RamError};
use rustix::fd::{AsFd, OwnedFd};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use warren_boot::linux::KernelImage;
use warren_boot::linux::image::{Entry, Segment};
use warren_boot::linux::place::Initrd;

/// What is held back or not as a whole.
const BLOCK: u64 = 2 << 20;

/// What is left to do, for whichever vCPU comes first.
#[derive(Clone, Debug)]
pub struct Shared {
    left: Arc<Mutex<Option<Filling>>>,
    /// What was held.
    ranges: Arc<[Range<u64>]>,
    ram: Ram,
}

impl Shared {
    /// Something, or nothing, is left to do.
    #[must_use]
    pub fn new(filling: Option<Filling>, ram: Ram) -> Self {
        let ranges = filling.iter().flat_map(|filling| filling.ranges.clone()).collect();
        Self { left: Arc::new(Mutex::new(filling)), ranges, ram }
    }

    /// Memory is complete when this returns.
    pub fn finish(&self) -> Result<(), FillError> {
        // A panic ends the process (main's hook). Who fails ends it too, and until then nobody else goes on but into
        // memory that is not there.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.take().map_or(Ok(()), Filling::finish)
    }

    /// Answers a read that left KVM because memory was not there: KVM takes that for a device's where it does not run the
    /// instruction but emulates it. Whether it was one.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> bool {
        self.holds(gpa) && self.ram.get(gpa, data).is_ok()
    }

    /// Does the same for a write.
    #[must_use]
    pub fn write(&self, gpa: u64, data: &[u8]) -> bool {
        self.holds(gpa) && self.ram.put(gpa, data).is_ok()
    }

    fn holds(&self, gpa: u64) -> bool {
        self.ranges.iter().any(|range| range.contains(&gpa))
    }
}

/// A piece of a file and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Which of the files.
    file: usize,
    /// Where it starts there.
    offset: u64,
    /// Where it starts in memory.
    gpa: u64,
    /// Bytes.
    len: u64,
}

/// What is left to do once the guest runs.
#[derive(Debug)]
pub struct Filling {
    files: Vec<OwnedFd>,
    pieces: Vec<Piece>,
    ranges: Vec<Range<u64>>,
    /// One a range.
    held: Vec<Held>,
}

/// Why memory could not be filled: the host's fault, for the files are sealed and were measured.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// It could not be held back.
    #[error(transparent)]
    Hold(#[from] RamError),
    /// A file cannot be read.
    #[error("cannot read kernel or initrd")]
    Read(#[source] io::Error),
    /// It could not be put in place.
    #[error("cannot put memory in place")]
    Release(#[source] io::Error),
}

impl Filling {
    /// A kernel and perhaps an initrd; `end` is where memory ends.
    pub fn of(
        ram: &Ram,
        (kernel, file): (&KernelImage, OwnedFd),
        initrd: Option<(Initrd, OwnedFd)>,
        end: u64,
    ) -> Result<Self, FillError> {
        let segments = kernel.segments.iter();
        let mut pieces: Vec<_> =
            segments.map(|&Segment { gpa, offset, len }| Piece { file: 0, offset, gpa, len }).collect();
        let mut files = vec![file];
        if let Some((Initrd { gpa, len }, file)) = initrd {
            files.push(file);
            pieces.push(Piece { file: 1, offset: 0, gpa, len });
        }
        let (Entry::Long(entry) | Entry::Pvh(entry)) = kernel.entry;
        Self::begin(ram, files, pieces, entry, end)
    }

    /// Holds back what the guest does not begin in, and copies the rest.
    fn begin(
        ram: &Ram,
        files: Vec<OwnedFd>,
        pieces: Vec<Piece>,
        entry: u64,
        end: u64,
    ) -> Result<Self, FillError> {
        let ranges = held_ranges(&pieces, entry, end);
        let held: Result<Vec<_>, _> = ranges.iter().map(|range| ram.hold(range)).collect();
        let filling = Self { files, pieces, ranges, held: held? };
        filling.copy(|held| held.is_none().then_some(ram))?;
        Ok(filling)
    }

    /// Does the rest.
    fn finish(self) -> Result<(), FillError> {
        self.copy(|held| held.map(|held| &held.fresh))?;
        self.held.into_iter().try_for_each(Held::release).map_err(FillError::Release)
    }

    /// Copies those parts that are given a place.
    fn copy<'a>(&'a self, place: impl Fn(Option<&'a Held>) -> Option<&'a Ram>) -> Result<(), FillError> {
        for piece in &self.pieces {
            for (range, held) in parts(piece, &self.ranges) {
                let ram = place(held.and_then(|at| self.held.get(at)));
                if let (Some(ram), Some(file)) = (ram, self.files.get(piece.file)) {
                    let offset = piece.offset + (range.start - piece.gpa);
                    ram.fill(file.as_fd(), offset, range.start, range.end - range.start)
                        .map_err(FillError::Read)?;
                }
            }
        }
        Ok(())
    }
}

/// The ranges to hold: every block that something goes into, but for those of the entry and of what else the first
/// instructions stand on, which lies in the first. Ascending, and none touches another.
fn held_ranges(pieces: &[Piece], entry: u64, end: u64) -> Vec<Range<u64>> {
    let mut blocks: Vec<u64> = pieces
        .iter()
        .filter(|piece| piece.len > 0)
        .flat_map(|piece| piece.gpa / BLOCK..=(piece.gpa + piece.len - 1) / BLOCK)
        .filter(|block| *block > 0 && *block != entry / BLOCK)
        .collect();
    blocks.sort_unstable();
    blocks.dedup();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        let (start, stop) = (block * BLOCK, ((block + 1) * BLOCK).min(end));
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = stop,
            _ => ranges.push(start..stop),
        }
    }
    ranges
}

/// A piece cut where ranges begin and end: each part with the range that it lies in, if it lies in one.
fn parts(piece: &Piece, ranges: &[Range<u64>]) -> Vec<(Range<u64>, Option<usize>)> {
    let (mut at, end) = (piece.gpa, piece.gpa + piece.len);
    let mut parts = Vec::new();
    while at < end {
        let place = ranges.iter().position(|range| range.contains(&at));
        let stop = match place.and_then(|place| ranges.get(place)) {
            Some(range) => range.end,
            None => ranges.iter().map(|range| range.start).filter(|start| *start > at).min().unwrap_or(end),
        };
        let stop = stop.min(end);
        parts.push((at..stop, place));
        at = stop;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn piece(gpa: u64, len: u64) -> Piece {
        Piece { file: 0, offset: 0, gpa, len }
    }

    #[test]
    fn what_is_held() {
        // In MiB.
        let held = |pieces: &[Piece], entry, end| -> Vec<_> {
            let ranges = held_ranges(pieces, entry, end);
            ranges.iter().map(|range| (range.start / MIB, range.end / MIB)).collect()
        };
        let kernel = [piece(16 * MIB, 25 * MIB), piece(42 * MIB, 6 * MIB + 5), piece(50 * MIB - 1, 1)];
        assert_eq!(held(&kernel, 16 * MIB + 0x200, 128 * MIB), [(18, 50)], "all but the entry's");
        assert_eq!(held(&kernel, 20 * MIB, 128 * MIB), [(16, 20), (22, 50)]);
        assert_eq!(held(&[piece(MIB, MIB)], MIB, 64 * MIB), [], "the first block is never held");
        assert_eq!(held(&[piece(16 * MIB, 0)], 0, 64 * MIB), []);
        assert_eq!(held(&[piece(64 * MIB + 5, 9)], 0, 65 * MIB), [(64, 65)], "no further than memory");
    }

    /// Files that are sealed do not end early: whatever else takes their place fails by name.
    #[test]
    fn a_file_that_ends_early_is_said() {
        let file = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let ram = Ram::detached(0, 8 * MIB).unwrap();
        let filling = Filling::begin(&ram, vec![file], vec![piece(4 * MIB, 9)], 0, 8 * MIB).unwrap();
        let shared = Shared::new(Some(filling), ram.clone());
        assert!(matches!(shared.finish(), Err(FillError::Read(_))));
        assert!(matches!(Shared::new(None, ram).finish(), Ok(())));
    }

    proptest! {
        /// Every byte is copied once, to the place it lies in, and nothing that is held is copied too soon.
        #[test]
        fn every_byte_has_one_place(
            pieces in prop::collection::vec((0..64 * MIB, 0..9 * MIB), 0..6),
            entry in 0..64 * MIB,
        ) {
            let end = 73 * MIB;
            let pieces: Vec<_> = pieces.into_iter().map(|(gpa, len)| piece(gpa, len)).collect();
            let ranges = held_ranges(&pieces, entry, end);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            for range in &ranges {
                prop_assert!(range.start >= BLOCK && !range.contains(&entry) && range.start < range.end && range.end <= end);
                prop_assert!(range.start % BLOCK == 0);
            }
            for piece in &pieces {
                let mut at = piece.gpa;
                for (part, place) in parts(piece, &ranges) {
                    prop_assert!(part.start == at && part.end > at);
                    at = part.end;
                    match place {
                        Some(place) => prop_assert!(ranges[place].start <= part.start && part.end <= ranges[place].end),
                        None => prop_assert!(ranges.iter().all(|r| r.end <= part.start || part.end <= r.start)),
                    }
                }
                prop_assert_eq!(at, piece.gpa + piece.len);
            }
        }
    }
}
