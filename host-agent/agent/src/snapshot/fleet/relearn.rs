//! What a resume touched becomes part of the fleet's copy.
//!
//! ```text
//! log ─▶ merged with what the manifest knows, packed ─▶ manifest ─▶ the entry still names the old one? ─▶ entry replaced
//!                                                                   └─ no: somebody was first, theirs stands
//! ```
//! Replacing, and not a name for each sequence number: all that the later of two writers takes away is a log, and the next resume
//! brings it again; the memory behind both is the same. A reader asks once, and nothing has to be cleared away.

use super::{Entry, Fleet, FleetSnapshot, named};
use crate::pager::Touched;
use warren_artefact::SnapshotOf;
use warren_chunks::{
    Name,
    l3::OriginError,
    learn::{LearnError, learn},
    manifest::AccessLog,
};
use warren_identity::IdentityError;

/// Why nothing was learned. The entry that there is stands.
#[derive(Debug, thiserror::Error)]
pub enum RelearnError {
    /// The origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// There is no new manifest.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The entry was removed, or names another manifest by now.
    #[error("the fleet's copy was removed or replaced meanwhile")]
    Overtaken,
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] IdentityError),
}

impl Fleet {
    /// What recorded starts of a snapshot touched; `None` if none was learned from, or the origin cannot say.
    pub(in super::super) async fn log(&self, of: &SnapshotOf) -> Option<AccessLog> {
        let found = self.find_patiently(of).await?;
        let store = self.store().await.ok()?;
        let manifest = store.manifest(found.memory, &found.key).await.ok()?;
        manifest.parts().log.clone()
    }

    /// Publishes the manifests of memory and disk again with what one more resume touched, in the order of access. Their names.
    pub async fn relearn(
        &self,
        from: &FleetSnapshot,
        touched: &Touched,
    ) -> Result<(Name, Option<Name>), RelearnError> {
        let store = self.store().await?;
        let again = async |name, log| learn(&store, (name, &from.key), log, self.keys.salts()).await;
        let (memory, _) = again(from.memory, &touched.memory).await?;
        let disk = match from.disk.zip(touched.disk.as_ref()) {
            Some((disk, log)) => Some(again(disk, log).await?.0),
            None => from.disk,
        };
        let of = from.head.of();
        match self.read(of).await? {
            Entry::Good(there) if there.memory == from.memory && there.disk == from.disk => {}
            _ => return Err(RelearnError::Overtaken),
        }
        let sequence = from.sequence.saturating_add(1);
        let entry = self.entry(&from.head, memory, disk, sequence, from.stored)?;
        store.origin().replace_entry(named(of.key()), entry).await?;
        // Whoever asks next has it.
        let _ = self.read(of).await?;
        Ok((memory, disk))
    }
}
