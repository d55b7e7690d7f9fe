//! The traits, as every backend keeps them. The conformance suite is `tests/model.rs`.

use crate::StoreError;
use bytes::Bytes;
use futures::future::BoxFuture;

/// A point in the life of one registry entry. Grows over the whole registry, so it never repeats: not even for a key
/// that was deleted and created again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// The number of a record of one journal subject; 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its revision.
    pub revision: Revision,
    /// Its value.
    pub value: Bytes,
}

/// What a writer believes a key to be at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Not there.
    Absent,
    /// At this revision.
    At(Revision),
}

/// One journal record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub sequence: Sequence,
    /// Its content.
    pub value: Bytes,
}

/// Configuration. Reads see every answered write.
pub trait Registry: Send + Sync + 'static {
    /// One entry.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;
    /// Every entry whose key begins with `prefix`, in key order.
    fn list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, Entry)>, StoreError>>;
    /// Writes if the key is at what is expected.
    fn put(&self, key: &str, expect: Expect, value: Bytes) -> BoxFuture<'_, Result<Revision, StoreError>>;
    /// Deletes if the key is at this revision.
    fn delete(&self, key: &str, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Ordered records with a fence.
pub trait Journal: Send + Sync + 'static {
    /// Appends all records or none, if `last` is the subject's last sequence. Returns the new last.
    fn append(
        &self,
        subject: &str,
        last: Sequence,
        records: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<Sequence, StoreError>>;
    /// Every record kept, in order, and the last sequence ever given.
    fn replay(&self, subject: &str) -> BoxFuture<'_, Result<(Vec<Record>, Sequence), StoreError>>;
    /// Forgets records up to and including this one.
    fn trim(&self, subject: &str, up_to: Sequence) -> BoxFuture<'_, Result<(), StoreError>>;
}
