//! Starts whose memory the pager brings: how they are served, what they touched, what is of no use; and what the pager cannot reach.

use super::{FleetSnapshot, Snapshots};
use crate::{
    host::Host,
    pager::{Manners, Touched, answer},
};
use std::sync::{Arc, MutexGuard, PoisonError};
use warren_pager::Manner;

impl Snapshots {
    /// How the next start from one is served.
    pub fn manner(&self, snapshot: &FleetSnapshot) -> Manner {
        self.manners().next(snapshot.head.of().key(), snapshot.sequence)
    }

    /// A start that was recorded touched this: if there is news in it, the fleet's copy has it from now on.
    pub async fn touched(&self, snapshot: &FleetSnapshot, touched: &Touched) {
        let of = snapshot.head.of();
        let key = of.key();
        let is_news = self.manners().touched(key, touched);
        let Some(fleet) = self.fleet.as_ref().filter(|_| is_news) else { return };
        match fleet.relearn(snapshot, touched).await {
            Ok((memory, disk)) => {
                let disk = disk.map(tracing::field::display);
                tracing::info!(function = of.function, %key, %memory, disk, "what a start touched was learned");
            }
            // The next one that is recorded brings it again.
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::info!(function = of.function, %key, "what a start touched was not learned: {error:#}");
            }
        }
    }

    /// A VMM of this host did not take the fleet's: not again, here.
    pub fn not_taken(&self, snapshot: &FleetSnapshot, why: &str) {
        let (of, key) = (snapshot.head.of(), snapshot.head.of().key());
        tracing::warn!(function = of.function, %key, why, "the fleet's snapshot was refused; booting instead");
        if let Some(fleet) = &self.fleet {
            fleet.refused(key, snapshot.head.memory());
        }
    }

    /// Brings the pager, each one that there is, what it cannot reach: for ever.
    pub async fn bring_chunks(host: Arc<Host>) {
        loop {
            let socket = host.pager.upstream().await;
            let Some(fleet) = host.snapshots.fleet().cloned() else { continue };
            let host = Arc::clone(&host);
            // The one before may not have ended yet.
            tokio::spawn(async move {
                if let Err(error) = answer(&fleet, socket).await {
                    let error = anyhow::Error::from(error);
                    tracing::warn!("the pager is brought nothing any more: {error:#}");
                    host.pager.distrust();
                }
            });
        }
    }

    fn manners(&self) -> MutexGuard<'_, Manners> {
        // Whole between any two statements.
        self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
