//! The fence of epochs, kept over restarts of the agent: `DATA/epochs`.
//!
//! ```text
//! command ──▶ epoch known? ──yes──▶ let through, or stale
//!                │ newer
//!                ▼
//!             write the other slot ─▶ fdatasync ─▶ known ─▶ let through
//! ```
//! A newer epoch is on the disk before anything is done in its name: else an agent that is killed and started again would
//! take commands of a leader that it had already left. The file has two slots, written in turn and in place: a write that
//! is cut short costs its own slot only, and a full disk costs nothing, for the room is there from the first start.

use super::{
    epoch::{EpochFence, Stale},
    grants::GrantLedger,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Mutex as AsyncMutex;

/// Bytes of one slot: whole blocks, so that slots share none.
const SLOT: usize = 4096;
const SLOTS: u64 = 2;
/// Digest and length before a slot's content.
const HEAD: usize = 32 + 4;

/// A command was not let through.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// It is an older leader's.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// Its newer epoch could not be kept.
    #[error("this host cannot keep the new epoch: {0}")]
    NotKept(#[from] io::Error),
}

/// The fence and its file.
#[derive(Debug)]
pub struct KeptFence {
    known: Mutex<EpochFence>,
    ledger: GrantLedger,
    /// Held while an epoch is kept; only its holder changes `known`.
    slots: AsyncMutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    file: Arc<File>,
    /// Counts writes; its last bit names the slot.
    turn: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    turn: u64,
    fence: EpochFence,
}

impl KeptFence {
    /// Reads what an earlier agent kept; `ledger` is raised with it.
    pub fn open(path: &Path, ledger: GrantLedger) -> io::Result<Arc<Self>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let found = (0..SLOTS).filter_map(|slot| read(&file, slot)).max_by_key(|kept| kept.turn);
        if found.is_none() {
            // A slot that was never written is the mark of a first write that was cut short: nothing was done by it.
            let fresh = (0..SLOTS).any(|slot| is_blank(&file, slot));
            if !fresh {
                let message = format!(
                    "{} is damaged; remove it once no earlier control process can be running",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            // The room for both slots, and the name, are there before the first epoch is.
            file.write_all_at(&vec![0; SLOT * 2], 0)?;
            file.sync_all()?;
            File::open(path.parent().unwrap_or(path))?.sync_all()?;
        }
        let Kept { turn, fence } = found.unwrap_or(Kept { turn: 0, fence: EpochFence::default() });
        ledger.raise(fence.grants());
        let slots = AsyncMutex::new(Slots { file: Arc::new(file), turn });
        Ok(Arc::new(Self { known: Mutex::new(fence), ledger, slots }))
    }

    /// Control answered a registration with its epoch. Stale if this host has seen a newer one.
    pub async fn register(self: &Arc<Self>, epoch: u64) -> Result<(), FenceError> {
        let current = self.known().floor();
        if epoch < current {
            return Err(Stale { partition: 0, offered: epoch, current }.into());
        }
        self.change(move |fence| {
            fence.raise_floor(epoch);
            Ok(())
        })
        .await
    }

    /// Lets a command of this or a newer epoch of the partition through.
    pub async fn admit(self: &Arc<Self>, partition: u32, epoch: u64) -> Result<(), FenceError> {
        let current = self.known().current(partition);
        if epoch < current {
            return Err(Stale { partition, offered: epoch, current }.into());
        }
        if epoch == current {
            return Ok(());
        }
        self.change(move |fence| fence.admit(partition, epoch)).await
    }

    /// Before an execution under a grant of this epoch: a newer one ends older grants. Older ones are refused where
    /// executions are counted.
    pub async fn grant(self: &Arc<Self>, epoch: u64) -> Result<(), FenceError> {
        if epoch <= self.ledger.epoch() {
            return Ok(());
        }
        self.change(move |fence| {
            fence.raise_grants(epoch);
            Ok(())
        })
        .await
    }

    /// Keeps a change, then lets it be known. A task of its own: a caller who leaves must not leave half a write.
    async fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&mut EpochFence) -> Result<(), Stale> + Send + 'static,
    ) -> Result<(), FenceError> {
        let fence = Arc::clone(self);
        let work = tokio::spawn(async move {
            let mut slots = fence.slots.lock().await;
            let mut next = fence.known().clone();
            change(&mut next)?;
            if next == *fence.known() {
                return Ok(());
            }
            let turn = slots.turn.wrapping_add(1);
            let file = Arc::clone(&slots.file);
            let kept = Kept { turn, fence: next.clone() };
            tokio::task::spawn_blocking(move || write(&file, &kept)).await.map_err(io::Error::other)??;
            slots.turn = turn;
            // The ledger first: whoever sees the new epoch known finds older grants refused.
            fence.ledger.raise(next.grants());
            *fence.known() = next;
            Ok(())
        });
        work.await.map_err(io::Error::other)?
    }

    fn known(&self) -> MutexGuard<'_, EpochFence> {
        // Replaced whole, by one assignment.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(file: &File, kept: &Kept) -> io::Result<()> {
    let text = serde_json::to_vec(kept)?;
    if text.len() > SLOT - HEAD {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many partitions to keep"));
    }
    let mut slot = Vec::with_capacity(SLOT);
    slot.extend_from_slice(blake3::hash(&text).as_bytes());
    slot.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    slot.extend_from_slice(&text);
    slot.resize(SLOT, 0);
    file.write_all_at(&slot, kept.turn % SLOTS * SLOT as u64)?;
    file.sync_data()
}

/// A slot's content, if it is whole.
fn read(file: &File, slot: u64) -> Option<Kept> {
    let mut bytes = vec![0; SLOT];
    file.read_exact_at(&mut bytes, slot * SLOT as u64).ok()?;
    let (digest, rest) = bytes.split_at_checked(32)?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let text = rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    (blake3::hash(text).as_bytes() == digest).then(|| serde_json::from_slice(text).ok())?
}

/// Whether a slot was never written.
fn is_blank(file: &File, slot: u64) -> bool {
    let mut bytes = vec![0; SLOT];
    match file.read_exact_at(&mut bytes, slot * SLOT as u64) {
        Ok(()) => bytes.iter().all(|byte| *byte == 0),
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}

#[cfg(test)]
mod tests;
