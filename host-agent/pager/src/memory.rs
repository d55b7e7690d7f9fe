//! The memory of one VM while it is brought: which pages are there, what is asked for, what happens on a fault.
//!
//! ```text
//!  page     missing ──fault: zero──────────────────────────────▶ there
//!              │ fault                                             ▲ │ given back by the VMM, then a fault: zero; of a disk: as if missing
//!              ▼                                                   │ ╰──▶ (there)
//!           waiting for its bundle ──bundle came──copied───────────╯
//!
//!  bundle   unknown ──fault, or its turn──▶ queued ──place in flight──▶ asked ──came──▶ here ──all its pages there──▶ spent
//!              ▲                                                         │ failed        │ room is needed (recording)
//!              │◀── nobody waits; counted ───────────────────────────────┤               │
//!              │◀────────────────────────────────────────────────────────│───────────────╯
//!           pack: its pages come from windows ◀──────────────────────────┤
//!           window: the VM is served no more, by name ◀──────────────────╯
//! ```
//! Pure: who copies and who fetches comes in as [`Outside`]. A page of memory that was there once never gets the snapshot's bytes
//! again: a fault on it means that the VMM gave it back. Nobody writes to a disk's image, so a page of one does.

mod place;

use crate::bundles::{BundleId, Bundles, Kind};
use crate::journal::Journal;
use crate::regions::{Regions, Slot};
use crate::uffd::{FaultError, Put};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use warren_chunks::{Image, manifest::ChunkRef, pages::PAGE_BYTES, store::ReadError};
#[cfg(doc)]
use warren_vmm_protocol::pager::AROUND_PAGES;

/// Chunks of one VM in flight at once.
const ASKED_MAX: usize = 8;
/// Of these, such as nobody waits for yet.
const AHEAD_MAX: usize = 4;
/// Chunks that are kept while an access log is recorded, and of a disk.
const KEPT_MAX: usize = 32;

/// What is put in place when somebody waits for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Bring {
    /// That page alone, so that the access log has every page that is touched.
    Page,
    /// All that comes with its chunk.
    Chunk,
    /// What lies around it in its chunk, [`AROUND_PAGES`] aligned, and nothing else: so the VMM can bound what it keeps. What it gave
    /// back comes again.
    Around,
}

/// How a VM is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manner {
    /// The loading set is read from the beginning.
    pub loading: bool,
    /// What is put in place.
    pub bring: Bring,
    /// What is left comes in the background.
    pub fill: bool,
}

impl Manner {
    /// For first resumes: every page that is touched is told.
    pub const RECORD: Self = Self { loading: false, bring: Bring::Page, fill: false };
    /// For all others.
    pub const SERVE: Self = Self { loading: true, bring: Bring::Chunk, fill: false };
    /// For images that the VMM only reads, disks, in first resumes: every page that is put in place is told.
    pub const RECORD_DISK: Self = Self { loading: false, bring: Bring::Around, fill: false };
    /// For disks in all others.
    pub const DISK: Self = Self { loading: true, bring: Bring::Around, fill: false };
}

/// The world of a [`Memory`].
pub trait Outside {
    /// Copies whole pages to an address of the VM.
    fn copy(&mut self, to: u64, pages: &[u8]) -> Result<Put, FaultError>;
    /// Puts zeroes to an address of the VM.
    fn zero(&mut self, to: u64, len: usize) -> Result<Put, FaultError>;
    /// Begins to fetch a chunk of so many pages; [`Memory::arrived`] is to be called once for it.
    fn fetch(&mut self, id: BundleId, chunk: &ChunkRef, pages: u32);
    /// A clock that never goes back, microseconds.
    fn now_us(&self) -> u64;
}

/// Why a VM is served no more.
#[derive(Debug, thiserror::Error)]
pub enum Over {
    /// A fault at an address that was not offered: the VMM's fault.
    #[error("a fault outside of the memory that was offered")]
    Foreign,
    /// A chunk that is needed cannot be had.
    #[error("chunk {name} cannot be had: {}", chain(.source))]
    Chunk {
        /// Which.
        name: warren_chunks::Name,
        /// Why.
        source: ReadError,
    },
    /// A page cannot be put in place.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

/// An error with its sources, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[derive(Debug)]
enum State {
    Queued,
    Asked,
    Here(Arc<Vec<u8>>),
    Spent,
}

/// A bundle whose pages are being put in place, from this one of them on.
#[derive(Debug)]
struct Placing {
    id: BundleId,
    next: usize,
}

/// The memory of one VM.
#[derive(Debug)]
pub struct Memory {
    regions: Regions,
    bundles: Bundles,
    manner: Manner,
    journal: Journal,
    /// By slot.
    there: Vec<bool>,
    touched: Vec<bool>,
    states: HashMap<BundleId, State>,
    /// Pages, and since when they are waited for.
    waiting: HashMap<BundleId, BTreeMap<Slot, u64>>,
    asked: usize,
    /// Somebody waits for these.
    urgent: VecDeque<BundleId>,
    /// Nobody does yet.
    ahead: VecDeque<BundleId>,
    placing: VecDeque<Placing>,
    /// Chunks that are kept, the oldest first.
    kept: VecDeque<BundleId>,
}

impl Memory {
    /// Nothing of it there yet.
    #[must_use]
    pub fn new(image: &Arc<Image>, regions: Regions, manner: Manner, journal: Journal) -> Self {
        let mut bundles = Bundles::new(Arc::clone(image), &regions, manner.loading);
        let mut ahead: VecDeque<_> = bundles.packs().collect();
        if manner.bring == Bring::Around {
            // What comes of it is kept until it is waited for.
            ahead.truncate(KEPT_MAX);
        }
        if manner.fill {
            let log = image.layers().first().and_then(|own| own.parts().log.clone());
            ahead.extend(bundles.in_order(log.as_ref(), &regions));
        }
        let slots = usize::try_from(regions.slots()).unwrap_or(0);
        Self {
            regions,
            bundles,
            manner,
            journal,
            there: vec![false; slots],
            touched: vec![false; slots],
            states: HashMap::new(),
            waiting: HashMap::new(),
            asked: 0,
            urgent: VecDeque::new(),
            ahead,
            placing: VecDeque::new(),
            kept: VecDeque::new(),
        }
    }

    /// Somebody waits for the page at an address.
    pub fn fault(&mut self, address: u64, outside: &mut impl Outside) -> Result<(), Over> {
        let slot = self.regions.at(address).ok_or(Over::Foreign)?;
        self.journal.count(|figures| figures.faults += 1);
        if self.manner.bring != Bring::Around {
            self.touch(slot..=slot);
        }
        if self.is_there(slot) && self.manner.bring != Bring::Around {
            // Given back since; or a second thread's fault on a page that came meanwhile, which this wakes.
            return self.zero(slot.0..slot.0 + 1, outside);
        }
        self.bring(slot, None, outside)
    }

    /// `since`: when that page was first found not to be here.
    fn bring(&mut self, slot: Slot, since: Option<u64>, outside: &mut impl Outside) -> Result<(), Over> {
        let Some((id, rank)) = self.bundles.of(slot, &self.regions) else {
            let block = self.zeroes_around(slot);
            self.zero(block, outside)?;
            self.waited(since, outside);
            return Ok(());
        };
        match self.states.get(&id) {
            Some(State::Here(plain)) => {
                let plain = Arc::clone(plain);
                let again = self.manner.bring == Bring::Around;
                let count = if again { self.together(id, slot) } else { 1 };
                let done = self.copy(slot, &plain, (id, rank), count, outside)?;
                self.journal.count(|figures| figures.ahead += done.copied.saturating_sub(1) as u64);
                self.waited(since, outside);
                if again {
                    // In the order in which they were brought, so that a loading set has them in a row.
                    let last = u32::try_from(done.there.saturating_sub(1)).unwrap_or(0);
                    self.touch(slot..=Slot(slot.0.saturating_add(last)));
                }
                return Ok(());
            }
            Some(State::Asked) => {}
            // Everything of it that goes anywhere is there: unless it is this page, whose bundle has to come again.
            Some(State::Queued | State::Spent) | None => {
                self.states.insert(id, State::Queued);
                if !self.urgent.contains(&id) {
                    self.urgent.push_back(id);
                }
            }
        }
        let since = since.unwrap_or_else(|| outside.now_us());
        self.waiting.entry(id).or_default().entry(slot).or_insert(since);
        self.pump(outside);
        Ok(())
    }

    /// A page that had to be waited for is there.
    fn waited(&self, since: Option<u64>, outside: &impl Outside) {
        let Some(since) = since else { return };
        let waited_us = outside.now_us().saturating_sub(since);
        self.journal.count(|figures| {
            figures.waits += 1;
            figures.waited_us = figures.waited_us.saturating_add(waited_us);
            figures.longest_wait_us = figures.longest_wait_us.max(waited_us);
        });
    }

    /// Tells of pages that are not told of yet.
    fn touch(&mut self, slots: std::ops::RangeInclusive<Slot>) {
        for slot in (slots.start().0..=slots.end().0).map(Slot) {
            if let Some(touched) = self.touched.get_mut(slot.0 as usize).filter(|touched| !**touched) {
                *touched = true;
                self.regions.page(slot).into_iter().for_each(|page| self.journal.touch(page));
            }
        }
    }

    /// Asks for as much as may be in flight: first what somebody waits for. To be called once at the beginning.
    pub fn pump(&mut self, outside: &mut impl Outside) {
        while self.asked < ASKED_MAX {
            let id = match self.urgent.pop_front() {
                Some(id) => id,
                None if self.asked < AHEAD_MAX => match self.next_ahead() {
                    Some(id) => id,
                    None => return,
                },
                None => return,
            };
            let Some(bundle) = self.bundles.get(id) else { continue };
            if matches!(self.states.get(&id), Some(State::Asked | State::Here(_))) {
                continue;
            }
            outside.fetch(id, &bundle.chunk, bundle.of);
            self.states.insert(id, State::Asked);
            self.asked += 1;
        }
    }

    fn next_ahead(&mut self) -> Option<BundleId> {
        while let Some(id) = self.ahead.pop_front() {
            let bundle = self.bundles.get(id)?;
            if !self.states.contains_key(&id) && bundle.pages.iter().any(|(_, slot)| !self.is_there(*slot)) {
                return Some(id);
            }
        }
        None
    }

    /// A chunk came, opened, or did not.
    pub fn arrived(
        &mut self,
        id: BundleId,
        result: Result<Vec<u8>, ReadError>,
        outside: &mut impl Outside,
    ) -> Result<(), Over> {
        self.asked = self.asked.saturating_sub(1);
        let waiting = self.waiting.remove(&id).unwrap_or_default();
        let Some((kind, name, of)) = self.bundles.get(id).map(|it| (it.kind, it.chunk.name, it.of)) else {
            return Ok(());
        };
        match result {
            Ok(plain) => {
                self.journal.count(|figures| {
                    *match kind {
                        Kind::Pack => &mut figures.packs,
                        Kind::Window => &mut figures.windows,
                    } += 1;
                    figures.filled += u64::from(kind == Kind::Window && waiting.is_empty());
                    figures.bytes += plain.len() as u64 + warren_chunks::seal::TAG_BYTES as u64;
                });
                debug_assert_eq!(plain.len(), of as usize * PAGE_BYTES, "the store opens no other");
                self.states.insert(id, State::Here(Arc::new(plain)));
                for (slot, since) in waiting {
                    self.bring(slot, Some(since), outside)?;
                }
                if self.manner.bring == Bring::Chunk {
                    self.placing.push_back(Placing { id, next: 0 });
                } else {
                    self.keep(id);
                }
            }
            Err(source) => {
                self.states.remove(&id);
                if kind == Kind::Window && !waiting.is_empty() {
                    return Err(Over::Chunk { name, source });
                }
                self.journal.count(|figures| figures.failures += 1);
                if kind == Kind::Pack {
                    self.bundles.lose(id);
                }
                for (slot, since) in waiting {
                    self.bring(slot, Some(since), outside)?;
                }
            }
        }
        self.pump(outside);
        Ok(())
    }

    /// Nothing is waited for just now: what is kept can be had again.
    pub fn rest(&mut self) {
        while let Some(id) = self.kept.pop_front() {
            self.states.remove(&id);
        }
    }

    /// Whether something is kept that a rest would drop.
    #[must_use]
    pub fn keeps(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether every page is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.there.iter().all(|there| *there)
    }

    fn keep(&mut self, id: BundleId) {
        self.kept.push_back(id);
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_front().into_iter().for_each(|oldest| {
                self.states.remove(&oldest);
            });
        }
    }
}

#[cfg(test)]
mod tests;
