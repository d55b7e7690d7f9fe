//! The allocator, and where it gets more memory from: pieces cut off the far end of the window.
//!
//! ```text
//! middle --acquire--> claimed --every byte freed--> parked --acquire--> claimed
//!                                                   parked and lowest --> middle
//! ```
#![allow(unsafe_code, reason = "an allocator and the memory it hands out")]

use super::{LINEAR, PAGE};
use core::{
    alloc::Layout,
    ptr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use lock_api::{GuardSend, RawMutex};
use talc::{TalcLock, base::Talc, base::binning::Binning, source::Source};

/// Least bytes of a piece.
pub(super) const PIECE: usize = 2 << 20;
/// Most pieces at once; the largest window is used up by half of them.
const PIECES_MAX: usize = 8192;

#[global_allocator]
pub(super) static ALLOCATOR: TalcLock<OneThread, FarEnd> = TalcLock::new(FarEnd::new());

/// Gives the allocator its first part.
pub(super) fn claim_first(base: usize, len: usize) {
    // SAFETY: the monitor maps this part of the heap window readable and writable; nothing else uses it, now or later.
    let _end = unsafe { ALLOCATOR.lock().claim(ptr::with_exposed_provenance_mut(base), len) };
}

/// A piece: the pieces lie one below the other from the window's end down, each starting where the next one ends.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    start: usize,
    len: usize,
    /// The allocator does not have it.
    parked: bool,
}

/// The pieces, highest first.
#[derive(Debug)]
pub(super) struct FarEnd {
    pieces: [Piece; PIECES_MAX],
    count: usize,
}

impl FarEnd {
    #[expect(clippy::large_stack_arrays, reason = "evaluated at compile time, for a static")]
    const fn new() -> Self {
        Self { pieces: [Piece { start: 0, len: 0, parked: false }; PIECES_MAX], count: 0 }
    }

    /// Bytes in parked pieces.
    pub(super) fn parked_bytes(&self) -> usize {
        self.live().iter().filter(|piece| piece.parked).map(|piece| piece.len).sum()
    }

    fn live(&self) -> &[Piece] {
        self.pieces.get(..self.count).unwrap_or_default()
    }

    /// A range of at least `wanted` bytes that is the allocator's from now on.
    fn take(&mut self, wanted: usize) -> Option<Piece> {
        let count = self.count;
        let parked = self.pieces.iter_mut().take(count).find(|piece| piece.parked && piece.len >= wanted);
        if let Some(piece) = parked {
            piece.parked = false;
            return Some(*piece);
        }
        let free = LINEAR.free() / PAGE * PAGE;
        if free >= wanted {
            return self.cut(wanted);
        }
        // Pieces are larger than what was asked for; the last one may be what is left.
        if wanted == PIECE && free > PAGE { self.cut(free) } else { None }
    }

    fn cut(&mut self, len: usize) -> Option<Piece> {
        let slot = self.pieces.get_mut(self.count)?;
        let start = LINEAR.end.load(Relaxed) - len;
        *slot = Piece { start, len, parked: false };
        self.count += 1;
        LINEAR.end.store(start, Relaxed);
        // What lies beyond is the linear memory's again only through `park`, which counts it as dirty.
        LINEAR.dirty.fetch_min(start - LINEAR.base.load(Relaxed), Relaxed);
        Some(*slot)
    }

    /// The allocator gave the piece that ends at `end` back; the lowest parked ones become middle again.
    fn park(&mut self, end: usize) {
        let count = self.count;
        let found = self
            .pieces
            .iter_mut()
            .take(count)
            .find(|piece| (piece.start + 1..=piece.start + piece.len).contains(&end));
        if let Some(piece) = found {
            piece.parked = true;
        }
        while let Some(lowest) = self.live().last().copied().filter(|piece| piece.parked) {
            self.count -= 1;
            let end = lowest.start + lowest.len;
            LINEAR.end.store(end, Relaxed);
            LINEAR.dirty.fetch_max(end - LINEAR.base.load(Relaxed), Relaxed);
        }
    }
}

// SAFETY: `acquire` touches the allocator only through its argument and claims memory that nothing else uses: the linear
// memory grows only up to `end`, which moves down first. `resize` gives up whole pieces only, by returning `chunk_base`
// as the trait asks, and they are handed out again only through `acquire` or as linear memory.
unsafe impl Source for FarEnd {
    const TRACK_HEAP_END: bool = true;

    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the allocator's own words on both sides.
        let wanted =
            layout.size().checked_add(layout.align()).and_then(|size| size.checked_add(PAGE)).ok_or(())?;
        let wanted = wanted.max(PIECE).checked_next_multiple_of(PAGE).ok_or(())?;
        let piece = talc.source.take(wanted).ok_or(())?;
        // SAFETY: mapped, and from now on the allocator's alone.
        unsafe { talc.claim(ptr::with_exposed_provenance_mut(piece.start), piece.len) }.map(drop).ok_or(())
    }

    unsafe fn resize(&mut self, chunk_base: *mut u8, heap_end: *mut u8, is_heap_base: bool) -> *mut u8 {
        // The first part is no piece and stays.
        if !is_heap_base || heap_end.addr() <= LINEAR.base.load(Relaxed) {
            return heap_end;
        }
        self.park(heap_end.addr());
        chunk_base
    }
}

/// The lock of a program with one thread: it is never contended, and says so if it is.
pub(super) struct OneThread(AtomicBool);

// SAFETY: only one caller holds the lock at a time: a second one, which only a defect could make, never returns.
unsafe impl RawMutex for OneThread {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        // A defect in this program; the sandbox must end.
        assert!(self.try_lock(), "the allocator was entered twice");
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Relaxed)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Relaxed);
    }
}
