//! A snapshot's memory in large pages, where it lies in its file as in the guest's memory.
//!
//! What a guest reads of such a page and nobody has written (a kernel's text) it then meets with one fault instead of hundreds. One that
//! is written becomes small pages again, in that guest alone: its others cost what they would have cost.

use super::SealedSnapshot;
use std::num::NonZeroUsize;
use warren_artefact::GuestOf;
use warren_large_pages::gather;
use warren_state::{
    linux::LinuxState,
    wasm::{Run, WasmState, large_parts},
};

impl SealedSnapshot {
    /// The same, in large pages where the kernel can. Blocks.
    #[must_use]
    pub(in crate::snapshot) fn in_large_pages(self) -> Self {
        for (at, len) in large_parts(&runs(&self)) {
            let Some(len) = usize::try_from(len).ok().and_then(NonZeroUsize::new) else { continue };
            if let Err(why) = gather(&self.memory, at, len) {
                // Also the next part would not be: this kernel cannot, or has none left.
                tracing::debug!(
                    function = self.head.of().function,
                    "a snapshot's memory stays in small pages: {why}"
                );
                break;
            }
        }
        self
    }
}

/// Of a state that does not open there is nothing to gather; whoever brings it back says why.
fn runs(snapshot: &SealedSnapshot) -> Vec<Run> {
    let state = snapshot.head.state();
    let runs = match snapshot.head.of().guest {
        GuestOf::Wasm { .. } => warren_state::open::<WasmState>(state).map(|state| state.runs),
        GuestOf::Linux { .. } => warren_state::open::<LinuxState>(state).map(|state| state.runs),
    };
    runs.unwrap_or_default()
}
