//! Entries: small objects that are called by what they are about, so that they can be found, replaced and removed.
//!
//! ```text
//! put_new ─▶ there: true, the first of several writers alone; false: somebody's is there, and stays
//! replace ─▶ there: the last writer's
//! ```
//! An entry is whatever somebody wrote who may write to the origin. Its name proves nothing: it is signed, and judged by who reads.

use super::{
    error::OriginError,
    origin::{Area, Held, Origin},
};
use crate::{files::Taken, name::Name};
use bytes::Bytes;

/// What an entry is called: 32 bytes that its writer and its readers derive alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(pub [u8; 32]);

impl Origin {
    /// Reads an entry of at most `most` bytes.
    pub async fn entry(&self, name: EntryName, most: usize) -> Result<Bytes, OriginError> {
        let bytes = self.read(Area::Entries, Name(name.0), most).await?;
        if bytes.len() <= most { Ok(bytes) } else { Err(OriginError::Damaged) }
    }

    /// Keeps an entry durably unless there is one; whether it did.
    pub async fn put_new_entry(&self, name: EntryName, bytes: Bytes) -> Result<bool, OriginError> {
        self.write(Area::Entries, Name(name.0), bytes, Taken::Leave).await
    }

    /// Keeps an entry durably in place of what is there.
    pub async fn replace_entry(&self, name: EntryName, bytes: Bytes) -> Result<(), OriginError> {
        self.write(Area::Entries, Name(name.0), bytes, Taken::Replace).await.map(drop)
    }

    /// What is known of an entry without reading it.
    pub async fn held_entry(&self, name: EntryName) -> Result<Held, OriginError> {
        self.held(Area::Entries, Name(name.0)).await
    }

    /// Removes an entry; that it is not there is as good.
    pub async fn remove_entry(&self, name: EntryName) -> Result<(), OriginError> {
        self.remove(Area::Entries, Name(name.0)).await
    }

    /// Every entry, with how much it holds and when it was written.
    pub async fn entries(&self) -> Result<Vec<(EntryName, Held)>, OriginError> {
        let held = self.list(Area::Entries).await?;
        Ok(held.into_iter().map(|held| (EntryName(held.name.0), held)).collect())
    }
}
