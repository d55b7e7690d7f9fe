//! A guest's memory as cells of a screen: how much of each piece there is, and when starts come to it.

use super::told::PAGE;
use crate::screen;
use std::fmt::Write as _;
use warren_proto::v1::MapSnapshotResponse;

/// Cells of a row.
const COLUMNS: u32 = 64;
/// Most rows; memory that does not fit has larger cells.
const ROWS: usize = 24;
/// In so many parts the order of access is told.
const PARTS: u64 = 9;

/// A piece of memory: pages, and the rank of the first of them that was touched.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    pages: u64,
    first: Option<u32>,
}

/// Where windows of memory are drawn; rows of nothing are left out.
struct Grid {
    /// Windows of a cell.
    scale: u32,
    cell_pages: u64,
    rows: Vec<u32>,
}

impl Grid {
    /// One window a cell, or as many as bring all of them, which ascend, to a screen.
    fn of(windows: &[(u32, Cell)], window_pages: u32) -> Self {
        let rows = |scale: u32| {
            let mut rows: Vec<u32> = windows.iter().map(|(number, _)| number / scale / COLUMNS).collect();
            rows.dedup();
            rows
        };
        let scale = (0..28).map(|bits| 1 << bits).find(|scale| rows(*scale).len() <= ROWS).unwrap_or(1 << 28);
        Self { scale, cell_pages: u64::from(scale) * u64::from(window_pages), rows: rows(scale) }
    }

    /// A line a row.
    fn draw(&self, windows: &[(u32, Cell)], shade: impl Fn(&Cell) -> char) -> String {
        let (mut text, mut last) = (String::new(), None);
        for &row in &self.rows {
            if last.is_some_and(|last| row > last + 1) {
                text += "                  ...\n";
            }
            last = Some(row);
            let mut cells = [Cell::default(); COLUMNS as usize];
            for (number, window) in windows.iter().filter(|(number, _)| number / self.scale / COLUMNS == row)
            {
                if let Some(cell) = cells.get_mut((number / self.scale % COLUMNS) as usize) {
                    cell.pages += window.pages;
                    cell.first = cell.first.into_iter().chain(window.first).min();
                }
            }
            let address = u64::from(row) * u64::from(COLUMNS) * self.cell_pages * PAGE;
            let shades: String = cells.iter().map(&shade).collect();
            let held: u64 = cells.iter().map(|cell| cell.pages).sum();
            let _ = writeln!(text, "{address:>#14x}  |{shades}| {held:>6} pages");
        }
        text
    }
}

/// Each cell darker the more of its pages there are.
pub(super) fn picture(map: &MapSnapshotResponse) -> String {
    let pages = |filled, same, replaced| u64::from(filled) + u64::from(same) + u64::from(replaced);
    let windows = map
        .windows
        .iter()
        .map(|one| (one.number, Cell { pages: pages(one.filled, one.same, one.replaced), first: None }));
    let windows: Vec<_> = windows.collect();
    let grid = Grid::of(&windows, map.window_pages);
    let rows = grid.draw(&windows, |cell| shade(cell.pages, grid.cell_pages));
    let all: u64 = map.windows.iter().map(|one| u64::from(one.filled)).sum();
    format!(
        "each cell {} of guest memory: '.' a page or more, ':' a quarter of them, '+' half, '#' nine tenths\n{rows}\
         {all} pages, {}",
        screen::bytes(grid.cell_pages * PAGE),
        screen::bytes(all * PAGE)
    )
}

/// Each cell by when starts first came to it.
pub(super) fn order(map: &MapSnapshotResponse) -> String {
    let Some(touches) = map.touches.as_ref().filter(|touches| !touches.windows.is_empty()) else {
        return "the order in which starts touch it is not known: starts are recorded where hosts share snapshots \
                (--snapshot-origin) and one starts from another's"
            .to_owned();
    };
    let windows = touches.windows.iter();
    let windows: Vec<_> =
        windows.map(|one| (one.number, Cell { pages: one.pages.into(), first: Some(one.first) })).collect();
    let grid = Grid::of(&windows, map.window_pages);
    let all = u64::from(touches.pages).max(1);
    let rows = grid.draw(&windows, |cell| match cell.first {
        // A host's word: a rank beyond all pages is the last part.
        Some(first) => char::from_digit(
            u32::try_from(u64::from(first) * PARTS / all).map_or(8, |part| part.min(8)) + 1,
            10,
        )
        .unwrap_or('?'),
        None => ' ',
    });
    let kept: u64 = map.windows.iter().map(|one| u64::from(one.filled)).sum();
    format!(
        "what {} recorded start{} touched, each cell {}: '1' among the first ninth of pages, '9' among the last\n{rows}\
         {} pages of {kept} in the working set, {}",
        touches.starts,
        if touches.starts == 1 { "" } else { "s" },
        screen::bytes(grid.cell_pages * PAGE),
        touches.pages,
        screen::bytes(u64::from(touches.pages) * PAGE),
    )
}

const fn shade(pages: u64, of: u64) -> char {
    match pages {
        0 => ' ',
        _ if pages * 10 >= of * 9 => '#',
        _ if pages * 2 >= of => '+',
        _ if pages * 4 >= of => ':',
        _ => '.',
    }
}
