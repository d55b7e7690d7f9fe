//! What lies on the disk, as decisions: who is admitted, who goes, who may not go.
//!
//! ```text
//! reserve ──no room but pinned──▶ refused
//!    │ room is made first: the victims are the caller's to remove, then it writes
//!    ▼
//! writing ──abandon──▶ gone
//!    │ commit
//!    ▼
//! lying ⇄ pinned (read, mapped)          only what is lying and not pinned is ever a victim
//!    │ evicted, removed
//!    ▼
//!  gone (its file has a number of its own, so removing it late takes nothing from a successor of the same name)
//! ```
//! Which victim is quick_cache's decision (a relative of S3-FIFO: what was read once goes before what is read again).

use crate::name::Name;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, unsync::Cache};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

/// One file of the disk.
#[derive(Debug)]
pub struct Slot {
    name: Name,
    number: u64,
    bytes: u64,
    pins: AtomicU32,
    lying: AtomicBool,
}

impl Slot {
    /// What is in it.
    #[must_use]
    pub const fn name(&self) -> Name {
        self.name
    }

    /// What tells its file from others of the same name.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// How much it holds.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Holds a slot: as long as there is one, it is no victim.
#[derive(Debug)]
pub struct Pin(Arc<Slot>);

impl Pin {
    fn of(slot: &Arc<Slot>) -> Self {
        // Under the index's lock, as every eviction: a slot is pinned before or after it is looked at, never meanwhile.
        slot.pins.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(slot))
    }

    /// What it holds.
    #[must_use]
    pub fn slot(&self) -> &Slot {
        &self.0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::Release);
    }
}

/// What came of asking for room.
#[derive(Debug)]
pub enum Reserved {
    /// There is room, once the victims' files are removed.
    Room {
        /// To be committed or abandoned.
        pin: Pin,
        /// To be removed.
        victims: Vec<Arc<Slot>>,
    },
    /// It lies there already, or is being written.
    Present,
    /// Larger than the whole disk may hold, or all there is is pinned. Some may have gone for it all the same.
    NoRoom {
        /// To be removed.
        victims: Vec<Arc<Slot>>,
    },
}

#[derive(Debug)]
struct Pins;

#[derive(Debug)]
struct ByBytes;

impl Weighter<Name, Arc<Slot>> for ByBytes {
    fn weight(&self, _: &Name, slot: &Arc<Slot>) -> u64 {
        weight(slot.bytes)
    }
}

impl Lifecycle<Name, Arc<Slot>> for Pins {
    type RequestState = Vec<Arc<Slot>>;

    fn is_pinned(&self, _: &Name, slot: &Arc<Slot>) -> bool {
        slot.pins.load(Ordering::Acquire) > 0
    }

    fn on_evict(&self, victims: &mut Self::RequestState, _: Name, slot: Arc<Slot>) {
        victims.push(slot);
    }
}

/// What a file takes of a disk: whole blocks, and one for what names it.
const fn weight(bytes: u64) -> u64 {
    (bytes.div_ceil(4096) + 1) * 4096
}

/// The index of one disk. Its owner keeps it under a lock.
#[derive(Debug)]
pub struct Index {
    slots: Cache<Name, Arc<Slot>, ByBytes, DefaultHashBuilder, Pins>,
    capacity: u64,
    next: u64,
}

impl Index {
    /// An empty one of so many bytes.
    #[must_use]
    pub fn new(capacity: u64) -> Option<Self> {
        let items = usize::try_from(capacity >> 19).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let options =
            OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(capacity).build().ok()?;
        let slots = Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), Pins);
        Some(Self { slots, capacity, next: 1 })
    }

    /// Asks for room for so many bytes.
    pub fn reserve(&mut self, name: Name, bytes: u64) -> Reserved {
        // A look counts as a use: what is put again is wanted.
        if self.slots.get(&name).is_some() {
            return Reserved::Present;
        }
        let mut victims = Vec::new();
        if weight(bytes) > self.capacity {
            return Reserved::NoRoom { victims };
        }
        let number = self.next;
        self.next = self.next.saturating_add(1);
        let (pins, lying) = (AtomicU32::new(0), AtomicBool::new(false));
        let slot = Arc::new(Slot { name, number, bytes, pins, lying });
        let pin = Pin::of(&slot);
        self.slots.insert_with_lifecycle(name, slot, &mut victims);
        if self.slots.weight() > self.capacity {
            self.slots.remove(&name);
            return Reserved::NoRoom { victims };
        }
        Reserved::Room { pin, victims }
    }

    /// What was found on the disk when it was opened. `Err` with what is to be removed when there is no room for it.
    pub fn found(&mut self, name: Name, number: u64, bytes: u64) -> Vec<Arc<Slot>> {
        self.next = self.next.max(number.saturating_add(1));
        let slot = |lying| {
            let (pins, lying) = (AtomicU32::new(0), AtomicBool::new(lying));
            Arc::new(Slot { name, number, bytes, pins, lying })
        };
        if weight(bytes) > self.capacity || self.slots.peek(&name).is_some() {
            return vec![slot(false)];
        }
        let mut victims = Vec::new();
        self.slots.insert_with_lifecycle(name, slot(true), &mut victims);
        victims
    }

    /// The file is written: from now on it can be found.
    pub fn commit(&mut self, pin: &Pin) {
        pin.0.lying.store(true, Ordering::Release);
    }

    /// The file could not be written.
    pub fn abandon(&mut self, pin: &Pin) {
        self.forget(pin.slot());
    }

    /// Finds what lies there, and holds it.
    #[must_use]
    pub fn find(&self, name: Name) -> Option<Pin> {
        let slot = self.slots.get(&name)?;
        slot.lying.load(Ordering::Acquire).then(|| Pin::of(slot))
    }

    /// Forgets a slot that is damaged, pinned or not; its successor of the same name stays. Whether it was there.
    pub fn forget(&mut self, slot: &Slot) -> bool {
        let is = |found: &Arc<Slot>| found.number == slot.number;
        self.slots.remove_if(&slot.name, is).is_some()
    }

    /// Every name that lies there.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.lying.load(Ordering::Acquire))
            .map(|(name, _)| *name)
            .collect()
    }

    /// What all files take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.slots.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn name(number: u8) -> Name {
        Name([number; 32])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u64, bool),
        Find(u8),
        Unpin(usize),
        Damage(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..24u8, 0..60_000u64, any::<bool>()).prop_map(|(name, bytes, whole)| Step::Put(name, bytes, whole)),
            3 => (0..24u8).prop_map(Step::Find),
            2 => (0..8usize).prop_map(Step::Unpin),
            1 => (0..24u8).prop_map(Step::Damage),
        ]
    }

    proptest! {
        /// The model: which numbered files lie on the disk. None that is pinned is ever a victim, the bound holds at every
        /// step, and what the index says lies there does.
        #[test]
        fn pinned_ones_stay_and_the_bound_holds(steps in prop::collection::vec(step(), 0..200)) {
            const CAPACITY: u64 = 200_000;
            let mut index = Index::new(CAPACITY).unwrap();
            let mut disk: HashMap<u64, Name> = HashMap::new();
            let mut pins: Vec<Pin> = Vec::new();
            for step in steps {
                let held: HashSet<u64> = pins.iter().map(|pin| pin.slot().number()).collect();
                match step {
                    Step::Put(number, bytes, whole) => {
                        let (room, victims) = match index.reserve(name(number), bytes) {
                            Reserved::Room { pin, victims } => (Some(pin), victims),
                            Reserved::NoRoom { victims } => (None, victims),
                            Reserved::Present => continue,
                        };
                        for victim in victims {
                            prop_assert!(!held.contains(&victim.number()), "a pinned file was evicted");
                            prop_assert_eq!(disk.remove(&victim.number()), Some(victim.name()));
                        }
                        match room {
                            Some(pin) if whole => {
                                prop_assert!(index.find(name(number)).is_none(), "found while it is written");
                                disk.insert(pin.slot().number(), name(number));
                                index.commit(&pin);
                            }
                            Some(pin) => index.abandon(&pin),
                            None => {}
                        }
                    }
                    Step::Find(number) => if let Some(pin) = index.find(name(number)) {
                        prop_assert_eq!(disk.get(&pin.slot().number()), Some(&name(number)));
                        pins.push(pin);
                    },
                    Step::Unpin(at) => if at < pins.len() { drop(pins.swap_remove(at)); },
                    Step::Damage(number) => if let Some(pin) = index.find(name(number)) {
                        prop_assert!(index.forget(pin.slot()));
                        prop_assert!(!index.forget(pin.slot()));
                        disk.remove(&pin.slot().number());
                        pins.retain(|held| held.slot().number() != pin.slot().number());
                    },
                }
                prop_assert!(index.bytes() <= CAPACITY);
                prop_assert_eq!(index.names().len(), disk.len());
                for pin in &pins {
                    prop_assert!(disk.contains_key(&pin.slot().number()));
                }
            }
        }
    }

    #[test]
    fn all_pinned_is_no_room_until_one_is_let_go() {
        let mut index = Index::new(40_000).unwrap();
        let mut pins = Vec::new();
        for number in 0..4 {
            let Reserved::Room { pin, .. } = index.reserve(name(number), 4096) else { panic!("room") };
            index.commit(&pin);
            pins.push(pin);
        }
        assert!(matches!(index.reserve(name(9), 4096), Reserved::NoRoom { .. }));
        pins.pop();
        let Reserved::Room { victims, .. } = index.reserve(name(9), 4096) else { panic!("room") };
        assert_eq!(victims.iter().map(|slot| slot.name()).collect::<Vec<_>>(), [name(3)]);
        assert!(matches!(index.reserve(name(10), 40_000), Reserved::NoRoom { .. }));
    }
}
