//! Which slots are free. A slot is a small number that stands for a uid and a cgroup; the one freed longest ago is
//! given next, so that a uid rests as long as possible before another tenant gets it.

use std::collections::{HashSet, VecDeque};

/// The slots of a jailer.
#[derive(Debug)]
pub(crate) struct Slots {
    free: VecDeque<u32>,
    taken: HashSet<u32>,
}

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        Self { free: (0..count).collect(), taken: HashSet::new() }
    }

    /// Whether there is a free one.
    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// A free slot.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let slot = self.free.pop_front()?;
        self.taken.insert(slot);
        Some(slot)
    }

    /// Takes a certain slot, for a jail found alive. Says whether it was free. Slots beyond the count (a jailer was
    /// started with fewer than the one before) can be taken once and never come back.
    pub(crate) fn claim(&mut self, slot: u32) -> bool {
        self.free.retain(|free| *free != slot);
        self.taken.insert(slot)
    }

    /// Gives a slot back. One that is not taken stays as it is.
    pub(crate) fn give(&mut self, slot: u32, count: u32) {
        if self.taken.remove(&slot) && slot < count {
            self.free.push_back(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Act {
        Take,
        Claim(u32),
        Give(u32),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![Just(Act::Take), (0_u32..12).prop_map(Act::Claim), (0_u32..12).prop_map(Act::Give)]
    }

    proptest! {
        /// Against a plain set: a slot is never given twice, none is lost, and none appears.
        #[test]
        fn no_slot_is_held_twice_or_lost(acts in prop::collection::vec(act(), 0..200)) {
            const COUNT: u32 = 8;
            let mut slots = Slots::new(COUNT);
            let mut held: HashSet<u32> = HashSet::new();
            for act in acts {
                match act {
                    Act::Take => {
                        if let Some(slot) = slots.take() {
                            prop_assert!(slot < COUNT && held.insert(slot));
                        } else {
                            prop_assert!((0..COUNT).all(|slot| held.contains(&slot)));
                        }
                    }
                    Act::Claim(slot) => prop_assert_eq!(slots.claim(slot), held.insert(slot)),
                    Act::Give(slot) => {
                        held.remove(&slot);
                        slots.give(slot, COUNT);
                    }
                }
                prop_assert_eq!(slots.free.len() + held.iter().filter(|slot| **slot < COUNT).count(), COUNT as usize);
            }
        }
    }

    #[test]
    fn the_slot_freed_longest_ago_comes_first() {
        let mut slots = Slots::new(3);
        assert_eq!((slots.take(), slots.take()), (Some(0), Some(1)));
        slots.give(1, 3);
        slots.give(0, 3);
        assert_eq!(
            [slots.take(), slots.take(), slots.take(), slots.take()],
            [Some(2), Some(1), Some(0), None]
        );
    }
}
