//! Where pages of an image go in a VMM's address space, as the VMM says it, judged.
//!
//! A VMM that its guest has taken over says what it likes. Whatever it says, a page of *its* image goes into *its* memory: the
//! image is chosen by who started it, and addresses mean something in the address space of its own userfaultfd alone. What is
//! judged here is what could cost the pager: overflow, and work or memory that no image of this size has.

use std::ops::Range;
use warren_chunks::pages::PAGE_BYTES;
use warren_vmm_protocol::pager::{Offer, PAGER_VERSION, REGIONS_MAX, Region};

const PAGE: u64 = PAGE_BYTES as u64;
/// Past any address of user space on x86-64, with five levels of page tables too.
const ADDRESS_END: u64 = 1 << 56;

/// Why an offer is refused: the VMM's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Another version.
    #[error("an offer of version {0}")]
    Version(u32),
    /// None, or more than there may be.
    #[error("an offer of {0} regions")]
    Count(usize),
    /// A region that is not whole pages, or nothing.
    #[error("a region that is not whole pages")]
    NotPages,
    /// A region outside of the image.
    #[error("a region outside of the image")]
    OutsideImage,
    /// A region outside of any address space.
    #[error("a region outside of any address space")]
    OutsideAddresses,
    /// Regions over each other.
    #[error("regions over each other")]
    Overlap,
}

/// A page that can be brought: the how many-th of all regions, in the order of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

#[derive(Clone, Copy, Debug)]
struct Part {
    host: u64,
    /// First page of the image.
    page: u32,
    /// First slot.
    slot: u32,
    count: u32,
}

impl Part {
    const fn pages(&self) -> Range<u32> {
        self.page..self.page + self.count
    }

    const fn slots(&self) -> Range<u32> {
        self.slot..self.slot + self.count
    }
}

/// Regions of an offer: whole pages of the image, each page at one address at most, each address of one page at most.
#[derive(Clone, Debug)]
pub struct Regions {
    /// By address, so by slot too.
    parts: Vec<Part>,
    /// The same by page: indexes of `parts`.
    by_page: Vec<usize>,
    slots: u32,
}

impl Regions {
    /// Judges an offer for an image of so many pages.
    pub fn judge(offer: &Offer, image_pages: u32) -> Result<Self, OfferError> {
        if offer.version != PAGER_VERSION {
            return Err(OfferError::Version(offer.version));
        }
        if offer.regions.is_empty() || offer.regions.len() > REGIONS_MAX {
            return Err(OfferError::Count(offer.regions.len()));
        }
        let mut parts: Vec<Part> =
            offer.regions.iter().map(|region| part(region, image_pages)).collect::<Result<_, _>>()?;
        parts.sort_unstable_by_key(|part| part.host);
        let mut slots = 0_u32;
        let mut end = 0;
        for part in &mut parts {
            if part.host < end {
                return Err(OfferError::Overlap);
            }
            end = part.host + u64::from(part.count) * PAGE;
            part.slot = slots;
            // No page is there twice, or it is refused below; until then the sum may be anything.
            slots = slots.saturating_add(part.count);
        }
        let mut by_page: Vec<usize> = (0..parts.len()).collect();
        by_page.sort_unstable_by_key(|&at| parts.get(at).map(|part| part.page));
        let mut end = 0;
        for part in by_page.iter().filter_map(|&at| parts.get(at)) {
            if part.page < end {
                return Err(OfferError::Overlap);
            }
            end = part.pages().end;
        }
        Ok(Self { parts, by_page, slots })
    }

    /// How many pages can be brought.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// The first address, and how many bytes follow it.
    #[must_use]
    pub fn first(&self) -> (u64, u64) {
        self.parts.first().map_or((0, 0), |part| (part.host, u64::from(part.count) * PAGE))
    }

    /// The page at an address; `None` outside of all regions.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Slot> {
        let part = self.parts.get(self.parts.partition_point(|part| part.host <= address).checked_sub(1)?)?;
        let at = u32::try_from((address - part.host) / PAGE).ok()?;
        (at < part.count).then_some(Slot(part.slot + at))
    }

    /// Where a page of the image goes; `None` if it goes nowhere.
    #[must_use]
    pub fn of_page(&self, page: u32) -> Option<Slot> {
        let below = |&at: &usize| self.parts.get(at).is_some_and(|part| part.page <= page);
        let found = self.by_page.get(self.by_page.partition_point(below).checked_sub(1)?)?;
        let part = self.parts.get(*found).filter(|part| part.pages().contains(&page))?;
        Some(Slot(part.slot + (page - part.page)))
    }

    /// The image's page of a slot.
    #[must_use]
    pub fn page(&self, slot: Slot) -> Option<u32> {
        self.part(slot).map(|part| part.page + (slot.0 - part.slot))
    }

    /// Its address.
    #[must_use]
    pub fn address(&self, slot: Slot) -> Option<u64> {
        self.part(slot).map(|part| part.host + u64::from(slot.0 - part.slot) * PAGE)
    }

    fn part(&self, slot: Slot) -> Option<&Part> {
        let at = self.parts.partition_point(|part| part.slot <= slot.0).checked_sub(1)?;
        self.parts.get(at).filter(|part| part.slots().contains(&slot.0))
    }

    /// Every page of the image that goes somewhere, ascending.
    pub fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_page.iter().filter_map(|&at| self.parts.get(at)).flat_map(Part::pages)
    }

    /// The slots of the aligned block of `count` pages around a slot, as far as they lie in its region.
    #[must_use]
    pub fn around(&self, slot: Slot, count: u32) -> Range<u32> {
        let Some((part, count)) = self.part(slot).zip(Some(count.max(1))) else { return 0..0 };
        let page = part.page + (slot.0 - part.slot);
        let first = (page - page % count).max(part.page);
        let end = (page - page % count).saturating_add(count).min(part.pages().end);
        part.slot + (first - part.page)..part.slot + (end - part.page)
    }
}

fn part(region: &Region, image_pages: u32) -> Result<Part, OfferError> {
    let Region { image, host, len } = *region;
    if len == 0 || [image, host, len].iter().any(|bytes| bytes % PAGE != 0) {
        return Err(OfferError::NotPages);
    }
    let number = |bytes: u64| u32::try_from(bytes / PAGE).map_err(|_| OfferError::OutsideImage);
    let (page, count) = (number(image)?, number(len)?);
    if page.checked_add(count).is_none_or(|end| end > image_pages) {
        return Err(OfferError::OutsideImage);
    }
    if host == 0 || host.checked_add(len).is_none_or(|end| end > ADDRESS_END) {
        return Err(OfferError::OutsideAddresses);
    }
    Ok(Part { host, page, slot: 0, count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(regions: &[(u64, u64, u64)]) -> Offer {
        let region = |&(image, host, len): &(u64, u64, u64)| Region { image, host, len };
        Offer { version: PAGER_VERSION, regions: regions.iter().map(region).collect() }
    }

    #[test]
    fn what_is_refused() {
        let many = vec![(0, PAGE, PAGE); REGIONS_MAX + 1];
        for (regions, why) in [
            (&[][..], OfferError::Count(0)),
            (&many, OfferError::Count(REGIONS_MAX + 1)),
            (&[(0, PAGE, 0)], OfferError::NotPages),
            (&[(1, PAGE, PAGE)], OfferError::NotPages),
            (&[(0, PAGE + 1, PAGE)], OfferError::NotPages),
            (&[(0, PAGE, PAGE - 1)], OfferError::NotPages),
            (&[(99 * PAGE, PAGE, 2 * PAGE)], OfferError::OutsideImage),
            (&[(u64::MAX - PAGE + 1, PAGE, PAGE)], OfferError::OutsideImage),
            (&[(0, PAGE, u64::MAX - PAGE + 1)], OfferError::OutsideImage),
            (&[(0, u64::MAX - PAGE + 1, PAGE)], OfferError::OutsideAddresses),
            (&[(0, 0, PAGE)], OfferError::OutsideAddresses),
            (&[(0, PAGE, 2 * PAGE), (9 * PAGE, 2 * PAGE, PAGE)], OfferError::Overlap),
            (&[(0, PAGE, 2 * PAGE), (PAGE, 9 * PAGE, PAGE)], OfferError::Overlap),
        ] {
            assert_eq!(Regions::judge(&offer(regions), 100).unwrap_err(), why, "{regions:?}");
        }
        let other = Offer { version: 0, ..offer(&[(0, PAGE, PAGE)]) };
        assert_eq!(Regions::judge(&other, 100).unwrap_err(), OfferError::Version(0));
    }

    #[test]
    fn blocks_end_with_their_region() {
        let regions = Regions::judge(&offer(&[(3 * PAGE, 64 * PAGE, 20 * PAGE)]), 100).unwrap();
        let around = |page| regions.around(regions.of_page(page).unwrap(), 8);
        assert_eq!((around(3), around(9), around(22)), (0..5, 5..13, 13..20));
        assert_eq!(regions.around(Slot(0), 0), 0..1);
        assert_eq!(regions.around(Slot(20), 8), 0..0);
    }

    proptest! {
        /// Any offer at all: refused, or every page goes to one address and back.
        #[test]
        fn what_is_let_through_is_one_to_one(
            regions in prop::collection::vec((0_u64..64, 0_u64..64, 0_u64..16), 0..6), exact in any::<bool>(),
        ) {
            let scale = if exact { PAGE } else { PAGE / 2 };
            let scaled: Vec<_> = regions.iter().map(|(a, b, c)| (a * scale, b * scale, c * scale)).collect();
            let Ok(regions) = Regions::judge(&offer(&scaled), 60) else { return Ok(()) };
            prop_assert_eq!(regions.pages().count(), regions.slots() as usize);
            let mut addresses = std::collections::BTreeSet::new();
            for page in regions.pages() {
                prop_assert!(page < 60);
                let slot = regions.of_page(page).unwrap();
                prop_assert!(slot.0 < regions.slots());
                prop_assert_eq!(regions.page(slot), Some(page));
                let address = regions.address(slot).unwrap();
                prop_assert!(addresses.insert(address));
                prop_assert_eq!(regions.at(address), Some(slot));
                prop_assert_eq!(regions.at(address + PAGE - 1), Some(slot));
                prop_assert!(regions.around(slot, 8).contains(&slot.0));
            }
            prop_assert_eq!(regions.page(Slot(regions.slots())), None);
        }

        #[test]
        fn any_bytes_are_an_offer_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), address in any::<u64>()) {
            if let Some(offer) = warren_vmm_protocol::pager::decode::<Offer>(&bytes)
                && let Ok(regions) = Regions::judge(&offer, u32::MAX)
            {
                let _ = regions.at(address);
            }
        }
    }
}
