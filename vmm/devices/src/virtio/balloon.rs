//! The balloon (virtio 1.2, 5.5): pages that the guest lends to its host, and what it says of its memory.
//!
//! Nothing here gives a page away. It judges which pages a driver names: those that are memory and not the host's own, each
//! once, joined to runs. A driver that names pages it uses harms itself alone: they read as if they had never been written.
//!
//! What a request can cost is bounded: of an array of page numbers the first [`PAGES_MAX`] count, and a report has no more
//! ranges than its queue has descriptors. What is beyond stays with the guest, which is what a host that gives nothing away does.

use super::chain::{Chain, Memory, Range};
use alloc::vec::Vec;

/// Device id (5).
pub const ID: u32 = 5;
/// Its queues' largest sizes: pages lent, pages taken back, statistics, pages reported as free (twice, see [`Queue::of`]).
pub const QUEUES: [u16; 5] = [128, 128, 16, 64, 64];
/// The queue of statistics.
pub const STATISTICS: usize = 2;

/// The guest tells statistics when it is asked.
pub const F_STATS_VQ: u64 = 1 << 1;
/// The guest takes pages back before it kills a process for memory.
pub const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// The guest reports pages as it frees them.
pub const F_REPORTING: u64 = 1 << 5;
/// Features of every balloon, without those of the transport.
pub const FEATURES: u64 = F_STATS_VQ | F_DEFLATE_ON_OOM;

/// Bytes of a page, whatever the guest's own are (5.5.6).
pub const PAGE: u64 = 4096;
/// Pages of a MiB.
pub const PAGES_A_MIB: u32 = 256;
/// Most pages of one request. Linux names 256.
pub const PAGES_MAX: usize = 1024;
/// Where the configuration says how many pages the guest is to lend.
pub const TARGET_AT: usize = 0;
/// Where its driver says how many it lends.
pub const ACTUAL_AT: usize = 4;
/// Bytes of the configuration; of what comes behind, no feature is offered.
pub const CONFIG_LEN: usize = 8;

/// Bytes of one statistic: tag and value.
const ENTRY_LEN: usize = 10;
/// Most of them that are read.
const ENTRIES_MAX: usize = 64;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Arrays of pages that the guest lends.
    Inflate,
    /// Arrays of pages that it takes back, which it may use without asking.
    Deflate,
    /// Statistics: one buffer, kept until the host wants the next.
    Statistics,
    /// Free pages, as the buffers themselves.
    Reporting,
}

impl Queue {
    /// By number. Reported pages come by 4 (5.5.2), but from stock Linux kernels by 3, since these count only queues that there
    /// are and hints, whose queue 3 is, are not offered here. So both are for reports.
    #[must_use]
    pub const fn of(number: usize) -> Self {
        match number {
            0 => Self::Inflate,
            1 => Self::Deflate,
            STATISTICS => Self::Statistics,
            _ => Self::Reporting,
        }
    }
}

/// Whole pages, one behind the other. Holding one proves that they are memory, and none of them the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First byte.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
}

/// The pages that a driver names by their numbers; `kept` are the host's own.
#[must_use]
pub fn lent(chain: &Chain, memory: &impl Memory, kept: &[core::ops::Range<u64>]) -> Vec<Run> {
    let mut bytes = [0; 4 * PAGES_MAX];
    let len = chain.copy_up_to(memory, &mut bytes);
    let (words, _) = bytes.get(..len).unwrap_or_default().as_chunks::<4>();
    let mut numbers: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut runs = Vec::new();
    for number in numbers {
        let gpa = u64::from(number) * PAGE;
        if memory.contains(Range { gpa, len: 4096 }) {
            add_without(&mut runs, gpa..gpa + PAGE, kept);
        }
    }
    runs
}

/// The pages that a driver reports as free: all that lie whole in its buffers, but `kept`.
#[must_use]
pub fn reported(chain: &Chain, kept: &[core::ops::Range<u64>]) -> Vec<Run> {
    let mut runs = Vec::new();
    for range in chain.writable() {
        // Both are memory, so neither is near the end of what 64 bits count.
        let start = range.gpa.next_multiple_of(PAGE);
        let end = (range.gpa + u64::from(range.len)) / PAGE * PAGE;
        add_without(&mut runs, start..end, kept);
    }
    runs
}

/// Adds what of a range of pages is not kept, joined to the last run where it goes on.
fn add_without(runs: &mut Vec<Run>, range: core::ops::Range<u64>, kept: &[core::ops::Range<u64>]) {
    // A page of which anything is kept is kept.
    let pages = |kept: &core::ops::Range<u64>| kept.start / PAGE * PAGE..kept.end.next_multiple_of(PAGE);
    let kept = || kept.iter().filter(|kept| !kept.is_empty()).map(pages);
    let mut start = range.start;
    while start < range.end {
        if let Some(kept) = kept().find(|kept| kept.contains(&start)) {
            start = kept.end;
            continue;
        }
        let next = kept().map(|kept| kept.start).filter(|next| *next > start).min();
        let end = next.map_or(range.end, |next| next.min(range.end));
        match runs.last_mut() {
            Some(last) if last.gpa + last.len == start => last.len += end - start,
            _ => runs.push(Run { gpa: start, len: end - start }),
        }
        start = end;
    }
}

/// What statistics are of (5.5.6.3), as places in [`Statistics`].
pub mod tag {
    /// Bytes swapped in.
    pub const SWAP_IN: usize = 0;
    /// Bytes swapped out.
    pub const SWAP_OUT: usize = 1;
    /// Faults that waited for a disk.
    pub const MAJOR_FAULTS: usize = 2;
    /// Faults that did not.
    pub const MINOR_FAULTS: usize = 3;
    /// Bytes that nothing uses.
    pub const FREE: usize = 4;
    /// All bytes that the guest's kernel has.
    pub const TOTAL: usize = 5;
    /// Bytes that a new program could have.
    pub const AVAILABLE: usize = 6;
    /// Bytes of files' pages.
    pub const CACHES: usize = 7;
    /// How many there are; later ones are left out.
    pub const COUNT: usize = 8;
}

/// The guest's own numbers by their [`tag`], as far as it told them. They may be anything.
pub type Statistics = [Option<u64>; tag::COUNT];

/// Reads a buffer of statistics.
#[must_use]
pub fn statistics(chain: &Chain, memory: &impl Memory) -> Statistics {
    let mut bytes = [0; ENTRY_LEN * ENTRIES_MAX];
    let len = chain.copy_up_to(memory, &mut bytes);
    let (entries, _) = bytes.get(..len).unwrap_or_default().as_chunks::<ENTRY_LEN>();
    let mut statistics = Statistics::default();
    for [low, high, value @ ..] in entries {
        let place = usize::from(u16::from_le_bytes([*low, *high]));
        if let Some(statistic) = statistics.get_mut(place) {
            *statistic = Some(u64::from_le_bytes(*value));
        }
    }
    statistics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::chain::tests::{Flat, chain};
    use alloc::collections::BTreeSet;
    use alloc::vec;
    use proptest::prelude::*;

    const LEN: usize = 64 << 12;

    fn numbers(memory: &Flat, at: usize, numbers: &[u32]) -> Chain {
        for (at, number) in (at..).step_by(4).zip(numbers) {
            memory.0.borrow_mut()[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let len = u32::try_from(numbers.len() * 4).unwrap();
        // In two pieces, the cut through a number.
        let first = (len / 2).saturating_sub(1);
        chain(memory, &[(at as u64, first), (at as u64 + u64::from(first), len - first)], &[])
    }

    fn run(first: u64, pages: u64) -> Run {
        Run { gpa: first * PAGE, len: pages * PAGE }
    }

    #[test]
    fn neighbours_are_joined_and_strangers_passed_over() {
        let memory = Flat::new(LEN);
        let check = |pages: &[u32], kept: &[core::ops::Range<u64>], runs: &[Run]| {
            assert_eq!(lent(&numbers(&memory, 0, pages), &memory, kept), runs, "{pages:?}");
        };
        check(&[5, 3, 4, 9], &[], &[run(3, 3), run(9, 1)]);
        check(&[7, 7, 7, 6, 7], &[], &[run(6, 2)]);
        check(&[63, 64, u32::MAX, 1 << 20], &[], &[run(63, 1)]);
        let kept = 2 * PAGE..3 * PAGE;
        check(&[1, 2, 3, 4], core::slice::from_ref(&kept), &[run(1, 1), run(3, 2)]);
        check(&[], &[], &[]);
    }

    #[test]
    fn of_an_endless_array_the_beginning_counts() {
        let memory = Flat::new(PAGES_MAX * 8 + (PAGES_MAX << 12));
        let all: Vec<u32> = (0..2 * u32::try_from(PAGES_MAX).unwrap()).rev().collect();
        // Counted down: the first of them are no memory, or the last.
        let runs = lent(&numbers(&memory, 0, &all), &memory, &[]);
        assert!(runs.iter().map(|run| run.len).sum::<u64>() <= PAGES_MAX as u64 * PAGE);
        assert!(runs.iter().all(|run| run.gpa >= PAGES_MAX as u64 * PAGE), "{runs:?}");
    }

    #[test]
    fn statistics_are_found_by_their_tags() {
        let memory = Flat::new(LEN);
        let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        let bytes =
            [entry(4, 77), entry(u16::MAX, 1), entry(6, u64::MAX), entry(4, 78), vec![5, 0, 1]].concat();
        memory.0.borrow_mut()[..bytes.len()].copy_from_slice(&bytes);
        let told = statistics(&chain(&memory, &[(0, u32::try_from(bytes.len()).unwrap())], &[]), &memory);
        let mut expect = Statistics::default();
        (expect[tag::FREE], expect[tag::AVAILABLE]) = (Some(78), Some(u64::MAX));
        assert_eq!(told, expect);
    }

    /// The pages of runs, which are in no run twice.
    fn pages(runs: &[Run]) -> BTreeSet<u64> {
        let mut pages = BTreeSet::new();
        for run in runs {
            assert!(run.len > 0 && run.gpa.is_multiple_of(PAGE) && run.len.is_multiple_of(PAGE));
            assert!((run.gpa..run.gpa + run.len).step_by(4096).all(|page| pages.insert(page / PAGE)));
        }
        pages
    }

    proptest! {
        #[test]
        fn lent_pages_are_those_named_that_may_go(
            named in prop::collection::vec(prop_oneof![9 => 0_u32..70, 1 => any::<u32>()], 0..200),
            (first, kept) in (0_u64..64, 0_u64..6),
        ) {
            let memory = Flat::new(LEN);
            // Not at a page's start: what is kept of a page keeps all of it.
            let kept = first * PAGE + u64::from(kept > 0)..(first + kept) * PAGE;
            let runs = lent(&numbers(&memory, 0x1000, &named), &memory, core::slice::from_ref(&kept));
            let free = |page: &u64| *page < 64 && (kept.is_empty() || !(first..kept.end / PAGE).contains(page));
            let expect: BTreeSet<u64> = named.iter().map(|number| u64::from(*number)).filter(free).collect();
            prop_assert_eq!(pages(&runs), expect);
            prop_assert!(runs.windows(2).all(|pair| pair[0].gpa + pair[0].len < pair[1].gpa), "joined");
        }

        #[test]
        fn reported_pages_lie_whole_in_the_buffers(
            buffers in prop::collection::vec((0_u64..60 << 12, 1_u32..4 << 12), 0..12),
            (first, kept) in (0_u64..64, 0_u64..6),
        ) {
            let memory = Flat::new(LEN);
            let kept = first * PAGE..(first + kept) * PAGE;
            let runs = reported(&chain(&memory, &[], &buffers), core::slice::from_ref(&kept));
            for run in &runs {
                prop_assert!(run.len > 0 && run.gpa.is_multiple_of(PAGE) && run.len.is_multiple_of(PAGE));
            }
            let named = |page: &u64| buffers.iter().any(|(gpa, len)| *gpa <= page * PAGE && (page + 1) * PAGE <= gpa + u64::from(*len));
            let expect: BTreeSet<u64> = (0..64).filter(named).filter(|page| !kept.contains(&(page * PAGE))).collect();
            let found: BTreeSet<u64> = runs.iter().flat_map(|run| run.gpa / PAGE..(run.gpa + run.len) / PAGE).collect();
            prop_assert_eq!(found, expect);
        }
    }
}
