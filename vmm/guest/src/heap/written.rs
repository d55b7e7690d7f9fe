//! Which parts of the heap may be other than zero, as the processor noted it ([`warren_abi::written`]).

use crate::raw;
use warren_abi::{
    window::{HEAP, LARGE_PAGE_SIZE, PAGE_SIZE},
    written::{DIRECTORIES, DIRECTORY_REACH, FINE_LEN},
};

/// The parts of `start..end`, addresses in the mapped heap, that were ever written: start and end of each, in order.
pub(super) fn ranges(start: usize, end: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = start as u64;
    let end = end as u64;
    core::iter::from_fn(move || {
        while at < end {
            let from = at;
            let (written, after) = page(from);
            at = after;
            if written {
                while let Some(after) = (at < end).then(|| page(at)).filter(|page| page.0).map(|page| page.1)
                {
                    at = after;
                }
                return Some((usize::try_from(from).ok()?, usize::try_from(at.min(end)).ok()?));
            }
        }
        None
    })
}

/// Whether the page of an address was ever written, and where the next one starts.
fn page(address: u64) -> (bool, u64) {
    let offset = address.saturating_sub(HEAP.base);
    let large = offset / LARGE_PAGE_SIZE;
    if offset < FINE_LEN {
        let slot = offset % LARGE_PAGE_SIZE / PAGE_SIZE;
        return (raw::table_entry(DIRECTORIES + large, slot).is_written(), next(address, PAGE_SIZE));
    }
    let entry = raw::table_entry(offset / DIRECTORY_REACH, offset % DIRECTORY_REACH / LARGE_PAGE_SIZE);
    // What has small pages here (the last ones of an odd size) is not shown: it counts as written.
    (entry.is_written() || !entry.is_large(), next(address, LARGE_PAGE_SIZE))
}

const fn next(address: u64, size: u64) -> u64 {
    address / size * size + size
}
