//! What happened while a VM was served: which pages were touched first, in order, and what it cost to bring them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warren_chunks::{manifest::AccessLog, pages::PageRun};

/// Most runs of a log. A guest that scatters more loses the end of its own log.
pub const RUNS_MAX: usize = 15_000;

/// Most pages of a log: twice what the largest guest has. Whoever reads one goes through all of them.
pub const TOUCHED_MAX: u32 = 1 << 21;

/// Counts of one VM's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// Faults told by the kernel.
    pub faults: u64,
    /// Pages waited for whose chunk was not there yet, each until it was put in place.
    pub waits: u64,
    /// How long all of them together waited, microseconds.
    pub waited_us: u64,
    /// How long the one did that waited longest, microseconds.
    pub longest_wait_us: u64,
    /// Pages copied, asked for or not.
    pub copied: u64,
    /// Of these, such as came out of the loading set.
    pub from_packs: u64,
    /// Of the copied ones, such as nobody waited for.
    pub ahead: u64,
    /// Pages of zeroes put in place.
    pub zeroed: u64,
    /// Chunks of the loading set that came.
    pub packs: u64,
    /// Other chunks that came.
    pub windows: u64,
    /// Of these, such as nobody waited for: in the background.
    pub filled: u64,
    /// Bytes of all of them, sealed.
    pub bytes: u64,
    /// Chunks that could not be had and were not needed, or could be had otherwise.
    pub failures: u64,
}

impl Figures {
    /// Adds another VM's.
    pub fn add(&mut self, other: &Self) {
        self.longest_wait_us = self.longest_wait_us.max(other.longest_wait_us);
        for (own, others) in [
            (&mut self.faults, other.faults),
            (&mut self.waits, other.waits),
            (&mut self.waited_us, other.waited_us),
            (&mut self.copied, other.copied),
            (&mut self.from_packs, other.from_packs),
            (&mut self.ahead, other.ahead),
            (&mut self.zeroed, other.zeroed),
            (&mut self.packs, other.packs),
            (&mut self.windows, other.windows),
            (&mut self.filled, other.filled),
            (&mut self.bytes, other.bytes),
            (&mut self.failures, other.failures),
        ] {
            *own = own.saturating_add(others);
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    figures: Figures,
    touched: Vec<PageRun>,
    /// Of these runs.
    pages: u32,
    ended: Option<String>,
}

/// Written by the thread that serves a VM, read by whoever asks. A clone is the same journal.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Inner>>);

/// What a journal says at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Counts.
    pub figures: Figures,
    /// Pages in the order in which they were waited for, each once.
    pub touched: Vec<PageRun>,
    /// Why it is served no more.
    pub ended: Option<String>,
}

impl Journal {
    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.lock().figures);
    }

    /// A page was waited for, for the first time.
    pub fn touch(&self, page: u32) {
        let mut inner = self.lock();
        if inner.pages >= TOUCHED_MAX {
            return;
        }
        let full = inner.touched.len() >= RUNS_MAX;
        match inner.touched.last_mut() {
            Some(run) if run.pages().end == page => run.count += 1,
            _ if full => return,
            _ => inner.touched.push(PageRun { first: page, count: 1 }),
        }
        inner.pages += 1;
    }

    /// The counts now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.lock().figures
    }

    /// It is over.
    pub fn end(&self, why: String) {
        self.lock().ended = Some(why);
    }

    /// Whether it is.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// What it says now.
    #[must_use]
    pub fn read(&self) -> Entry {
        let inner = self.lock();
        Entry { figures: inner.figures, touched: inner.touched.clone(), ended: inner.ended.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The log of this resume; `None` if nothing was waited for.
    #[must_use]
    pub fn log(&self) -> Option<AccessLog> {
        let touched = self.touched.iter().flat_map(|run| run.pages());
        (!self.touched.is_empty()).then(|| AccessLog::of_resume(touched))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_in_order_and_bounded() {
        let journal = Journal::default();
        for page in [7, 8, 3, 9] {
            journal.touch(page);
        }
        let log = journal.read().log().unwrap();
        let run = |first, count| PageRun { first, count };
        assert_eq!((log.runs(), log.resumes()), (&[run(7, 2), run(3, 1), run(9, 1)][..], 1));
        (0..40_000).for_each(|page| journal.touch(page * 2 + 100));
        assert_eq!(journal.read().touched.len(), RUNS_MAX);
        assert_eq!(Journal::default().read().log(), None);
        let journal = Journal::default();
        (0..TOUCHED_MAX + 9).for_each(|page| journal.touch(page));
        assert_eq!(journal.read().touched, [run(0, TOUCHED_MAX)]);
    }
}
