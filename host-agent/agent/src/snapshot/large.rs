//! A snapshot's memory in large pages, where it lies in its file as in the guest's memory.
//!
//! What a guest reads of such a page and nobody has written (a kernel's text) it then meets with one fault instead of hundreds. One that
//! is written becomes small pages again, in that guest alone: its others cost what they would have cost.

use super::{SealedSnapshot, runs::runs};
use std::num::NonZeroUsize;
use warren_large_pages::gather;
use warren_state::wasm::large_parts;

impl SealedSnapshot {
    /// The same, in large pages where the kernel can. Blocks.
    #[must_use]
    pub(in crate::snapshot) fn in_large_pages(self) -> Self {
        // Of a state that is none there is nothing to gather; whoever brings it back says why.
        for (at, len) in large_parts(&runs(&self.head).unwrap_or_default()) {
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
