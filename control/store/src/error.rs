//! Why a read or a write of the store failed.

use crate::{Revision, Sequence};
use std::io;

/// A store operation failed. Nothing of the write is visible, except after [`StoreError::Failed`], where the outcome
/// is not known until it is read again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller's view is old: the key is at another revision (`None`: absent).
    #[error("the entry is at another revision")]
    Conflict {
        /// What it is at.
        current: Option<Revision>,
    },
    /// The caller's view is old: the subject is at another sequence.
    #[error("the journal is at another sequence")]
    Fenced {
        /// What it is at.
        current: Sequence,
    },
    /// The disk is full.
    #[error("no space left on the device that holds the store")]
    Full,
    /// The store could not be read or written.
    #[error("the store failed")]
    Failed(#[source] Box<redb::Error>),
    /// The store is shut down.
    #[error("the store is shut down")]
    Closed,
    /// The directory could not be made.
    #[error("the store's directory cannot be used")]
    Directory(#[source] io::Error),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self::Full
            }
            other => Self::Failed(Box::new(other)),
        }
    }
}
