//! A set of host indices: three levels of 64-way bitmaps, so insert, remove and "next from here" cost the same for
//! sixty hosts and for a quarter of a million, and iteration order is by index whatever the history.

use crate::host::{HostIndex, MAX_HOSTS};
use alloc::vec::Vec;

/// A set of host indices below [`MAX_HOSTS`].
#[derive(Debug, Clone, Default)]
pub struct HostSet {
    /// One bit a host.
    leaves: Vec<u64>,
    /// One bit a non-empty leaf.
    middle: Vec<u64>,
    /// One bit a non-empty middle word: 64 * 64 * 64 = `MAX_HOSTS`.
    top: u64,
}

impl HostSet {
    /// Whether no host is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.top == 0
    }

    /// Whether that host is in the set.
    #[must_use]
    pub fn contains(&self, index: HostIndex) -> bool {
        word(&self.leaves, index >> 6) & bit(index) != 0
    }

    /// Adds a host; indices from [`MAX_HOSTS`] up are ignored.
    pub fn insert(&mut self, index: HostIndex) {
        if index >= MAX_HOSTS {
            return;
        }
        set_bit(&mut self.leaves, index >> 6, bit(index));
        set_bit(&mut self.middle, index >> 12, bit(index >> 6));
        self.top |= bit(index >> 12);
    }

    /// Takes a host out, if it is in.
    pub fn remove(&mut self, index: HostIndex) {
        if index >= MAX_HOSTS {
            return;
        }
        if clear_bit(&mut self.leaves, index >> 6, bit(index))
            && clear_bit(&mut self.middle, index >> 12, bit(index >> 6))
        {
            self.top &= !bit(index >> 12);
        }
    }

    /// The lowest host of the set that is `from` or above.
    #[must_use]
    pub fn next(&self, from: HostIndex) -> Option<HostIndex> {
        if from >= MAX_HOSTS {
            return None;
        }
        let leaf = from >> 6;
        if let Some(low) = lowest_from(word(&self.leaves, leaf), from & 63) {
            return Some((leaf << 6) | low);
        }
        let next_leaf = self.next_leaf(leaf + 1)?;
        let low = word(&self.leaves, next_leaf).trailing_zeros();
        Some((next_leaf << 6) | low)
    }

    /// Shows the hosts from `from` up to below `until`, by index, until `take` says false; returns what it said last.
    pub(crate) fn scan(
        &self,
        from: HostIndex,
        until: HostIndex,
        take: &mut impl FnMut(HostIndex) -> bool,
    ) -> bool {
        let mut leaf = from >> 6;
        let mut bits = word(&self.leaves, leaf) & (u64::MAX << (from & 63));
        loop {
            while bits != 0 {
                let host = (leaf << 6) | bits.trailing_zeros();
                bits &= bits - 1;
                if host >= until {
                    return true;
                }
                if !take(host) {
                    return false;
                }
            }
            let Some(next) = self.next_leaf(leaf + 1) else { return true };
            leaf = next;
            bits = word(&self.leaves, leaf);
        }
    }

    /// One more than the highest host of the set; 0 for none.
    #[must_use]
    pub fn span(&self) -> u32 {
        let Some(middle) = highest(self.top) else { return 0 };
        let Some(leaf) = highest(word(&self.middle, middle)).map(|low| (middle << 6) | low) else { return 0 };
        highest(word(&self.leaves, leaf)).map_or(0, |low| ((leaf << 6) | low) + 1)
    }

    fn next_leaf(&self, from: u32) -> Option<u32> {
        let middle = from >> 6;
        if let Some(low) = lowest_from(word(&self.middle, middle), from & 63) {
            return Some((middle << 6) | low);
        }
        let next_middle = if middle >= 63 { None } else { lowest_from(self.top, middle + 1) }?;
        let low = word(&self.middle, next_middle).trailing_zeros();
        Some((next_middle << 6) | low)
    }
}

fn bit(position: u32) -> u64 {
    1 << (position & 63)
}

fn word(words: &[u64], at: u32) -> u64 {
    words.get(at as usize).copied().unwrap_or(0)
}

/// The lowest set bit of `word` at position `from` (below 64) or above.
fn lowest_from(word: u64, from: u32) -> Option<u32> {
    let rest = word & (u64::MAX << (from & 63));
    (rest != 0).then(|| rest.trailing_zeros())
}

fn highest(word: u64) -> Option<u32> {
    63u32.checked_sub(word.leading_zeros())
}

fn set_bit(words: &mut Vec<u64>, at: u32, mask: u64) {
    if at as usize >= words.len() {
        words.resize(at as usize + 1, 0);
    }
    if let Some(word) = words.get_mut(at as usize) {
        *word |= mask;
    }
}

/// Clears the bit and says whether its word is empty now; false also when there is no such word.
fn clear_bit(words: &mut [u64], at: u32, mask: u64) -> bool {
    let Some(word) = words.get_mut(at as usize) else { return false };
    *word &= !mask;
    *word == 0
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Near and far, at the edges of words and levels, and past the end.
    fn index() -> impl Strategy<Value = u32> {
        prop_oneof![
            0..200u32,
            (0..64u32, 0..3u32).prop_map(|(high, low)| (high << 12) | (63 + low)),
            0..MAX_HOSTS,
            (MAX_HOSTS - 2)..(MAX_HOSTS + 2),
        ]
    }

    proptest! {
        #[test]
        fn is_a_set(steps in proptest::collection::vec((any::<bool>(), index()), 0..200), from in index(), until in index()) {
            let mut set = HostSet::default();
            let mut model = BTreeSet::new();
            for (insert, index) in steps {
                if insert && index < MAX_HOSTS {
                    model.insert(index);
                } else if !insert {
                    model.remove(&index);
                }
                if insert { set.insert(index) } else { set.remove(index) }
                prop_assert_eq!(set.contains(index), model.contains(&index));
            }
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert_eq!(set.span(), model.last().map_or(0, |last| last + 1));
            prop_assert_eq!(set.next(from), model.range(from..).next().copied());
            let mut seen = Vec::new();
            set.scan(from, until, &mut |host| { seen.push(host); true });
            let expected: Vec<_> = model.range(from..).copied().take_while(|host| *host < until).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
