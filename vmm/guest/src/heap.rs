//! The heap window, shared by this program's allocator and the function's linear memory.
//!
//! ```text
//! HEAP.base                                                     HEAP.base + heap_len
//! | allocator: first part | main linear memory ->   free   <- allocator: further parts |
//! ```
//! The main linear memory grows in place: no copy, and no moment that needs it twice. A second linear memory at the
//! same time comes from the allocator and moves when it grows. Pages a function never touched stay untouched: zeroing
//! for the next instance reaches only as far as the last one grew.
#![allow(unsafe_code, reason = "an allocator and the memory it hands out")]

use alloc::{boxed::Box, string::String, vec::Vec};
use core::{
    alloc::Layout,
    ptr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use lock_api::{GuardSend, RawMutex};
use talc::{TalcLock, base::Talc, base::binning::Binning, source::Source};
use warren_abi::window::HEAP;
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

/// Bytes the allocator gets first; a large page of the host more or less.
const FIRST_PART: usize = 4 << 20;
/// Least bytes it takes at a time from the far end.
const FURTHER_PART: usize = 2 << 20;
const PAGE: usize = 4096;

#[global_allocator]
static ALLOCATOR: TalcLock<OneThread, FromFarEnd> = TalcLock::new(FromFarEnd);

/// The division of the window. One thread: plain loads and stores.
static LINEAR: Linear = Linear {
    base: AtomicUsize::new(0),
    len: AtomicUsize::new(0),
    end: AtomicUsize::new(0),
    dirty: AtomicUsize::new(0),
    used: AtomicBool::new(false),
};

struct Linear {
    /// Where the main linear memory starts.
    base: AtomicUsize,
    /// Its bytes now.
    len: AtomicUsize,
    /// Where the allocator's further parts start; it moves down.
    end: AtomicUsize,
    /// Bytes from `base` that may be other than zero.
    dirty: AtomicUsize,
    /// An instance has it.
    used: AtomicBool,
}

/// Divides `heap_len` bytes of the window. Nothing may be allocated before.
pub(crate) fn start(heap_len: u64) {
    let base = usize::try_from(HEAP.base).unwrap_or(0);
    let len = usize::try_from(heap_len.min(HEAP.max_len)).unwrap_or(0) / PAGE * PAGE;
    let first = FIRST_PART.min(len / 2 / PAGE * PAGE);
    // SAFETY: the monitor maps `heap_len` bytes of the window readable and writable; this part of it is used by
    // nothing else, now or later.
    let _end = unsafe { ALLOCATOR.lock().claim(ptr::with_exposed_provenance_mut(base), first) };
    LINEAR.base.store(base + first, Relaxed);
    LINEAR.end.store(base + len, Relaxed);
}

/// Bytes in use now: the main linear memory and everything allocated, files of `/tmp` included.
pub(crate) fn used_bytes() -> usize {
    ALLOCATOR.lock().counters().allocated_bytes + LINEAR.len.load(Relaxed)
}

/// Gives the allocator more of the free middle.
#[derive(Debug)]
struct FromFarEnd;

// SAFETY: `acquire` touches the allocator only through its argument, and claims memory that nothing else uses: the
// linear memory grows only up to `end`, which moves down first.
unsafe impl Source for FromFarEnd {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the allocator's own words on both sides.
        let wanted = layout.size().checked_add(layout.align()).and_then(|size| size.checked_add(PAGE)).ok_or(())?;
        let wanted = wanted.max(FURTHER_PART).checked_next_multiple_of(PAGE).ok_or(())?;
        let low = (LINEAR.base.load(Relaxed) + LINEAR.len.load(Relaxed)).next_multiple_of(PAGE);
        let end = LINEAR.end.load(Relaxed);
        let start = end.checked_sub(wanted).filter(|start| *start >= low).ok_or(())?;
        LINEAR.end.store(start, Relaxed);
        // What lies beyond `end` is never the linear memory's again, so what it left there need not be zeroed.
        let most_dirty = start - LINEAR.base.load(Relaxed);
        LINEAR.dirty.fetch_min(most_dirty, Relaxed);
        // SAFETY: mapped, and from now on the allocator's alone.
        unsafe { talc.claim(ptr::with_exposed_provenance_mut(start), wanted) }.map(drop).ok_or(())
    }
}

/// The lock of a program with one thread: it is never contended, and says so if it is.
struct OneThread(AtomicBool);

// SAFETY: only one caller holds the lock at a time: a second one, which only a defect could make, never returns.
unsafe impl RawMutex for OneThread {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    #[expect(clippy::panic, reason = "a defect in this program; the sandbox must end")]
    fn lock(&self) {
        if !self.try_lock() {
            panic!("the allocator was entered twice");
        }
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Relaxed)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Relaxed);
    }
}

/// Makes linear memories for Wasmtime.
#[derive(Debug)]
pub(crate) struct Memories;

// SAFETY: both kinds give zeroed bytes of the size they state, at an address that stays until they grow or end; guard
// pages and reservations are switched off in the engine's settings, so none is asked for.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if guard != 0 || reserved.is_some_and(|bytes| bytes > minimum) {
            return Err("the engine asks for guard pages or reservations".into());
        }
        if !LINEAR.used.swap(true, Relaxed) {
            let mut memory = MainMemory;
            memory.grow_to(minimum).map_err(|error| alloc::format!("{error}"))?;
            return Ok(Box::new(memory));
        }
        let mut memory = MovingMemory(Vec::new(), 0);
        memory.grow_to(minimum).map_err(|error| alloc::format!("{error}"))?;
        Ok(Box::new(memory))
    }
}

/// The linear memory in the middle of the window; there is at most one.
#[derive(Debug)]
struct MainMemory;

// SAFETY: the bytes up to `len` are mapped, zero when first seen, and nobody else's while `used` is set.
unsafe impl LinearMemory for MainMemory {
    fn byte_size(&self) -> usize {
        LINEAR.len.load(Relaxed)
    }

    fn byte_capacity(&self) -> usize {
        LINEAR.end.load(Relaxed) - LINEAR.base.load(Relaxed)
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        let (base, len, dirty) = (LINEAR.base.load(Relaxed), LINEAR.len.load(Relaxed), LINEAR.dirty.load(Relaxed));
        if new_size > self.byte_capacity() {
            return Err(wasmtime::Error::msg("the function's memory is used up"));
        }
        let zero_to = new_size.min(dirty);
        if zero_to > len {
            // SAFETY: inside the window and the allocator's parts, and not yet part of the memory.
            unsafe { ptr::with_exposed_provenance_mut::<u8>(base + len).write_bytes(0, zero_to - len) };
        }
        LINEAR.len.store(new_size, Relaxed);
        LINEAR.dirty.fetch_max(new_size, Relaxed);
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(LINEAR.base.load(Relaxed))
    }
}

impl Drop for MainMemory {
    fn drop(&mut self) {
        LINEAR.len.store(0, Relaxed);
        LINEAR.used.store(false, Relaxed);
    }
}

/// A further linear memory, from the allocator, in units that align it.
#[derive(Debug)]
struct MovingMemory(Vec<u128>, usize);

// SAFETY: the vector holds at least the stated bytes, zeroed, and moves only in `grow_to`.
unsafe impl LinearMemory for MovingMemory {
    fn byte_size(&self) -> usize {
        self.1
    }

    fn byte_capacity(&self) -> usize {
        self.0.capacity().saturating_mul(size_of::<u128>())
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        let units = new_size.div_ceil(size_of::<u128>());
        if let Some(more) = units.checked_sub(self.0.len()) {
            self.0.try_reserve(more).map_err(|_| wasmtime::Error::msg("the function's memory is used up"))?;
            self.0.resize(units, 0);
        }
        self.1 = new_size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut().cast()
    }
}
