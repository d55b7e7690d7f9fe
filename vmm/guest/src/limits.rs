//! What a function may grow to, and how much it used.

use crate::{heap, raw};
use wasmtime::ResourceLimiter;

/// Bytes of a table element, as far as the limit is concerned.
const TABLE_ELEMENT: usize = 16;
/// Most table elements; tables cannot be counted against memory when they shrink with their instance.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;

/// The limit of all linear memories and tables of an instance together.
#[derive(Debug)]
pub(crate) struct Limits {
    limit: usize,
    in_use: usize,
    /// The last wish for more was refused.
    refused: bool,
    peak: usize,
}

impl Limits {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), in_use: 0, refused: false, peak: 0 }
    }

    /// A new instance holds nothing yet.
    pub(crate) fn begin_instance(&mut self) {
        self.in_use = 0;
        self.refused = false;
        heap::take_refusal();
    }

    /// A new event has seen no peak yet.
    pub(crate) fn begin_event(&mut self) {
        self.peak = 0;
        raw::set_memory_peak(0);
        self.refused = false;
    }

    /// Whether the last wish for memory was refused.
    pub(crate) const fn refused(&self) -> bool {
        self.refused
    }

    pub(crate) const fn memory_limit(&self) -> usize {
        self.limit
    }

    /// An instance could not be made: whether for want of memory.
    pub(crate) fn note_failed_instance(&mut self) {
        self.refused |= heap::take_refusal();
    }

    /// Takes note of what is in use; called wherever that may be a peak.
    ///
    /// The mailbox learns it at once: of an event that is stopped, nothing else is left.
    pub(crate) fn observe(&mut self) {
        let used = heap::used_bytes();
        if used > self.peak {
            self.peak = used;
            raw::set_memory_peak(used as u64);
        }
    }

    /// The most in use since the event began: memories, tables, this program's heap with the files of `/tmp`.
    pub(crate) const fn peak(&self) -> u64 {
        self.peak as u64
    }

    fn grow(&mut self, by: usize) -> bool {
        let wanted = self.in_use.saturating_add(by);
        self.refused = wanted > self.limit;
        if !self.refused {
            self.in_use = wanted;
        }
        self.observe();
        !self.refused
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Past its own maximum it is the module's rule, not ours.
        Ok(maximum.is_some_and(|most| desired > most) || self.grow(desired.saturating_sub(current)))
    }

    /// The heap window ended before the limit did.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|most| desired > most) {
            return Ok(true);
        }
        if desired > TABLE_ELEMENTS_MAX {
            self.refused = true;
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }
}
