//! The guest's bare hands: fixed addresses, the doorbell, the counter. Everything else in this program is safe code,
//! but for the allocator (`heap`) and the two promises made to Wasmtime (`engine`).
#![allow(unsafe_code, reason = "the machine's edge: addresses given by the contract, two instructions")]

use core::{
    arch::{asm, x86_64::_rdtsc},
    mem::offset_of,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};
use warren_abi::{
    DOORBELL_PORT,
    boot::BootHeader,
    mailbox::{
        CONTEXT_MAX, DETAIL_MAX, DETAIL_OFFSET, EVENT_HEADER_OFFSET, EVENT_OFFSET, EventHeader, LOG_MAX,
        LOG_OFFSET, PAYLOAD_MAX, REPLY_HEADER_OFFSET, REPLY_OFFSET, ReplyHeader,
    },
    window::{BOOT, MAILBOX, PAGE_SIZE, TABLES, TASK},
    written::Entry,
};
use zerocopy::FromBytes;

/// States the version of the contract for the monitor: owner, type and one number ([`warren_abi::entry`]).
#[repr(C, align(4))]
struct Note {
    name_len: u32,
    description_len: u32,
    kind: u32,
    name: [u8; 8],
    version: u32,
}

#[used]
#[unsafe(link_section = ".note.warren")]
static NOTE: Note = Note {
    name_len: 7,
    description_len: 4,
    kind: warren_abi::entry::NOTE_TYPE,
    name: *b"Warren\0\0",
    version: warren_abi::ABI_VERSION,
};

/// The first instruction; registers and stack are as [`warren_abi::entry`] says.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
extern "C" fn _start() -> ! {
    crate::main()
}

/// The head of the boot page.
pub(crate) fn boot_header() -> Option<BootHeader> {
    BootHeader::read_from_prefix(window(BOOT.base, size_of::<BootHeader>())).ok().map(|(header, _)| header)
}

/// The encoded description of the function behind the boot header.
pub(crate) fn boot_spec(header: &BootHeader) -> &'static [u8] {
    let head = size_of::<BootHeader>();
    let most = usize::try_from(BOOT.max_len).unwrap_or(0) - head;
    window(BOOT.base + head as u64, (header.spec_len as usize).min(most))
}

/// The function's files.
pub(crate) fn task_archive(header: &BootHeader) -> &'static [u8] {
    window(TASK.base, usize::try_from(header.task_len.min(TASK.max_len)).unwrap_or(0))
}

/// The event the monitor handed over.
pub(crate) fn event_header() -> EventHeader {
    EventHeader::read_from_bytes(window(MAILBOX.base + EVENT_HEADER_OFFSET, size_of::<EventHeader>()))
        .unwrap_or_default()
}

/// Part of the event area (offset and length), cut to it. The bytes change when the next event comes: callers hold them
/// no longer than theirs.
pub(crate) fn event_bytes((offset, len): (u32, u32)) -> &'static [u8] {
    let area = CONTEXT_MAX + PAYLOAD_MAX;
    let offset = u64::from(offset).min(area);
    let len = u64::from(len).min(area - offset);
    window(MAILBOX.base + EVENT_OFFSET + offset, usize::try_from(len).unwrap_or(0))
}

/// An entry of a table that maps the heap; `page` counts pages of the window, and the caller knows that it is there.
pub(crate) fn table_entry(page: u64, slot: u64) -> Entry {
    let address = TABLES.base + page.min(TABLES.max_len / PAGE_SIZE - 1) * PAGE_SIZE + slot % 512 * 8;
    let pointer = ptr::with_exposed_provenance::<u64>(usize::try_from(address).unwrap_or(0));
    // SAFETY: 1. Callers ask only for pages that the contract has mapped, and the entry is aligned. 2. The processor may
    // set bits of it at any time, so it is read once, as volatile, and never borrowed.
    Entry(unsafe { pointer.read_volatile() })
}

/// A read-only view of a range the monitor has mapped.
fn window(base: u64, len: usize) -> &'static [u8] {
    let pointer = ptr::with_exposed_provenance(usize::try_from(base).unwrap_or(0));
    // SAFETY: 1. Callers pass ranges of windows that the monitor maps for at least the length it states in the boot
    // header, readable. 2. Boot page and archive are never written; the event area is written only by the monitor
    // while this vCPU stands in the doorbell, and callers drop what they took from it before they ring.
    unsafe { core::slice::from_raw_parts(pointer, len) }
}

/// An area of the mailbox that this program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// The response.
    Response,
    /// Waiting log bytes.
    Log,
    /// Error text.
    Detail,
}

/// Copies `bytes` into an area at `offset`; how many fitted.
pub(crate) fn put(area: Area, offset: usize, bytes: &[u8]) -> usize {
    let (base, max) = match area {
        Area::Response => (REPLY_OFFSET, PAYLOAD_MAX),
        Area::Log => (LOG_OFFSET, LOG_MAX),
        Area::Detail => (DETAIL_OFFSET, DETAIL_MAX),
    };
    let len = bytes.len().min(usize::try_from(max).unwrap_or(0).saturating_sub(offset));
    let target = ptr::with_exposed_provenance_mut::<u8>(usize::try_from(MAILBOX.base + base).unwrap_or(0));
    if len > 0 {
        // SAFETY: 1. `offset + len` lies inside the area, which lies in the mailbox the monitor maps writable.
        // 2. No reference is ever made to these areas, and `bytes` is the caller's, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target.add(offset), len) };
    }
    len
}

/// A number in the reply header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Kind,
    Error,
    ExitCode,
    DetailLen,
    PayloadLen,
    LogLen,
}

impl Field {
    fn cell(self) -> &'static AtomicU32 {
        let offset = match self {
            Self::Kind => offset_of!(ReplyHeader, kind),
            Self::Error => offset_of!(ReplyHeader, error),
            Self::ExitCode => offset_of!(ReplyHeader, exit_code),
            Self::DetailLen => offset_of!(ReplyHeader, detail_len),
            Self::PayloadLen => offset_of!(ReplyHeader, payload_len),
            Self::LogLen => offset_of!(ReplyHeader, log_len),
        };
        let base = usize::try_from(MAILBOX.base + REPLY_HEADER_OFFSET).unwrap_or(0);
        // SAFETY: 1. The reply header is mapped, writable, and its fields are aligned. 2. The monitor reads and writes
        // it while the vCPU may run (a drain after a kill), so it is only ever touched as an atomic.
        unsafe { AtomicU32::from_ptr(ptr::with_exposed_provenance_mut(base + offset)) }
    }

    /// Reads it back; the monitor sets the log length to 0.
    pub(crate) fn get(self) -> u32 {
        self.cell().load(Ordering::Acquire)
    }

    /// Writes it after everything written before.
    pub(crate) fn set(self, value: u32) {
        self.cell().store(value, Ordering::Release);
    }
}

/// Writes the peak of memory use into the reply header.
pub(crate) fn set_memory_peak(bytes: u64) {
    let base = usize::try_from(MAILBOX.base + REPLY_HEADER_OFFSET).unwrap_or(0);
    let field = base + offset_of!(ReplyHeader, memory_peak_bytes);
    // SAFETY: the field is mapped, writable, aligned, and never borrowed.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(field).write_volatile(bytes) };
}

/// Rings; returns when the monitor lets the guest run again.
pub(crate) fn ring() {
    // SAFETY: 1. IOPL 3 makes the instruction legal in user mode. 2. It changes no register; memory it changes (the
    // event area and header) is not borrowed across it, and the compiler is told that memory changes.
    unsafe { asm!("out dx, eax", in("dx") DOORBELL_PORT, in("eax") 0, options(nostack, preserves_flags)) };
}

/// The time-stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: the instruction is present on every x86-64 and allowed in user mode (CR4.TSD is clear).
    unsafe { _rdtsc() }
}

/// Wasmtime's thread-local words; there is one thread.
static WORDS: [AtomicPtr<u8>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_get(slot: usize) -> *mut u8 {
    WORDS.get(slot).map_or(ptr::null_mut(), |word| word.load(Ordering::Relaxed))
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_set(slot: usize, value: *mut u8) {
    if let Some(word) = WORDS.get(slot) {
        word.store(value, Ordering::Relaxed);
    }
}
