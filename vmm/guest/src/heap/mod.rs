//! The heap window, shared by this program's allocator and the function's linear memory.
//!
//! ```text
//! HEAP.base                                               HEAP.base + heap_len
//! | allocator: first part | main linear memory ->   free   <- allocator: pieces |
//! ```
//! The main linear memory grows in place: no copy, and no moment that needs it twice. A second linear memory at the
//! same time comes from the allocator and moves when it grows. Pages that nothing ever touched stay untouched: zeroing
//! for the next instance reaches only as far as the last one grew, and passes over what the page tables show as never
//! written. Pieces the allocator has no more use for go back to the middle.
//!
//! Modules: [`allocator`] the allocator and its pieces, [`memories`] linear memories, [`written`] what was written.

mod allocator;
mod memories;
mod written;

use allocator::ALLOCATOR;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
pub(crate) use memories::Memories;
use warren_abi::window::HEAP;

/// Bytes the allocator gets first: enough for most functions, and with the first of linear memory in one large page.
const FIRST_PART: usize = 1 << 20;
/// Bytes kept from the function, so that this program can always finish and tell why.
const RESERVE: usize = 1 << 20;
const PAGE: usize = 4096;

/// The division of the window. One thread: plain loads and stores.
static LINEAR: Linear = Linear {
    base: AtomicUsize::new(0),
    len: AtomicUsize::new(0),
    end: AtomicUsize::new(0),
    reserve: AtomicUsize::new(RESERVE),
    dirty: AtomicUsize::new(0),
    used: AtomicBool::new(false),
    refused: AtomicBool::new(false),
};

struct Linear {
    /// Where the main linear memory starts.
    base: AtomicUsize,
    /// Its bytes now.
    len: AtomicUsize,
    /// Where the allocator's pieces start; it moves down and up.
    end: AtomicUsize,
    /// Bytes above the linear memory that it must leave.
    reserve: AtomicUsize,
    /// Bytes from `base` that may be other than zero.
    dirty: AtomicUsize,
    /// An instance has it.
    used: AtomicBool,
    /// Some linear memory could not be had since [`take_refusal`].
    refused: AtomicBool,
}

impl Linear {
    /// Bytes by which the main linear memory may grow, or the allocator for the function's sake: all but the reserve.
    fn growable(&self) -> usize {
        self.free().saturating_sub(self.reserve.load(Relaxed))
    }

    /// Bytes between the linear memory and the allocator's pieces.
    fn free(&self) -> usize {
        self.end.load(Relaxed).saturating_sub(self.base.load(Relaxed) + self.len.load(Relaxed))
    }
}

/// Divides `heap_len` bytes of the window. Nothing may be allocated before.
pub(crate) fn start(heap_len: u64) {
    let base = usize::try_from(HEAP.base).unwrap_or(0);
    let len = usize::try_from(heap_len.min(HEAP.max_len)).unwrap_or(0) / PAGE * PAGE;
    let first = FIRST_PART.min(len / 2 / PAGE * PAGE);
    allocator::claim_first(base, first);
    LINEAR.base.store(base + first, Relaxed);
    LINEAR.end.store(base + len, Relaxed);
}

/// Keeps so many bytes more from the function, in one piece, for what this program must take over from it; and two pieces
/// that small allocations, the function's and this program's, may cut off meanwhile.
pub(crate) fn keep(bytes: usize) {
    LINEAR.reserve.fetch_add(bytes + 2 * allocator::PIECE, Relaxed);
}

/// Bytes in use now: the main linear memory and everything allocated, files of `/tmp` included.
pub(crate) fn used_bytes() -> usize {
    ALLOCATOR.lock().counters().allocated_bytes + LINEAR.len.load(Relaxed)
}

/// Whether a linear memory could not be had for want of room, since this was last asked.
pub(crate) fn take_refusal() -> bool {
    LINEAR.refused.swap(false, Relaxed)
}

/// Bytes that the function may still ask for in `/tmp`; this program's own reserve is left out. None once the middle is
/// used up, whatever the allocator has in small parts: it would take the next piece out of the reserve.
pub(crate) fn room_bytes() -> u64 {
    let growable = LINEAR.growable();
    if growable == 0 {
        return 0;
    }
    let allocator = ALLOCATOR.lock();
    (growable + allocator.counters().available_bytes + allocator.source.parked_bytes()) as u64
}
