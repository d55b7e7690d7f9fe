//! Sealed bytes in memory, bounded. What is being read is held by its reader, so eviction takes nothing from anybody.

use crate::name::Name;
use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Name, Bytes> for ByBytes {
    fn weight(&self, _: &Name, sealed: &Bytes) -> u64 {
        sealed.len() as u64 + 64
    }
}

/// A bounded map of sealed objects.
#[derive(Debug)]
pub struct Memory(Cache<Name, Bytes, ByBytes>);

impl Memory {
    /// One of at most so many bytes; of none, it keeps nothing.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let items = usize::try_from(capacity >> 19).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Self(Cache::with_weighter(items, capacity, ByBytes))
    }

    /// What it holds under a name.
    #[must_use]
    pub fn get(&self, name: Name) -> Option<Bytes> {
        self.0.get(&name)
    }

    /// Keeps verified bytes for as long as there is room.
    pub fn put(&self, name: Name, sealed: Bytes) {
        self.0.insert(name, sealed);
    }

    /// Forgets a name.
    pub fn drop_name(&self, name: Name) {
        self.0.remove(&name);
    }

    /// Bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_it_may() {
        let memory = Memory::new(10_000);
        for number in 0..200u8 {
            let sealed = Bytes::from(vec![number; 900]);
            memory.put(Name::of(&sealed), sealed);
            assert!(memory.bytes() <= 10_000);
        }
        assert!(memory.bytes() > 5_000);
        let huge = Bytes::from(vec![1; 20_000]);
        memory.put(Name::of(&huge), huge.clone());
        assert!(memory.get(Name::of(&huge)).is_none());
        let none = Memory::new(0);
        none.put(Name::of(b"x"), Bytes::from_static(b"x"));
        assert_eq!(none.bytes(), 0);
    }
}
