//! How the runs of a snapshot's memory come into a VM: mapped or copied.
//!
//! A mapping costs as much as a dozen pages to copy (on the lab host 35 us, most of it the kernel's cutting the slot's own
//! mapping in three), and what lies scattered in small runs is mostly written soon: tables, stack, mailbox, the beginning of
//! the heap. Mapped, such a page is copied anyway, at its second fault, which costs four times a first one; and a page that was
//! [touched](crate::bare::Rehearsal) in advance is touched anew.

use warren_devices::virtio::Range;
use warren_state::wasm::Run;

/// Longest run that is copied, in bytes.
const RUN_MAX: u64 = 128 << 10;
/// Most bytes that are copied of one snapshot: they are the sandbox's own, where mapped ones are shared until they are written.
const MOST: u64 = 512 << 10;

/// Runs that are brought in at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Shared with the file until it is written.
    Mapped {
        /// Where.
        run: Run,
        /// Where it begins in the file.
        offset: u64,
    },
    /// Read into memory: runs that follow each other in the file.
    Copied {
        /// Where.
        ranges: Vec<Range>,
        /// Where the first begins in the file.
        offset: u64,
    },
}

/// All of a snapshot's memory, in order.
pub(super) fn of(runs: &[Run]) -> Vec<Piece> {
    let (mut pieces, mut offset, mut budget) = (Vec::new(), 0_u64, MOST);
    for run in runs {
        let len = u32::try_from(run.len).ok().filter(|_| run.len <= RUN_MAX.min(budget));
        match (len, pieces.last_mut()) {
            (None, _) => pieces.push(Piece::Mapped { run: *run, offset }),
            (Some(len), last) => {
                budget -= run.len;
                let range = Range { gpa: run.gpa, len };
                match last {
                    Some(Piece::Copied { ranges, .. }) => ranges.push(range),
                    _ => pieces.push(Piece::Copied { ranges: vec![range], offset }),
                }
            }
        }
        offset = offset.saturating_add(run.len);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn small_ones_in_a_row_are_one_call() {
        let run = |gpa, kib: u64| Run { gpa, len: kib * KIB };
        let range = |gpa, kib: u32| Range { gpa, len: kib << 10 };
        let runs = [run(0, 4), run(1 << 20, 128), run(2 << 20, 132), run(4 << 20, 8)];
        let expected = [
            Piece::Copied { ranges: vec![range(0, 4), range(1 << 20, 128)], offset: 0 },
            Piece::Mapped { run: runs[2], offset: 132 * KIB },
            Piece::Copied { ranges: vec![range(4 << 20, 8)], offset: 264 * KIB },
        ];
        assert_eq!(of(&runs), expected);
        assert_eq!(of(&[]), []);
    }

    proptest! {
        /// Every run once, in order, from its own place in the file; and no more copied than allowed.
        #[test]
        fn every_run_has_one_place(pages in prop::collection::vec(1_u64..40, 0..60)) {
            let runs: Vec<Run> =
                (0..).zip(&pages).map(|(at, pages)| Run { gpa: at << 20, len: pages * 4 * KIB }).collect();
            let (mut back, mut copied) = (Vec::new(), 0);
            for piece in of(&runs) {
                match piece {
                    Piece::Mapped { run, offset } => back.push((run, offset)),
                    Piece::Copied { ranges, mut offset } => {
                        for Range { gpa, len } in ranges {
                            let run = Run { gpa, len: len.into() };
                            prop_assert!(run.len <= RUN_MAX);
                            back.push((run, offset));
                            offset += run.len;
                            copied += run.len;
                        }
                    }
                }
            }
            let ends = runs.iter().scan(0, |end, run| { *end += run.len; Some(*end) });
            let expected: Vec<_> = runs.iter().zip(ends).map(|(run, end)| (*run, end - run.len)).collect();
            prop_assert_eq!(back, expected);
            prop_assert!(copied <= MOST);
        }
    }
}
