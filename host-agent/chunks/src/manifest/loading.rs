//! In which order pages are needed: the access log of resumes, and the pages packed in that order.
//!
//! A sealed chunk opens whole or not at all, and a working set comes in runs of two or three pages. So the pages that
//! resumes touch are stored a second time, side by side, and read in one go while the guest already runs.

use super::ChunkRef;
use crate::pages::{PageRun, each, runs};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// One chunk of a loading set: these pages, packed in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// What holds them.
    pub chunk: ChunkRef,
    /// Which they are.
    pub pages: Vec<PageRun>,
}

/// Pages in the order resumes touched them first; the union of several resumes converges on the working set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    resumes: u32,
    runs: Vec<PageRun>,
}

impl AccessLog {
    /// The log of one resume. A page that is named again counts where it came first.
    #[must_use]
    pub fn of_resume(touched: impl IntoIterator<Item = u32>) -> Self {
        let mut seen = HashSet::new();
        Self { resumes: 1, runs: runs(touched.into_iter().filter(|page| seen.insert(*page))) }
    }

    /// How many resumes it is of.
    #[must_use]
    pub const fn resumes(&self) -> u32 {
        self.resumes
    }

    /// The pages, in the order of access.
    #[must_use]
    pub fn runs(&self) -> &[PageRun] {
        &self.runs
    }

    /// The union: what this one knows first, in its order, then what only the other saw.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut seen: HashSet<u32> = HashSet::new();
        let both = each(&self.runs).chain(each(&other.runs));
        let runs = runs(both.filter(|page| seen.insert(*page)));
        Self { resumes: self.resumes.saturating_add(other.resumes), runs }
    }

    /// How many pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }
}
