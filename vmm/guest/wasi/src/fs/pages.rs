//! The bytes of a file in `/tmp`: a table of pages, so that growing never copies and holes cost nothing.

use super::quota::Quota;
use crate::Errno;
use alloc::{boxed::Box, vec::Vec};

/// Bytes in a page.
pub(super) const PAGE: usize = 4096;
/// Charged for a place in the table (eight bytes, doubled by the table's spare room).
const SLOT_COST: u64 = 16;
/// Charged for a page: its bytes and the allocator's word, rounded up.
const PAGE_COST: u64 = PAGE as u64 + 32;

/// A file's bytes.
#[derive(Debug, Default)]
pub(super) struct Pages {
    table: Vec<Option<Box<[u8; PAGE]>>>,
    len: u64,
}

impl Pages {
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Copies what lies at `offset` into `out`; the number of bytes, 0 at the end.
    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> usize {
        let available = self.len.saturating_sub(offset);
        let total = usize::try_from(available).unwrap_or(usize::MAX).min(out.len());
        let mut done = 0;
        while done < total {
            let (index, within) = split(offset + done as u64);
            let chunk = (PAGE - within).min(total - done);
            let Some(target) = out.get_mut(done..done + chunk) else { break };
            match self
                .table
                .get(index)
                .and_then(Option::as_ref)
                .and_then(|page| page.get(within..within + chunk))
            {
                Some(source) => target.copy_from_slice(source),
                None => target.fill(0),
            }
            done += chunk;
        }
        done
    }

    /// Copies `bytes` to `offset`. Writes what the quota allows; ENOSPC when that is nothing.
    pub(super) fn write_at(&mut self, offset: u64, bytes: &[u8], quota: &mut Quota) -> Result<usize, Errno> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::FBig)?;
        if end > quota.limit() && offset >= quota.limit() {
            return Err(Errno::FBig);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (index, within) = split(offset + done as u64);
            let chunk = (PAGE - within).min(bytes.len() - done);
            let page = match self.page_mut(index, quota) {
                Ok(page) => page,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            if let (Some(target), Some(source)) =
                (page.get_mut(within..within + chunk), bytes.get(done..done + chunk))
            {
                target.copy_from_slice(source);
            }
            done += chunk;
        }
        self.len = self.len.max(offset + done as u64);
        Ok(done)
    }

    /// Cuts or extends with a hole.
    pub(super) fn set_len(&mut self, len: u64, quota: &mut Quota) -> Result<(), Errno> {
        if len > quota.limit() {
            return Err(Errno::FBig);
        }
        if len < self.len {
            let (index, within) = split(len);
            let keep = if within == 0 { index } else { index + 1 };
            if keep < self.table.len() {
                for page in self.table.drain(keep..) {
                    quota.give(SLOT_COST + if page.is_some() { PAGE_COST } else { 0 });
                }
                self.table.shrink_to(keep);
            }
            if let Some(tail) =
                self.table.get_mut(index).and_then(Option::as_mut).and_then(|page| page.get_mut(within..))
            {
                tail.fill(0);
            }
        }
        self.len = len;
        Ok(())
    }

    /// Makes every page of a range real, so that later writes there cannot run out of space.
    pub(super) fn allocate(&mut self, offset: u64, len: u64, quota: &mut Quota) -> Result<(), Errno> {
        let end = offset.checked_add(len).ok_or(Errno::FBig)?;
        if end > quota.limit() {
            return Err(Errno::NoSpc);
        }
        let (mut index, _) = split(offset);
        while (index as u64) * (PAGE as u64) < end {
            self.page_mut(index, quota)?;
            index += 1;
        }
        self.len = self.len.max(end);
        Ok(())
    }

    /// Gives everything back.
    pub(super) fn free(&mut self, quota: &mut Quota) {
        for page in self.table.drain(..) {
            quota.give(SLOT_COST + if page.is_some() { PAGE_COST } else { 0 });
        }
        self.table = Vec::new();
        self.len = 0;
    }

    fn page_mut(&mut self, index: usize, quota: &mut Quota) -> Result<&mut [u8; PAGE], Errno> {
        let wanted = index.checked_add(1).ok_or(Errno::FBig)?;
        if let Some(more) = wanted.checked_sub(self.table.len()).filter(|more| *more > 0) {
            let cost = more as u64 * SLOT_COST;
            quota.take(cost)?;
            if self.table.try_reserve(more).is_err() {
                quota.give(cost);
                return Err(Errno::NoSpc);
            }
            self.table.resize_with(wanted, || None);
        }
        let slot = self.table.get_mut(index).ok_or(Errno::FBig)?;
        if slot.is_none() {
            quota.take(PAGE_COST)?;
            *slot = zeroed_page();
        }
        if let Some(page) = slot {
            return Ok(page);
        }
        quota.give(PAGE_COST);
        Err(Errno::NoSpc)
    }
}

fn zeroed_page() -> Option<Box<[u8; PAGE]>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(PAGE).ok()?;
    bytes.resize(PAGE, 0);
    bytes.into_boxed_slice().try_into().ok()
}

/// The page an offset lies in, and where in it.
fn split(offset: u64) -> (usize, usize) {
    let page = PAGE as u64;
    (usize::try_from(offset / page).unwrap_or(usize::MAX), usize::try_from(offset % page).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u16, Vec<u8>),
        SetLen(u16),
        Allocate(u16, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_000u16, prop::collection::vec(any::<u8>(), 0..9000))
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0..30_000u16).prop_map(Step::SetLen),
            (0..20_000u16, 0..9000u16).prop_map(|(at, len)| Step::Allocate(at, len)),
        ]
    }

    proptest! {
        /// Against a plain vector; and the quota returns to nothing.
        #[test]
        fn behaves_like_a_vector(steps in prop::collection::vec(step(), 1..30)) {
            let mut quota = Quota::new(10 << 20, || u64::MAX);
            let mut pages = Pages::default();
            let mut model: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        prop_assert_eq!(pages.write_at(at.into(), &bytes, &mut quota), Ok(bytes.len()));
                        let end = usize::from(at) + bytes.len();
                        if !bytes.is_empty() {
                            model.resize(model.len().max(end), 0);
                            model[usize::from(at)..end].copy_from_slice(&bytes);
                        }
                    }
                    Step::SetLen(len) => {
                        prop_assert_eq!(pages.set_len(len.into(), &mut quota), Ok(()));
                        model.resize(len.into(), 0);
                    }
                    Step::Allocate(at, len) => {
                        prop_assert_eq!(pages.allocate(at.into(), len.into(), &mut quota), Ok(()));
                        model.resize(model.len().max(usize::from(at) + usize::from(len)), 0);
                    }
                }
                let mut whole = vec![0xAA; model.len() + 10];
                prop_assert_eq!(pages.read_at(0, &mut whole), model.len());
                prop_assert_eq!(&whole[..model.len()], &model[..]);
            }
            pages.free(&mut quota);
            prop_assert_eq!(quota.used(), 0);
        }

        /// A small quota is never exceeded, whatever is asked.
        #[test]
        fn quota_holds(at in 0..u64::MAX, len in 0..u64::MAX) {
            let mut quota = Quota::new(64 << 10, || u64::MAX);
            let mut pages = Pages::default();
            let _ = pages.write_at(at, &[1; 5000], &mut quota);
            let _ = pages.write_at(at % (64 << 10), &[1; 5000], &mut quota);
            let _ = pages.allocate(at, len, &mut quota);
            let _ = pages.allocate(at % (64 << 10), len % (64 << 10), &mut quota);
            let _ = pages.set_len(len, &mut quota);
            prop_assert!(quota.used() <= quota.limit());
            prop_assert!(pages.len() <= (64 << 10) + 5000);
        }
    }
}
