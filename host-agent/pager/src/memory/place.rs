//! Putting pages in place: in runs, never over what is there.

use super::{Bring, Memory, Outside, Over, Placing, State};
use crate::bundles::{BundleId, Kind};
use crate::regions::Slot;
use crate::uffd::Put;
use std::sync::Arc;
use warren_chunks::pages::PAGE_BYTES;
use warren_vmm_protocol::pager::AROUND_PAGES;

/// Pages put in place before faults are looked at again.
const SLICE: usize = 64;

/// What became of pages that were to be copied.
pub(super) struct Copied {
    /// So many are there now, the first of all; one at least.
    pub(super) there: usize,
    /// So many of these were not before.
    pub(super) copied: usize,
}

impl Memory {
    /// Puts some of what came in place. Whether there is more.
    pub fn place(&mut self, outside: &mut impl Outside) -> Result<bool, Over> {
        let Some(Placing { id, mut next }) = self.placing.pop_front() else { return Ok(false) };
        let Some(State::Here(plain)) = self.states.get(&id) else { return Ok(!self.placing.is_empty()) };
        let plain = Arc::clone(plain);
        let mut room = SLICE;
        while room > 0 {
            let Some((slot, rank, count)) = self.run(id, &mut next, room) else {
                self.states.insert(id, State::Spent);
                return Ok(!self.placing.is_empty());
            };
            let Copied { there: done, copied } = self.copy(slot, &plain, (id, rank), count, outside)?;
            self.journal.count(|figures| figures.ahead += copied as u64);
            // A part of it was there: the rest is looked at again.
            next += done;
            room = room.saturating_sub(done);
        }
        self.placing.push_front(Placing { id, next });
        Ok(true)
    }

    /// The next pages of a bundle that are missing and follow each other in both places; `next` is the first one's index.
    fn run(&self, id: BundleId, next: &mut usize, most: usize) -> Option<(Slot, u32, usize)> {
        let bundle = self.bundles.get(id)?;
        while bundle.pages.get(*next).is_some_and(|(_, slot)| self.is_there(*slot)) {
            *next += 1;
        }
        let rest = bundle.pages.get(*next..)?;
        let (rank, slot) = rest.first()?;
        let address = self.regions.address(*slot)?;
        let follows = |(at, (r, s)): &(u32, &(u32, Slot))| {
            *r == rank + at
                && !self.is_there(*s)
                && self.regions.address(*s) == Some(address + u64::from(*at) * PAGE_BYTES as u64)
        };
        let count = (0..).zip(rest).take(most).take_while(follows).count();
        Some((*slot, *rank, count))
    }

    /// How many pages from one on follow each other in their bundle too, as far as they belong together.
    pub(super) fn together(&self, id: BundleId, slot: Slot) -> usize {
        let end = self.regions.around(slot, AROUND_PAGES).end;
        let pages = self.bundles.get(id).map_or(&[][..], |bundle| &bundle.pages);
        let Some(at) = pages.iter().position(|(_, of)| *of == slot) else { return 1 };
        let rest = pages.get(at..).unwrap_or_default();
        let Some((rank, _)) = rest.first() else { return 1 };
        let follows = |(n, (r, s)): &(u32, &(u32, Slot))| *r == rank + n && s.0 == slot.0 + n && s.0 < end;
        (0..).zip(rest).take_while(follows).count().max(1)
    }

    /// Copies pages that follow each other.
    pub(super) fn copy(
        &mut self,
        slot: Slot,
        plain: &[u8],
        (id, rank): (BundleId, u32),
        count: usize,
        outside: &mut impl Outside,
    ) -> Result<Copied, Over> {
        let from = rank as usize * PAGE_BYTES;
        let pages = plain.get(from..from + count * PAGE_BYTES).unwrap_or_default();
        let Some(to) = self.regions.address(slot).filter(|_| !pages.is_empty()) else {
            return Ok(Copied { there: count, copied: 0 });
        };
        let (there, copied) = match outside.copy(to, pages)? {
            Put::Done(bytes) => ((bytes / PAGE_BYTES).clamp(1, count), bytes / PAGE_BYTES),
            Put::Present | Put::NoPlace => (1, 0),
        };
        let is_pack = self.bundles.get(id).is_some_and(|bundle| bundle.kind == Kind::Pack);
        self.journal.count(|figures| {
            figures.copied += copied as u64;
            figures.from_packs += if is_pack { copied as u64 } else { 0 };
        });
        self.mark(slot, there);
        Ok(Copied { there, copied })
    }

    pub(super) fn zero(
        &mut self,
        slots: std::ops::Range<u32>,
        outside: &mut impl Outside,
    ) -> Result<(), Over> {
        let mut next = slots.start;
        while next < slots.end {
            let Some(to) = self.regions.address(Slot(next)) else { return Ok(()) };
            let len = (slots.end - next) as usize * PAGE_BYTES;
            let done = match outside.zero(to, len)? {
                Put::Done(bytes) => {
                    self.journal.count(|figures| figures.zeroed += (bytes / PAGE_BYTES) as u64);
                    (bytes / PAGE_BYTES).max(1)
                }
                Put::Present | Put::NoPlace => 1,
            };
            self.mark(Slot(next), done);
            next = next.saturating_add(u32::try_from(done).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Pages of zeroes around one that are missing, all in a row.
    pub(super) fn zeroes_around(&mut self, slot: Slot) -> std::ops::Range<u32> {
        if self.manner.bring == Bring::Page {
            return slot.0..slot.0 + 1;
        }
        let block = self.regions.around(slot, AROUND_PAGES);
        let again = self.manner.bring == Bring::Around;
        let mut is_zero = |at: u32| {
            (again || !self.is_there(Slot(at))) && self.bundles.of(Slot(at), &self.regions).is_none()
        };
        let first = (block.start..slot.0).rev().take_while(|at| is_zero(*at)).last().unwrap_or(slot.0);
        let last = (slot.0 + 1..block.end).take_while(|at| is_zero(*at)).last().unwrap_or(slot.0);
        first..last + 1
    }

    pub(super) fn is_there(&self, slot: Slot) -> bool {
        self.there.get(slot.0 as usize).copied().unwrap_or(true)
    }

    fn mark(&mut self, slot: Slot, count: usize) {
        let from = slot.0 as usize;
        self.there.iter_mut().skip(from).take(count).for_each(|there| *there = true);
    }
}
