//! Reading through somebody else, where a process has no way to other workers or to the origin itself.
//!
//! ```text
//! own memory, own disk, the origin where it is in reach ── none has it ──▶ proxy: the same name, at most so many bytes
//!                                                                            │ what comes is held against its name
//!                                                                            ▼
//!                                                       into memory, onto the disk; counted where the proxy says it was
//! ```
//! Its word is taken for the figures alone.

use super::{Inner, ReadError};
use crate::{l3::OriginError, name::Name};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{fmt, sync::Arc, time::Instant};

/// Which tier an object came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Whence {
    /// The memory of who was asked.
    Memory,
    /// Its disk.
    Disk,
    /// Another worker.
    Peers,
    /// The origin.
    Origin,
}

/// A sealed object, and where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub sealed: Bytes,
    /// Which tier had it.
    pub from: Whence,
}

/// Who fetches for a process that has no network.
pub trait Proxy: fmt::Debug + Send + Sync {
    /// Fetches an object of at most `most` bytes. Ends, whatever becomes of who fetches; what comes is believed nothing.
    fn fetch(&self, name: Name, most: usize) -> BoxFuture<'_, Result<Fetched, OriginError>>;
}

impl Inner {
    /// What the origin, as far as it is in reach, has not got, asked of the proxy. `here`: what the origin answered.
    pub(super) async fn through(
        self: &Arc<Self>,
        proxy: &dyn Proxy,
        (name, most): (Name, usize),
        here: OriginError,
    ) -> Result<Fetched, ReadError> {
        let begin = Instant::now();
        let answer = match proxy.fetch(name, most).await {
            Ok(fetched) if fetched.sealed.len() > most || !name.is_of(&fetched.sealed) => {
                self.metrics.proxy.damaged();
                Err(OriginError::Damaged)
            }
            Err(error) => {
                match error {
                    OriginError::Absent => self.metrics.proxy.miss(),
                    _ => self.metrics.proxy.failed(),
                }
                Err(error)
            }
            fetched => fetched,
        };
        match answer {
            Ok(fetched) => {
                let tier = match fetched.from {
                    Whence::Memory | Whence::Disk => &self.metrics.proxy,
                    Whence::Peers => &self.metrics.peers,
                    Whence::Origin => &self.metrics.origin,
                };
                tier.hit(fetched.sealed.len(), begin.elapsed());
                self.spread(name, &fetched.sealed, false);
                Ok(fetched)
            }
            // Of two that failed, who has the object is named, whatever is wrong with it.
            Err(OriginError::Absent) => Err(here.into()),
            Err(error) => Err(if matches!(here, OriginError::Absent) { error } else { here }.into()),
        }
    }
}
