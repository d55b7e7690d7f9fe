//! Linear memories: the main one grows in place in the middle of the heap window, further ones move.
#![allow(unsafe_code, reason = "memory handed to compiled code")]

use super::{LINEAR, PAGE, written};
use alloc::{boxed::Box, string::String, vec::Vec};
use core::{ptr, sync::atomic::Ordering::Relaxed};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

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

fn used_up() -> wasmtime::Error {
    LINEAR.refused.store(true, Relaxed);
    wasmtime::Error::msg("the function's memory is used up")
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
        LINEAR.len.load(Relaxed) + LINEAR.growable()
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        let (base, len, dirty) =
            (LINEAR.base.load(Relaxed), LINEAR.len.load(Relaxed), LINEAR.dirty.load(Relaxed));
        if new_size > self.byte_capacity() {
            return Err(used_up());
        }
        let zero_to = new_size.min(dirty);
        for (start, end) in written::ranges(base + len, base + zero_to) {
            // SAFETY: inside the window, between the allocator's parts, and not yet part of the memory.
            unsafe { ptr::with_exposed_provenance_mut::<u8>(start).write_bytes(0, end - start) };
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
            // It moves: the whole of it at once, out of the middle, whatever the allocator has in small parts.
            if units.saturating_mul(size_of::<u128>()).saturating_add(PAGE) > LINEAR.growable() {
                return Err(used_up());
            }
            self.0.try_reserve_exact(more).map_err(|_| used_up())?;
            self.0.resize(units, 0);
        }
        self.1 = new_size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut().cast()
    }
}
