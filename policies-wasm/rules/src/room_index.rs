//! Hosts by how much room they have, so that best fit is a look-up and not a scan.
//!
//! A grid: rows are classes of free memory, columns classes of free CPU, a cell is the set of hosts of that class.
//! Classes are logarithmic with four steps an octave, so a row spans at most a quarter of its value:
//!
//! ```text
//!            cpu class ->   0   1   2  ...  (one u64 of non-empty columns a row)
//! memory class 0           {}  {3} {}
//!              1           {}  {}  {7,9}
//!              .           (one u128 of non-empty rows)
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
    rows: u128,
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
        self.rows |= 1 << row;
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
            if *columns == 0 {
                self.rows &= !(1 << row);
            }
        }
    }

    /// Forgets every host.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Offers hosts, tightest class first, to `take`, which says whether the host fits and whether to go on.
    pub(crate) fn search(&self, wanted: Wanted, mut take: impl FnMut(HostIndex) -> Look) {
        let (first_row, first_column) = (row_of(wanted.memory_mib), column_of(wanted.cpu_millis));
        let mut misses = 0;
        let mut rows = self.rows & (u128::MAX << first_row);
        while rows != 0 {
            let row = rows.trailing_zeros();
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
    let mut from = start;
    let mut wrapped = start == 0;
    loop {
        let Some(host) = set.next(from).filter(|host| !(wrapped && start > 0 && *host >= start)) else {
            if wrapped {
                return true;
            }
            wrapped = true;
            from = 0;
            continue;
        };
        match take(host) {
            Look::Fits => {}
            Look::Enough => return false,
            Look::Misses => {
                *misses += 1;
                if *misses >= MAX_MISSES {
                    // Leave this cell; those where every host fits are still looked at.
                    return true;
                }
            }
        }
        from = host + 1;
    }
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
