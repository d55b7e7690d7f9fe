//! Memory on its way into a snapshot's file: the pages that are not zero, as few runs; large ones so that large pages of the file can
//! lie behind large pages of the guest.

use super::TakeError;
use crate::ram::Ram;
use rustix::fd::OwnedFd;
use rustix::fs::fstat;
use vm_memory::mmap::MmapRegion;
use vm_memory::{FileOffset, VolatileMemory};
use warren_abi::window::{LARGE_PAGE_SIZE, PAGE_SIZE};
use warren_boot::OutOfRange;
use warren_state::wasm::{Area, Run};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Large pages of a run that is placed: before it up to one more is kept, of zeroes.
const SEVERAL: u64 = 4;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Writes runs of memory into a file that is zero, one behind the other: how many bytes they are. The file is mapped, not
/// written to: a jailed VMM may not write a byte to any file.
pub(crate) fn write(ram: &Ram, runs: &[Run], file: OwnedFd) -> Result<u64, TakeError> {
    let room = fstat(&file).ok().and_then(|stat| usize::try_from(stat.st_size).ok()).unwrap_or(0);
    let file = MmapRegion::<()>::from_file(FileOffset::new(file.into(), 0), room)
        .map_err(|error| TakeError::Map(error.to_string()))?;
    let mut at = 0;
    for run in runs {
        each_chunk(ram, *run, |_, bytes| {
            for page in bytes.chunks(PAGE) {
                let room = file.get_slice(at, page.len()).map_err(|_| TakeError::Room)?;
                // What is zero stays a hole.
                if !is_zero(page) {
                    room.copy_from(page);
                }
                at += page.len();
            }
            Ok::<_, TakeError>(())
        })?;
    }
    Ok(at as u64)
}

/// The pages of a piece that are not zero; up to `gap` pages of zeroes between two belong to them.
pub(crate) fn find(ram: &Ram, piece: Area, gap: u64) -> Result<Vec<Run>, OutOfRange> {
    let mut runs: Vec<Run> = Vec::new();
    each_chunk(ram, piece, |gpa, bytes| {
        for (gpa, page) in (gpa..).step_by(PAGE).zip(bytes.chunks(PAGE)) {
            if !is_zero(page) {
                add(&mut runs, Area { gpa, len: PAGE_SIZE }, gap);
            }
        }
        Ok(())
    })?;
    Ok(runs)
}

/// A line at a time, without a way out within one, so that it becomes vector instructions: 28 times as fast as byte by byte, over zeroes.
fn is_zero(page: &[u8]) -> bool {
    let (lines, rest) = page.as_chunks::<256>();
    let is_zero = |line: &[u8]| line.iter().fold(0, |all, byte| all | byte) == 0;
    lines.iter().all(|line| is_zero(line)) && is_zero(rest)
}

fn each_chunk<E: From<OutOfRange>>(
    ram: &Ram,
    piece: Area,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut chunk = vec![0; CHUNK];
    let mut at = piece.gpa;
    while at < piece.range().end {
        let len = usize::try_from(piece.range().end - at).unwrap_or(CHUNK).min(CHUNK);
        let bytes = chunk.get_mut(..len).unwrap_or_default();
        ram.get(at, bytes)?;
        each(at, bytes)?;
        at += len as u64;
    }
    Ok(())
}

/// A run more, or a longer last one if no more than `gap` pages lie between.
fn add(runs: &mut Vec<Run>, run: Run, gap: u64) {
    match runs.last_mut() {
        Some(last) if run.gpa - last.range().end <= gap * PAGE_SIZE => last.len = run.range().end - last.gpa,
        _ => runs.push(run),
    }
}

/// The runs of all pieces, found with this gap and joined over ever larger ones until they are no more than `most`; never over the
/// end of a piece.
pub(crate) fn few(mut pieces: Vec<Vec<Run>>, mut gap: u64, most: usize) -> Vec<Run> {
    while pieces.iter().map(Vec::len).sum::<usize>() > most.max(pieces.len()) {
        gap = gap.saturating_mul(2);
        for runs in &mut pieces {
            let mut joined = Vec::new();
            for run in runs.iter() {
                add(&mut joined, *run, gap);
            }
            *runs = joined;
        }
    }
    pieces.into_iter().flatten().collect()
}

/// The same pages, and zeroes before or between them, so that each run of several large pages is as far into the file as it is into
/// memory, but for whole large pages. What lies before a run in its bank is zero, and free up to the run before.
pub(crate) fn in_place(runs: Vec<Run>, banks: &[Area]) -> Vec<Run> {
    let (mut placed, mut offset) = (Vec::<Run>::with_capacity(runs.len()), 0);
    for mut run in runs {
        let bank = banks.iter().find(|bank| bank.range().contains(&run.gpa)).map_or(run.gpa, |bank| bank.gpa);
        while run.len >= SEVERAL * LARGE_PAGE_SIZE {
            let before = placed.pop_if(|last| last.gpa >= bank);
            let more = run.gpa.wrapping_sub(offset) % LARGE_PAGE_SIZE;
            let room = run.gpa - before.map_or(bank, |last| last.range().end);
            match before {
                // One run, zeroes between and all, which is looked at in its turn.
                Some(last) if room < more => {
                    offset -= last.len;
                    run = Run { gpa: last.gpa, len: run.range().end - last.gpa };
                    continue;
                }
                None if room < more => {}
                _ => run = Run { gpa: run.gpa - more, len: run.len + more },
            }
            placed.extend(before);
            break;
        }
        offset += run.len;
        placed.push(run);
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GAP: u64 = 8;

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        let mut page = vec![0; PAGE + 3];
        assert!(is_zero(&page[..PAGE]) && is_zero(&page));
        for at in [0, 1, 255, 256, PAGE - 1, PAGE, PAGE + 2] {
            page[at] = 1;
            assert!(!is_zero(&page), "{at}");
            page[at] = 0;
        }
    }

    fn page(first: u64, count: u64) -> Area {
        Area { gpa: first * PAGE_SIZE, len: count * PAGE_SIZE }
    }

    fn file(pages: u64) -> OwnedFd {
        let file = rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, pages * PAGE_SIZE).unwrap();
        file
    }

    #[test]
    fn pages_become_few_runs() {
        let ram = Ram::detached(0, 1 << 20).unwrap();
        for at in [0, 1, 5, 30, 31, 255] {
            ram.put(at * PAGE_SIZE + 7, &[u8::try_from(at).unwrap() | 1]).unwrap();
        }
        let runs = find(&ram, page(0, 256), GAP).unwrap();
        assert_eq!(runs, [page(0, 6), page(30, 2), page(255, 1)]);
        assert_eq!(write(&ram, &runs, file(9)).unwrap(), 9 * PAGE_SIZE);
        assert!(matches!(write(&ram, &runs, file(8)), Err(TakeError::Room)));
        let pieces = [page(0, 31), page(31, 225)].map(|piece| find(&ram, piece, GAP).unwrap());
        assert_eq!(few(pieces.into(), GAP, 9)[1..3], [page(30, 1), page(31, 1)], "each piece by itself");
    }

    #[test]
    fn large_runs_lie_in_place() {
        let mib = |at: u64, len: u64| Area { gpa: at << 20, len: len << 20 };
        let banks = [mib(0, 3072), mib(4096, 4096)];
        let cases = [
            (vec![mib(1, 1), mib(16, 30)], vec![mib(1, 1), mib(15, 31)]),
            (vec![mib(1, 9)], vec![mib(0, 10)]),
            (vec![mib(0, 9), mib(17, 9)], vec![mib(0, 9), mib(17, 9)]),
            (vec![mib(0, 9), page(2305, 10 << 8)], vec![mib(0, 9), page(2304, (10 << 8) + 1)]),
            // No room before it: one run, and that is placed.
            (vec![mib(1, 1), page(513, 10 << 8)], vec![Area { gpa: 0, len: page(513, 10 << 8).range().end }]),
            // Nor anything below its bank.
            (vec![mib(1, 1), mib(4096, 8)], vec![mib(1, 1), mib(4096, 8)]),
            (vec![mib(2, 7), mib(20, 1)], vec![mib(2, 7), mib(20, 1)]),
        ];
        for (runs, placed) in cases {
            assert_eq!(in_place(runs.clone(), &banks), placed, "{runs:?}");
        }
    }

    proptest! {
        /// Every page that was in a run is in one, in order, in its bank; and few more, so that every run that is placed is so.
        #[test]
        fn runs_are_placed(steps in prop::collection::vec((1_u64..3000, 1_u64..6000), 1..20), cut in 0_usize..20) {
            let bank = |first: u64| Area { gpa: first, len: 1 << 40 };
            let banks = [bank(0), bank(1 << 41)];
            let (mut runs, mut at) = (Vec::new(), 0);
            for (index, (gap, count)) in steps.into_iter().enumerate() {
                if index == cut {
                    at = (1 << 41) / PAGE_SIZE;
                }
                runs.push(page(at + gap, count));
                at += gap + count;
            }
            let placed = in_place(runs.clone(), &banks);
            prop_assert!(placed.windows(2).all(|pair| pair[0].range().end <= pair[1].gpa));
            let total = |runs: &[Run]| runs.iter().map(|run| run.len).sum::<u64>();
            prop_assert!(total(&placed) <= total(&runs) + LARGE_PAGE_SIZE * runs.len() as u64);
            let mut offset = 0;
            for run in &placed {
                let inside = runs.iter().filter(|one| run.range().contains(&one.gpa)).collect::<Vec<_>>();
                prop_assert!(!inside.is_empty() && inside.last().unwrap().range().end == run.range().end);
                let first = inside[0];
                let free = banks.iter().any(|bank| bank.gpa <= run.gpa && run.gpa < bank.range().end);
                prop_assert!(free && run.gpa <= first.gpa && first.gpa - run.gpa < LARGE_PAGE_SIZE);
                if run.len >= SEVERAL * LARGE_PAGE_SIZE && run.gpa % (1 << 41) >= LARGE_PAGE_SIZE {
                    prop_assert_eq!(run.gpa % LARGE_PAGE_SIZE, offset % LARGE_PAGE_SIZE);
                }
                offset += run.len;
            }
            for run in runs {
                prop_assert!(placed.iter().any(|one| one.gpa <= run.gpa && run.range().end <= one.range().end));
            }
        }

        /// However many runs: never more than wanted, and every page that was in one is in one.
        #[test]
        fn runs_are_joined_until_they_are_few(
            pages in prop::collection::btree_set(0_u64..5000, 1..200), cut in 0_u64..5000, most in 2_usize..40
        ) {
            let mut pieces = vec![Vec::new(), Vec::new()];
            for at in &pages {
                add(&mut pieces[usize::from(*at >= cut)], page(*at, 1), GAP);
            }
            let runs = few(pieces, GAP, most);
            prop_assert!(runs.len() <= most);
            prop_assert!(runs.windows(2).all(|pair| pair[0].range().end <= pair[1].gpa));
            for at in pages {
                prop_assert!(runs.iter().any(|run| run.range().contains(&(at * PAGE_SIZE))));
            }
            let cut = cut * PAGE_SIZE;
            prop_assert!(runs.iter().all(|run| run.range().end <= cut || run.gpa >= cut));
        }
    }
}
