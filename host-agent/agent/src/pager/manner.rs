//! How a start is served, and what is learned of it: pure, a book of what this agent's starts have touched.
//!
//! ```text
//! of a snapshot:  no log kept ──RECORD──▶ a log comes ── new pages ─▶ learned, RECORD again, at most RECORDS times
//!                                                    ╰─ few new ────▶ settled: SERVE
//! ```

use std::collections::HashMap;
use warren_artefact::SnapshotKey;
use warren_chunks::{manifest::AccessLog, pages::PageRun};
use warren_pager::Manner;

/// Most resumes of one snapshot that are recorded by one agent.
const RECORDS: u32 = 3;
/// A log with less than one page in so many that was not known has nothing new to tell.
const NEW_ONE_IN: usize = 50;
/// Most snapshots that are remembered; the one that was learned of longest ago makes room.
const MOST: usize = 128;

/// What a start touched.
#[derive(Clone, Debug)]
pub struct Touched {
    /// Of its memory.
    pub memory: AccessLog,
    /// Of what lies under its disk, if it has one and read of it.
    pub disk: Option<AccessLog>,
}

#[derive(Debug, Default)]
struct Known {
    /// What was touched so far, all together, whatever the order.
    memory: Option<AccessLog>,
    disk: Option<AccessLog>,
    recorded: u32,
    settled: bool,
    turn: u64,
}

/// The book.
#[derive(Debug, Default)]
pub struct Manners {
    known: HashMap<SnapshotKey, Known>,
    turn: u64,
}

impl Manners {
    /// How the next start of this snapshot is served; `resumes` are those whose accesses its manifest has already.
    pub fn next(&mut self, key: SnapshotKey, resumes: u32) -> Manner {
        let known = self.entry(key);
        if known.settled || known.recorded.max(resumes) >= RECORDS {
            Manner::SERVE
        } else {
            known.recorded += 1;
            Manner::RECORD
        }
    }

    /// A start that was recorded touched this. Whether it is to be learned: something of it is new.
    pub fn touched(&mut self, key: SnapshotKey, touched: &Touched) -> bool {
        let known = self.entry(key);
        let memory = merge(&mut known.memory, &touched.memory);
        let disk = touched.disk.as_ref().is_some_and(|log| merge(&mut known.disk, log));
        known.settled = !memory && !disk;
        if known.settled {
            (known.memory, known.disk) = (None, None);
        }
        memory || disk
    }

    fn entry(&mut self, key: SnapshotKey) -> &mut Known {
        if self.known.len() >= MOST
            && !self.known.contains_key(&key)
            && let Some(oldest) = self.known.iter().min_by_key(|(_, known)| known.turn).map(|(key, _)| *key)
        {
            self.known.remove(&oldest);
        }
        self.turn += 1;
        let known = self.known.entry(key).or_default();
        known.turn = self.turn;
        known
    }
}

/// Adds a log to what is known; whether there is news in it.
fn merge(known: &mut Option<AccessLog>, log: &AccessLog) -> bool {
    let merged = known.as_ref().map_or_else(|| log.clone(), |known| known.merged(log));
    let before = known.as_ref().map_or(0, |log| pages(log.runs()));
    let new = pages(merged.runs()).saturating_sub(before);
    let is_news = new.saturating_mul(NEW_ONE_IN) > pages(merged.runs());
    *known = Some(merged);
    is_news
}

fn pages(runs: &[PageRun]) -> usize {
    runs.iter().map(|run| run.count as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> SnapshotKey {
        SnapshotKey::from_hex(&format!("{number:064x}")).unwrap()
    }

    fn log(pages: std::ops::Range<u32>) -> Touched {
        Touched { memory: AccessLog::of_resume(pages), disk: None }
    }

    #[test]
    fn recorded_until_nothing_new_comes() {
        let mut manners = Manners::default();
        assert_eq!(manners.next(key(1), 0), Manner::RECORD);
        assert!(manners.touched(key(1), &log(0..100)));
        assert_eq!(manners.next(key(1), 1), Manner::RECORD);
        assert!(!manners.touched(key(1), &log(0..101)), "one page more of a hundred");
        assert_eq!(manners.next(key(1), 1), Manner::SERVE);
    }

    #[test]
    fn news_of_a_disk_are_news() {
        let mut manners = Manners::default();
        let on_disk = |pages| Touched { disk: Some(AccessLog::of_resume(pages)), ..log(0..100) };
        for (touched, is_news) in
            [(log(0..100), true), (on_disk(0..16), true), (on_disk(0..32), true), (on_disk(0..32), false)]
        {
            assert_eq!(manners.touched(key(1), &touched), is_news, "{touched:?}");
        }
        assert_eq!(manners.next(key(1), 1), Manner::SERVE);
    }

    #[test]
    fn what_never_settles_is_recorded_so_often_and_no_more() {
        let mut manners = Manners::default();
        for round in 0..RECORDS {
            assert_eq!(manners.next(key(1), 0), Manner::RECORD);
            assert!(manners.touched(key(1), &log(round * 1000..round * 1000 + 500)));
        }
        assert_eq!(manners.next(key(1), 0), Manner::SERVE);
        assert_eq!(manners.next(key(2), RECORDS), Manner::SERVE, "others recorded it");
    }

    #[test]
    fn the_book_is_bounded() {
        let mut manners = Manners::default();
        for number in 0..MOST + 10 {
            manners.next(key(number), 0);
        }
        assert_eq!(manners.known.len(), MOST);
        assert!(manners.known.contains_key(&key(MOST + 9)) && !manners.known.contains_key(&key(0)));
    }
}
