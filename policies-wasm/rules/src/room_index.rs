//! Hosts by how much room they have, so that best fit is a look-up and not a scan.
//!
//! A grid: rows are classes of free memory, columns classes of free CPU, a cell is the set of hosts of that class.
//! Classes are logarithmic with four steps an octave, so a row spans at most a quarter of its value:
//!
//! ```text
//!            cpu class ->   0   1   2  ...  (one u64 of non-empty columns a row)
//! memory class 0           {}  {3} {}
//!              1           {}  {}  {7,9}
//!              .           (two u64 of non-empty rows)
//! ```
//!
//! A search starts at the row and column of the demand and walks up: the tightest rows first. Cells above both
//! classes hold the demand for certain; in the demand's own row or column a host must be looked at, and at most
//! [`MAX_MISSES`] such looks are taken from a starting point that the request's seed moves. So a fleet with not one
//! roomy host, but many just too small, costs no more than any other, and a repeated request looks elsewhere.

use crate::host::HostIndex;
use crate::host_set::HostSet;
use alloc::vec::Vec;

/// How many hosts of the demand's own class may turn out too small before the search moves on.
pub(crate) const MAX_MISSES: u32 = 64;

const COLUMNS: u32 = 64;
const ROWS: u32 = 128;

/// What one search wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) memory_mib: u32,
    pub(crate) cpu_millis: u32,
    pub(crate) seed: u64,
}

/// Hosts by room; what room a host has (free memory, or more where overcommit is granted) is the caller's to say.
#[derive(Debug, Clone, Default)]
pub struct RoomIndex {
    /// Two words and not a `u128`, which Wasm has no instructions for.
    rows: [u64; 2],
    columns: Vec<u64>,
    cells: Vec<HostSet>,
}

impl RoomIndex {
    /// Puts a host of that room in.
    pub fn insert(&mut self, index: HostIndex, memory_mib: u32, cpu_millis: u32) {
        let (row, column) = (row_of(memory_mib), column_of(cpu_millis));
        let cell = cell_of(row, column);
        if self.cells.len() <= cell {
            self.cells.resize_with((row as usize + 1) * COLUMNS as usize, HostSet::default);
            self.columns.resize(row as usize + 1, 0);
        }
        if let Some(set) = self.cells.get_mut(cell) {
            set.insert(index);
        }
        if let Some(columns) = self.columns.get_mut(row as usize) {
            *columns |= 1 << column;
        }
        if let Some(word) = self.rows.get_mut(row as usize / 64) {
            *word |= 1 << (row % 64);
        }
    }

    /// Takes a host out that was put in with that room.
    pub fn remove(&mut self, index: HostIndex, memory_mib: u32, cpu_millis: u32) {
        let (row, column) = (row_of(memory_mib), column_of(cpu_millis));
        let Some(set) = self.cells.get_mut(cell_of(row, column)) else { return };
        set.remove(index);
        if set.is_empty()
            && let Some(columns) = self.columns.get_mut(row as usize)
        {
            *columns &= !(1 << column);
            if *columns == 0
                && let Some(word) = self.rows.get_mut(row as usize / 64)
            {
                *word &= !(1 << (row % 64));
            }
        }
    }

    /// Forgets every host.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a host with this room is in the same class as with that.
    pub(crate) fn same_class(one: (u32, u32), other: (u32, u32)) -> bool {
        row_of(one.0) == row_of(other.0) && column_of(one.1) == column_of(other.1)
    }

    /// Offers hosts, tightest class first, to `take`, which says whether the host fits and whether to go on.
    pub(crate) fn search(&self, wanted: Wanted, mut take: impl FnMut(HostIndex) -> Look) {
        let (first_row, first_column) = (row_of(wanted.memory_mib), column_of(wanted.cpu_millis));
        let mut misses = 0;
        for (half, open) in (0u32..).zip(self.rows) {
            let mut rows = match (half * 64).cmp(&(first_row / 64 * 64)) {
                core::cmp::Ordering::Less => 0,
                core::cmp::Ordering::Equal => open & (u64::MAX << (first_row % 64)),
                core::cmp::Ordering::Greater => open,
            };
            while rows != 0 {
                let row = half * 64 + rows.trailing_zeros();
                rows &= rows - 1;
                let open = self.columns.get(row as usize).copied().unwrap_or(0);
                let mut columns = open & (u64::MAX << first_column);
                while columns != 0 {
                    let column = columns.trailing_zeros();
                    columns &= columns - 1;
                    let Some(set) = self.cells.get(cell_of(row, column)) else { continue };
                    let doubtful = row == first_row || column == first_column;
                    if doubtful && misses >= MAX_MISSES {
                        continue;
                    }
                    let start = if doubtful { start_of(wanted.seed, set) } else { 0 };
                    if !walk(set, start, &mut misses, &mut take) {
                        return;
                    }
                }
            }
        }
    }
}

/// What the caller of a search makes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It fits; show more.
    Fits,
    /// It fits and is the last one wanted.
    Enough,
    /// It has no room.
    Misses,
}

/// Shows the hosts of one cell from `start` round to it again; false: stop the whole search.
fn walk(set: &HostSet, start: HostIndex, misses: &mut u32, take: &mut impl FnMut(HostIndex) -> Look) -> bool {
    let mut enough = false;
    let mut look = |host| match take(host) {
        Look::Fits => true,
        Look::Enough => {
            enough = true;
            false
        }
        Look::Misses => {
            *misses += 1;
            // At the limit: leave this cell; those where every host fits are still looked at.
            *misses < MAX_MISSES
        }
    };
    if set.scan(start, u32::MAX, &mut look) && start > 0 {
        set.scan(0, start, &mut look);
    }
    !enough
}

/// Where the walk of a cell with doubtful hosts starts: anywhere, but the same for the same seed. Small sets are
/// walked from their beginning, since they are walked whole anyway.
fn start_of(seed: u64, set: &HostSet) -> HostIndex {
    let span = set.span();
    if span <= MAX_MISSES {
        return 0;
    }
    // Multiply-shift: the high 32 bits of a 32x32-bit product spread the seed over the span without a division.
    let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u32::try_from((random * u64::from(span)) >> 32).unwrap_or(0)
}

fn cell_of(row: u32, column: u32) -> usize {
    (row * COLUMNS + column) as usize
}

fn row_of(memory_mib: u32) -> u32 {
    class_of(memory_mib).min(ROWS - 1)
}

/// CPU is classed in hundredths of a core: coarser classes below that would only cost columns.
fn column_of(cpu_millis: u32) -> u32 {
    class_of(cpu_millis / 100).min(COLUMNS - 1)
}

/// Logarithmic with four steps an octave: 0, 1, 2, 3 are their own classes, then 4, 5, 6, 7, 8-9, 10-11, ...
fn class_of(value: u32) -> u32 {
    if value < 4 {
        return value;
    }
    let octave = value.ilog2();
    let step = (value >> (octave - 2)) & 3;
    (octave - 1) * 4 + step
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn classes_rise_with_room_and_are_a_quarter_of_an_octave_wide() {
        let mut last = 0;
        for value in 0..100_000u32 {
            let class = class_of(value);
            assert!(class == last || class == last + 1, "{value}");
            last = class;
        }
        assert!(class_of(u32::MAX) < ROWS);
        assert_eq!([8, 9, 10, 11, 12].map(class_of), [8, 8, 9, 9, 10]);
    }

    fn found(index: &RoomIndex, hosts: &BTreeMap<u32, (u32, u32)>, wanted: Wanted) -> Vec<u32> {
        let mut found = Vec::new();
        index.search(wanted, |host| {
            let (memory_mib, cpu_millis) = hosts[&host];
            if memory_mib < wanted.memory_mib || cpu_millis < wanted.cpu_millis {
                return Look::Misses;
            }
            found.push(host);
            Look::Fits
        });
        found
    }

    proptest! {
        /// With fewer hosts than misses are allowed, a search finds every host that fits, tightest rows first.
        #[test]
        fn finds_all_that_fit(
            steps in proptest::collection::vec((0..60u32, proptest::option::of((0..40_000u32, 0..64_000u32))), 0..120),
            memory_mib in 0..40_000u32,
            cpu_millis in 0..64_000u32,
            seed in any::<u64>(),
        ) {
            let mut index = RoomIndex::default();
            let mut hosts = BTreeMap::new();
            for (host, room) in steps {
                if let Some((memory_mib, cpu_millis)) = hosts.remove(&host) {
                    index.remove(host, memory_mib, cpu_millis);
                }
                if let Some((memory_mib, cpu_millis)) = room {
                    hosts.insert(host, (memory_mib, cpu_millis));
                    index.insert(host, memory_mib, cpu_millis);
                }
            }
            let mut seen = found(&index, &hosts, Wanted { memory_mib, cpu_millis, seed });
            let rows: Vec<_> = seen.iter().map(|host| row_of(hosts[host].0)).collect();
            prop_assert!(rows.is_sorted(), "{rows:?}");
            seen.sort_unstable();
            let fit = |room: &(u32, u32)| room.0 >= memory_mib && room.1 >= cpu_millis;
            let expected: Vec<_> = hosts.iter().filter(|(_, room)| fit(room)).map(|(host, _)| *host).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    /// A fleet of hosts that are all a little too small costs a bounded number of looks, and other seeds look at others.
    #[test]
    fn looks_are_bounded() {
        let mut index = RoomIndex::default();
        for host in 0..10_000 {
            index.insert(host, 1024, 8000);
        }
        let looked = |seed| {
            let mut looked = Vec::new();
            index.search(Wanted { memory_mib: 1100, cpu_millis: 100, seed }, |host| {
                looked.push(host);
                Look::Misses
            });
            looked
        };
        assert_eq!(looked(1).len(), MAX_MISSES as usize);
        assert_eq!(looked(1), looked(1));
        assert_ne!(looked(1), looked(2));
    }
}
