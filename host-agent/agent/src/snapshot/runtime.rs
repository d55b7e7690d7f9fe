//! What the snapshot of a Linux function begins with: its guest, written down before any function was in it.
//!
//! ```text
//! kept ─▶ it         none ─▶ the fleet's, brought ─▶ it
//!                              ╰ none ─▶ made, which is one boot ─▶ kept ─▶ it, and the fleet has it once the function's is made
//!                                         ╰ not now, or not for a minute yet ─▶ none: the function's is made by a boot
//! ```
//! All functions of a guest (runtime, kernel, initrd, machine) begin with the same, so what they have in common lies at the same place in
//! all of them: the fleet has it once, and each function's as a diff on it (`fleet`).
//!
//! Of two hosts that make one at once, the fleet's is the one whose entry was first; the other host brings that, and forgets its own,
//! before it makes its next.

use super::{
    SealedSnapshot, Shelf, Snapshots,
    make::{self, words},
    tries::NotMade,
};
use crate::{
    host::Host,
    version::{Startable, VersionSpec, Weigh as _},
};
use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};
use warren_artefact::SnapshotOf;

impl Snapshots {
    /// The runtime's, for who makes one of this function and has the turn, and whether it was made for that: then the fleet is to have it,
    /// once the function's is made. `None`: a Wasm function's, or there is none, which was said.
    pub(super) async fn runtime(
        &self,
        host: &Arc<Host>,
        place: &Arc<Shelf>,
        of: &SnapshotOf,
        what: (&VersionSpec, &Startable),
    ) -> Option<(Arc<SealedSnapshot>, bool)> {
        let (of, function) = (of.runtime()?, &of.function);
        if let Some(kept) = self.get(place, of.clone()).await {
            if self.uses().note(of.key(), SystemTime::now()) {
                let place = Arc::clone(place);
                drop(tokio::task::spawn_blocking(move || place.touch(&of)));
            }
            return Some((kept, false));
        }
        if !self.tries().begin(&of, Instant::now()) {
            let (key, function) = (of.key(), function.as_str());
            tracing::info!(function, %key, "its runtime's snapshot could not be had a moment ago: it boots to be written down");
            return None;
        }
        let ended = self.runtime_made(host, place, of.clone(), what).await;
        let is_new = ended == Ok(true);
        let kept = self.tries().end(of.key(), ended.map(|_| ()), Instant::now());
        self.ends.send_replace(());
        if !kept {
            let _ = self.forget(of.key()).await;
            return None;
        }
        self.get(place, of).await.map(|made| (made, is_new))
    }

    /// Whether it was made, and not brought.
    async fn runtime_made(
        &self,
        host: &Arc<Host>,
        place: &Arc<Shelf>,
        of: SnapshotOf,
        what: (&VersionSpec, &Startable),
    ) -> Result<bool, NotMade> {
        if self.take_from_fleet(host, &of, what).await {
            return Ok(false);
        }
        let (key, began) = (of.key(), Instant::now());
        let runtime = match what.1 {
            Startable::Linux(version) => version.runtime.manifest.name.clone(),
            Startable::Wasm(_) => String::new(),
        };
        match make::make(host, place, &self.compiler, of, what, None).await {
            Ok(made) => {
                let (bytes, ms) = (made.bytes(), began.elapsed().as_millis());
                tracing::info!(runtime, %key, bytes, ms, "the snapshot of a runtime was made");
                self.sealed.insert(key, made);
                Ok(true)
            }
            Err(error) => {
                // Nothing of a function is in it, so nothing is sure to end the same: it is tried again.
                let why = NotMade::NotNow(words(&error));
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    runtime,
                    %key,
                    "a runtime could not be written down, its functions boot to be: {error:#}"
                );
                Err(why)
            }
        }
    }
}
