//! Every unsafe operation of the monitor, each behind a safe door.
#![allow(
    unsafe_code,
    reason = "the monitor's one module for descriptors, mappings, memory slots and signals"
)]

pub mod plain;
pub mod pool;
pub mod tap;
pub mod userfault;
pub mod vectored;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use rustix::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestRegionMmap};
use warren_abi::window::LARGE_PAGE_SIZE;

/// Takes over a descriptor that the parent passed at a fixed number, or says that it is not there.
///
/// Call once for each number, before anything else opens or takes descriptors.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: 1. borrowed only for this call, which fails harmlessly when the number is not open.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    // SAFETY: 1. it is open, checked above; 2. the caller's contract: nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Wraps a descriptor of /dev/kvm.
#[must_use]
pub fn kvm(device: OwnedFd) -> Kvm {
    // SAFETY: 1. the number comes out of an `OwnedFd` given up here, so it is open and nobody else's. 2. If it is not
    // /dev/kvm, its ioctls fail; the caller checks the API version first.
    unsafe { Kvm::from_raw_fd(device.into_raw_fd()) }
}

/// [`LARGE_PAGE_SIZE`] as a length in memory.
const LARGE: usize = 2 << 20;
const _: () = assert!(LARGE as u64 == LARGE_PAGE_SIZE);

/// Anonymous memory, aligned to the pages it may have, unmapped when dropped.
#[derive(Debug)]
pub struct Reservation {
    /// Private, or shared with other views of the same memory.
    shared: bool,
    /// Of huge pages that the host has set aside.
    pool: bool,
    /// What was mapped, before alignment.
    whole: NonNull<libc::c_void>,
    whole_len: usize,
    /// First aligned byte.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: 1. the pointers are plain addresses of a mapping this value owns; 2. nothing here reads or writes through
// them, users go through vm-memory's volatile accesses.
unsafe impl Send for Reservation {}
// SAFETY: as for `Send`: shared use only computes addresses.
unsafe impl Sync for Reservation {}

/// What a file mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileUse {
    /// Nobody writes, neither the guest nor the monitor.
    ReadOnly,
    /// Writes go to private copies.
    CopyOnWrite,
}

impl Reservation {
    /// Reserves `len` bytes of address space; nothing is backed until touched.
    pub fn new(len: usize) -> io::Result<Self> {
        Self::aligned(len, MapFlags::PRIVATE, LARGE)
    }

    /// Reserves `len` bytes of address space that others can view too.
    pub fn shared(len: usize) -> io::Result<Self> {
        Self::aligned(len, MapFlags::SHARED, LARGE)
    }

    fn aligned(len: usize, sharing: MapFlags, large: usize) -> io::Result<Self> {
        let whole_len = len.checked_add(large).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: 1. no fixed address, so no existing mapping is touched.
        let whole = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                whole_len,
                ProtFlags::READ | ProtFlags::WRITE,
                sharing | MapFlags::NORESERVE,
            )
        }?;
        let whole = NonNull::new(whole).ok_or(io::ErrorKind::OutOfMemory)?;
        let start = whole.cast::<u8>();
        let skip = start.addr().get().next_multiple_of(large) - start.addr().get();
        // SAFETY: 1. `skip` < `large` and `whole_len` = `len` + `large`, so the result is inside the mapping.
        let start = unsafe { start.add(skip) };
        let shared = sharing == MapFlags::SHARED;
        let reservation = Self { shared, pool: false, whole, whole_len, start, len };
        // Where the host gives huge pages unasked, a guest that touches a dozen pages would hold dozens of MiB.
        reservation.advise(0, len, Advice::LinuxNoHugepage)?;
        Ok(reservation)
    }

    /// The same memory once more, at other addresses: what one view may not touch, the other may.
    pub fn view(&self) -> io::Result<Self> {
        if !self.shared {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let len = self.len;
        // SAFETY: 1. an old length of 0 leaves the mapping where it is and maps its shared pages again, at addresses that
        // the kernel chooses, so nothing that is there is replaced.
        let whole = unsafe {
            rustix::mm::mremap(self.start.as_ptr().cast(), 0, len, rustix::mm::MremapFlags::MAYMOVE)
        }?;
        let whole = NonNull::new(whole).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { shared: true, pool: false, whole, whole_len: len, start: whole.cast(), len })
    }

    /// Lets whoever sees memory through this view touch a part of it, or not. Nothing here touches guest memory through a
    /// view that was ever closed.
    pub fn open(&self, at: usize, len: usize, open: bool) -> io::Result<()> {
        let target = self.part(at, len)?;
        let allowed = if open { MprotectFlags::READ | MprotectFlags::WRITE } else { MprotectFlags::empty() };
        // SAFETY: 1. the range is ours (`part`); 2. no Rust reference points there, and regions for vm-memory are made of
        // another view (`Ram`), so that a closed part is met by KVM alone, which takes it as memory that is not there.
        Ok(unsafe { rustix::mm::mprotect(target.cast(), len, allowed) }?)
    }

    /// Whether a file's pages can be put over parts of it: not over parts of huge ones.
    #[must_use]
    pub fn takes_files(&self) -> bool {
        !self.pool
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// A region for vm-memory over this reservation. The reservation must be kept as long as the region.
    pub(crate) fn region(&self, base: GuestAddress) -> Option<GuestRegionMmap> {
        let builder = MmapRegionBuilder::new(self.len)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: 1. `start..start+len` lies in a live mapping; 2. `Ram` keeps reservation and region together.
        let region = unsafe { builder.with_raw_mmap_pointer(self.start.as_ptr()) }.build().ok()?;
        GuestRegionMmap::new(region, base)
    }

    /// Puts a file's pages over part of the reservation.
    pub fn map_file(
        &self,
        at: usize,
        len: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        usage: FileUse,
    ) -> io::Result<()> {
        let target = self.part(at, len)?;
        let prot = match usage {
            FileUse::ReadOnly => ProtFlags::READ,
            FileUse::CopyOnWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: 1. the replaced range lies in this reservation (`part`), which holds guest memory only: no Rust
        // value lives there and no Rust reference points there.
        unsafe {
            rustix::mm::mmap(target.cast(), len, prot, MapFlags::PRIVATE | MapFlags::FIXED, file, offset)
        }?;
        Ok(())
    }

    /// Puts the pages of another reservation, all of them, over a part of this one, which is as they were; the other is empty
    /// afterwards. Both are private memory.
    pub fn replace(&self, at: usize, other: &Self) -> io::Result<()> {
        if self.shared || self.pool || other.shared || other.pool {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let target = self.part(at, other.len)?;
        // What is left behind must stay a mapping: it is unmapped once more when the other is dropped.
        let flags = rustix::mm::MremapFlags::MAYMOVE | rustix::mm::MremapFlags::DONTUNMAP;
        // SAFETY: 1. the replaced range lies in this reservation (`part`), which holds guest memory only: no Rust value lives
        // there and no Rust reference points there; 2. what moves is the other reservation's own range, of which the same is
        // true; 3. they do not overlap: each owns its mapping.
        unsafe {
            rustix::mm::mremap_fixed(other.start.as_ptr().cast(), other.len, other.len, flags, target.cast())
        }?;
        Ok(())
    }

    /// Asks for huge pages behind part of the reservation.
    pub fn advise_huge(&self, at: usize, len: usize) -> io::Result<()> {
        self.advise(at, len, Advice::LinuxHugepage)
    }

    /// The reverse: how a reservation begins.
    pub fn refuse_huge(&self, at: usize, len: usize) -> io::Result<()> {
        self.advise(at, len, Advice::LinuxNoHugepage)
    }

    /// Gives pages back to the host: they read as they did at first (zero, or the file's bytes), and are taken anew when
    /// somebody touches them.
    pub fn give_back(&self, at: usize, len: usize) -> io::Result<()> {
        let target = self.part(at, len)?;
        // Shared memory is the other views' too: taken from all of them, or not at all.
        let advice = if self.shared { Advice::LinuxRemove } else { Advice::LinuxDontNeed };
        // SAFETY: 1. the range is ours (`part`) and holds guest memory only; 2. contents change as the guest's own writes
        // change them: everybody here reads guest memory by volatile accesses and trusts nothing that stands there.
        Ok(unsafe { rustix::mm::madvise(target.cast(), len, advice) }?)
    }

    fn advise(&self, at: usize, len: usize, advice: Advice) -> io::Result<()> {
        let target = self.part(at, len)?;
        // SAFETY: 1. the range is ours (`part`); 2. the advice given here changes no contents.
        match unsafe { rustix::mm::madvise(target.cast(), len, advice) } {
            // A kernel without huge pages knows neither advice.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes this reservation the memory of a slot, optionally with a log of written pages.
    pub(crate) fn attach(
        &self,
        vm: &VmFd,
        slot: u32,
        base: GuestAddress,
        dirty_log: bool,
    ) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: if dirty_log { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
            guest_phys_addr: base.0,
            memory_size: self.len as u64,
            userspace_addr: self.start.addr().get() as u64,
        };
        // SAFETY: 1. the range is a live mapping; 2. `Ram` and `VmFd` are owned by the same `Machine`, and KVM drops
        // its own view of pages when they are unmapped, so the guest can never reach anything else.
        unsafe { vm.set_user_memory_region(region) }
    }

    fn part(&self, at: usize, len: usize) -> io::Result<*mut u8> {
        match at.checked_add(len) {
            // SAFETY: 1. `at` <= `len` of the reservation, checked in the same arm.
            Some(end) if end <= self.len => Ok(unsafe { self.start.add(at) }.as_ptr()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: 1. exactly what `new` mapped; 2. regions over it are dropped with it (`Ram`).
        let _ = unsafe { rustix::mm::munmap(self.whole.as_ptr(), self.whole_len) };
    }
}

/// Stops a running vCPU from another thread.
#[derive(Debug)]
pub struct Kicker {
    immediate_exit: NonNull<u8>,
    thread: libc::pid_t,
    process: libc::pid_t,
}

// SAFETY: 1. the pointer is only used for atomic stores of one byte; 2. whoever holds a kicker drops it before the
// vCPU it came from (`progress` does so under its lock).
unsafe impl Send for Kicker {}

impl Kicker {
    /// For the vCPU that the *calling* thread runs.
    pub fn for_this_thread(vcpu: &mut VcpuFd) -> Self {
        let flag = NonNull::from(&mut vcpu.get_kvm_run().immediate_exit);
        let id = |pid: rustix::process::Pid| pid.as_raw_nonzero().get();
        Self {
            immediate_exit: flag,
            thread: id(rustix::thread::gettid()),
            process: id(rustix::process::getpid()),
        }
    }

    /// Makes the current or the next KVM_RUN return: the flag first, so that a vCPU about to enter sees it, then the
    /// signal, so that one inside leaves. The flag stays: a kicked vCPU does not run again unless its own thread
    /// [forgives](forgive).
    pub fn kick(&self) {
        // SAFETY: 1. the byte lies in the kvm_run page, mapped as long as the vCPU lives (see `Send`); 2. the kernel
        // and other threads access it as one byte, and so do we.
        unsafe { AtomicU8::from_ptr(self.immediate_exit.as_ptr()) }.store(1, Ordering::SeqCst);
        // SAFETY: 1. plain numbers; 2. our own process and thread: if it is gone the call fails.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, kick_signal()) };
    }
}

/// Takes a kick back: the calling thread's vCPU may run again.
pub fn forgive(vcpu: &mut VcpuFd) {
    let flag = std::ptr::from_mut(&mut vcpu.get_kvm_run().immediate_exit);
    // SAFETY: 1. the byte lies in the kvm_run page of a vCPU that lives; 2. all threads access it as one byte.
    unsafe { AtomicU8::from_ptr(flag) }.store(0, Ordering::SeqCst);
}

/// Puts a vCPU's FPU and vector registers to what they are after a reset.
pub fn clear_extended_state(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: 1. KVM_SET_XSAVE reads a `kvm_xsave` of 4096 bytes, which this is, unless the process was permitted state that is
    // switched on by request (AMX), which it never asks for. 2. All zeroes name no component, so that each gets its first value.
    unsafe { vcpu.set_xsave(&kvm_xsave::default()) }
}

/// The signal that interrupts KVM_RUN.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Gives the kick signal a handler that does nothing, without SA_RESTART, so that it only interrupts.
pub fn install_kick_handler() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: 1. an all-zero sigaction is valid: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: 1. `action` lives through the call; 2. the handler is async-signal-safe: it does nothing.
    match unsafe { libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Which clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Since some point in the past.
    Monotonic,
    /// Since the Unix epoch.
    Wall,
}

/// Nanoseconds of a clock, by the C library: rustix looks for the vDSO with a call that an empty root and older
/// kernels do not serve.
#[must_use]
pub fn clock_ns(clock: Clock) -> u64 {
    let id = match clock {
        Clock::Monotonic => libc::CLOCK_MONOTONIC,
        Clock::Wall => libc::CLOCK_REALTIME,
    };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: 1. `time` lives through the call. It cannot fail: both clocks exist everywhere.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
