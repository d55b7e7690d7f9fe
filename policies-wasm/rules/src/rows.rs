//! Rows of words: how lists cross between engine and policy.
//!
//! A list of numbers is copied as one block and read in place; a list of records is stored, loaded and allocated field by
//! field. The words of each row are said in the contract (`policies-wasm/wit`).

use crate::{
    host::{Delta, Health, HostInfo},
    packing::Fit,
    placement::{Candidate, Scored},
    routing::IdleSandbox,
};
use alloc::vec::Vec;
use core::marker::PhantomData;

/// A thing that crosses as so many words.
pub trait Row<const WORDS: usize>: Sized {
    /// Its words.
    fn words(&self) -> [u32; WORDS];
    /// The thing these words say, if they say one.
    fn read(words: &[u32; WORDS]) -> Option<Self>;
}

/// A list that came over; what is not whole at its end or says nothing is passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows<T, const WORDS: usize> {
    words: Vec<u32>,
    rows: PhantomData<T>,
}

impl<T: Row<WORDS>, const WORDS: usize> Rows<T, WORDS> {
    /// Over what came.
    #[must_use]
    pub fn new(words: Vec<u32>) -> Self {
        Self { words, rows: PhantomData }
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len() / WORDS
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.words.as_chunks::<WORDS>().0.iter().filter_map(T::read)
    }

    /// That one.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<T> {
        self.words.as_chunks::<WORDS>().0.get(at).and_then(T::read)
    }
}

/// Appends rows to words.
pub fn extend<T: Row<WORDS>, const WORDS: usize>(words: &mut Vec<u32>, rows: impl IntoIterator<Item = T>) {
    for row in rows {
        words.extend_from_slice(&row.words());
    }
}

/// Says that a host is gone, where others have their health.
const GONE: u32 = 3;

impl Row<11> for Delta {
    fn words(&self) -> [u32; 11] {
        match self {
            Self::Removed(index) => [*index, GONE, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Self::Upsert(host) => [
                host.index,
                match host.health {
                    Health::NotReady => 0,
                    Health::Ready => 1,
                    Health::Draining => 2,
                },
                host.zone,
                host.memory_mib,
                host.free_memory_mib,
                host.cpu_millis,
                host.free_cpu_millis,
                host.used_p50_mib,
                host.used_spread_mib,
                host.sandboxes,
                host.busy,
            ],
        }
    }

    fn read(words: &[u32; 11]) -> Option<Self> {
        let [index, state, zone, memory, free, cpu, free_cpu, p50, spread, sandboxes, busy] = *words;
        let health = match state {
            0 => Health::NotReady,
            1 => Health::Ready,
            2 => Health::Draining,
            GONE => return Some(Self::Removed(index)),
            _ => return None,
        };
        Some(Self::Upsert(HostInfo {
            index,
            zone,
            health,
            memory_mib: memory,
            free_memory_mib: free,
            cpu_millis: cpu,
            free_cpu_millis: free_cpu,
            used_p50_mib: p50,
            used_spread_mib: spread,
            sandboxes,
            busy,
        }))
    }
}

impl Row<3> for Fit {
    fn words(&self) -> [u32; 3] {
        [self.host, self.score, self.overcommit_mib]
    }

    fn read(&[host, score, overcommit_mib]: &[u32; 3]) -> Option<Self> {
        Some(Self { host, score, overcommit_mib })
    }
}

impl Row<6> for Candidate {
    fn words(&self) -> [u32; 6] {
        let Self { fit: Scored { host, score, overcommit_mib, siblings, locality }, zone_siblings } = *self;
        [host, score, overcommit_mib, siblings, zone_siblings, locality]
    }

    fn read(&[host, score, overcommit_mib, siblings, zone_siblings, locality]: &[u32; 6]) -> Option<Self> {
        Some(Self { fit: Scored { host, score, overcommit_mib, siblings, locality }, zone_siblings })
    }
}

impl Row<5> for IdleSandbox {
    fn words(&self) -> [u32; 5] {
        [self.index, self.idle_ms, self.invocations, self.zone, self.host_load]
    }

    fn read(&[index, idle_ms, invocations, zone, host_load]: &[u32; 5]) -> Option<Self> {
        Some(Self { index, idle_ms, invocations, zone, host_load })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any words at all are read without harm, and what they say is said again in the same words.
        #[test]
        fn words_say_the_same_again(words in proptest::collection::vec(prop_oneof![0..5u32, any::<u32>()], 0..60)) {
            fn check<T: Row<WORDS>, const WORDS: usize>(words: &[u32]) {
                let rows = Rows::<T, WORDS>::new(words.to_vec());
                assert_eq!(rows.len(), words.len() / WORDS);
                let mut said = Vec::new();
                extend(&mut said, rows.iter());
                assert!(said.len() <= words.len());
                let again = Rows::<T, WORDS>::new(said.clone());
                let mut twice = Vec::new();
                extend(&mut twice, again.iter());
                assert_eq!(said, twice);
            }
            check::<Delta, 11>(&words);
            check::<Fit, 3>(&words);
            check::<Candidate, 6>(&words);
            check::<IdleSandbox, 5>(&words);
        }
    }

    #[test]
    fn deltas() {
        let host = HostInfo { index: 7, zone: 1, health: Health::Draining, busy: 9, ..HostInfo::default() };
        for delta in [Delta::Upsert(host), Delta::Removed(3)] {
            assert_eq!(Delta::read(&delta.words()), Some(delta));
        }
        assert_eq!(Delta::read(&[1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
