//! Reading everything again, to find what time did to it while there is still another copy.

use super::{ReadError, Store};
use crate::{
    l1::Own,
    l2::Answer,
    l3::{Area, Origin, OriginError},
    manifest::sealed::MAX_MANIFEST_BYTES,
    name::Name,
};
use bytes::Bytes;
use std::{num::NonZeroU64, time::Duration};

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Objects that were read.
    pub read: u64,
    /// Objects that were not of their name and are whole again.
    pub repaired: Vec<Name>,
    /// Objects of the origin that nobody has whole: put aside, so that whoever makes them again can put them.
    pub lost: Vec<Name>,
    /// Objects that could not be read this time.
    pub unread: u64,
}

/// How fast everything is read: a scrub is nobody's hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(Option<NonZeroU64>);

impl Pace {
    /// As fast as it goes.
    pub const NONE: Self = Self(None);

    /// So many bytes a second.
    #[must_use]
    pub const fn of(bytes_per_second: NonZeroU64) -> Self {
        Self(Some(bytes_per_second))
    }

    /// Waits as long as reading so many bytes may take.
    async fn wait(self, bytes: u64) {
        if let Some(per_second) = self.0 {
            let millis = bytes.saturating_mul(1000) / per_second;
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }
}

impl Store {
    /// Reads this worker's disk; what is damaged is dropped and fetched again.
    pub async fn scrub_disk(&self, pace: Pace) -> Scrubbed {
        let mut found = Scrubbed::default();
        let Some(disk) = self.local().disk() else { return found };
        for name in disk.names() {
            found.read += 1;
            // Of the disk alone: memory may be right where the disk is wrong.
            let disk = std::sync::Arc::clone(disk);
            match tokio::task::spawn_blocking(move || disk.get(name)).await {
                Ok(Ok(crate::l1::Found::Damaged)) => match self.read(name, MAX_MANIFEST_BYTES).await {
                    Ok(sealed) => {
                        // In memory it may have been; on the disk it shall be.
                        let _kept = self.local().keep(name, sealed).await;
                        found.repaired.push(name);
                    }
                    Err(ReadError::Absent) => found.lost.push(name),
                    Err(_) => found.unread += 1,
                },
                Ok(Ok(crate::l1::Found::Hit(sealed))) => pace.wait(sealed.len() as u64).await,
                // Pushed out meanwhile.
                Ok(Ok(crate::l1::Found::Miss)) => {}
                _ => found.unread += 1,
            }
        }
        found
    }

    /// Reads the origin; what is damaged is replaced from this worker or a peer, or put aside.
    pub async fn scrub_origin(&self, pace: Pace) -> Result<Scrubbed, OriginError> {
        let mut found = Scrubbed::default();
        for held in self.origin().list(Area::Live).await? {
            let name = held.name;
            found.read += 1;
            match self.origin().get(Area::Live, name, MAX_MANIFEST_BYTES).await {
                Ok(sealed) => pace.wait(sealed.len() as u64).await,
                Err(OriginError::Absent) => {}
                Err(OriginError::Damaged) => {
                    if let Some(sealed) = self.elsewhere(name).await {
                        self.origin().replace(name, sealed).await?;
                        found.repaired.push(name);
                    } else {
                        put_aside(self.origin(), name).await?;
                        tracing::error!(%name, "an object of the origin is damaged, and nobody has it whole");
                        found.lost.push(name);
                    }
                }
                Err(_) => found.unread += 1,
            }
        }
        Ok(found)
    }

    async fn elsewhere(&self, name: Name) -> Option<Bytes> {
        if let Own::Memory(sealed) | Own::Disk(sealed) = self.local().get(name).await {
            return Some(sealed);
        }
        match self.0.peers.as_ref()?.get(name, MAX_MANIFEST_BYTES).await {
            Answer::Hit(sealed) => Some(sealed),
            Answer::Miss | Answer::Failed => None,
        }
    }
}

async fn put_aside(origin: &Origin, name: Name) -> Result<(), OriginError> {
    match origin.shift(name, Area::Live, Area::Damaged).await {
        Err(OriginError::Absent) => Ok(()),
        done => done,
    }
}
