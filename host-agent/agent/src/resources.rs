//! What the host has and what a sandbox may take of it: memory is reserved, CPU is a share.
//!
//! - **Memory**: a sandbox reserves its function's memory plus [`OVERHEAD_MIB`]; creation beyond the host's memory is
//!   refused. The same sum is its cgroup's limit. A compilation reserves its limit, and waits for it: idle sandboxes
//!   make room.
//! - **CPU**: in proportion to memory; [`MIB_PER_CORE`] MiB buy one core, as in AWS Lambda. It is a *weight*, not a
//!   ceiling: on a busy host shares are kept, an idle core is given to whoever can use it.

use crate::sandbox::live::Guest;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use warren_sandbox_plan::request::Limits;

/// Memory of a sandbox beyond its function's, MiB: mailbox 14, guest program, stack and page tables 5, the VMM's own
/// pages and stacks 8, kernel structures of the VM 5 (page tables of the VM grow with memory: see [`sandbox_limits`]).
pub const OVERHEAD_MIB: u64 = 32;

/// What a Linux guest gets beyond its function's memory, MiB: its kernel, the page tables for all of it, init. What a function
/// has is then about what it asked for.
pub const GUEST_SYSTEM_MIB: u64 = 48;

/// The memory that buys one core, MiB.
pub const MIB_PER_CORE: u64 = 1769;

/// Tasks of a VMM: main, vCPU, and room for the kernel's own vhost or worker threads.
const VMM_PIDS: u32 = 8;

/// Limits of a sandbox whose function has so much memory.
#[must_use]
pub fn sandbox_limits(memory_mib: u32, code_bytes: u64) -> Limits {
    let memory = u64::from(memory_mib);
    // Shadow or nested page tables take 1/512 of the memory at 4 KiB pages, twice (VMM's own and KVM's).
    let tables = memory / 256 + 1;
    // A VMM may keep a private copy of pages of the code it maps.
    let bytes = ((memory + OVERHEAD_MIB + tables) << 20).saturating_add(code_bytes);
    Limits {
        memory_bytes: bytes,
        cpu_millis: cpu_millis(memory_mib),
        cpu_hard: false,
        pids: VMM_PIDS,
        cpu_seconds: 0,
    }
}

/// Memory of a whole sandbox on its host, MiB: what is reserved.
#[must_use]
pub const fn host_mib(guest: Guest, memory_mib: u32) -> u64 {
    let system = match guest {
        Guest::Wasm => 0,
        Guest::Linux => GUEST_SYSTEM_MIB,
    };
    memory_mib as u64 + system + OVERHEAD_MIB
}

/// vCPUs of a Linux guest: as many as its share of the host's cores can keep busy, six at most, as in AWS Lambda.
#[must_use]
pub fn vcpus(memory_mib: u32, cores: usize) -> u8 {
    let wanted = u64::from(memory_mib).div_ceil(MIB_PER_CORE).clamp(1, 6);
    u8::try_from(wanted.min(u64::try_from(cores.max(1)).unwrap_or(1))).unwrap_or(1)
}

/// Limits of a Linux guest's VMM. Pages of its disks that it wrote are its own too, until the host has written them out.
#[must_use]
pub fn linux_limits(memory_mib: u32, cpus: u8) -> Limits {
    let memory = host_mib(Guest::Linux, memory_mib);
    Limits {
        memory_bytes: (memory + memory / 256 + 1) << 20,
        cpu_millis: cpu_millis(memory_mib),
        cpu_hard: false,
        pids: warren_sandbox_plan::linux::tasks(cpus),
        cpu_seconds: 0,
    }
}

/// The CPU share of a function with so much memory, in thousandths of a core.
#[must_use]
pub fn cpu_millis(memory_mib: u32) -> u32 {
    let millis = u64::from(memory_mib) * 1000 / MIB_PER_CORE;
    u32::try_from(millis.max(1)).unwrap_or(u32::MAX)
}

/// The host has not enough memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed_mib} MiB are needed and {free_mib} MiB of {total_mib} MiB are free")]
pub struct HostFull {
    /// Asked for, overhead included.
    pub needed_mib: u64,
    /// Left.
    pub free_mib: u64,
    /// The host's whole.
    pub total_mib: u64,
}

/// The host's memory, counted in MiB.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    total_mib: u64,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    used_mib: AtomicU64,
    /// Rung when a reservation ends.
    freed: Notify,
    /// Rung when somebody waits for memory.
    wanted: Notify,
    /// Rung when somebody who waited for memory gives it back: a compilation, which may have taken all there is.
    returned: Notify,
}

impl MemoryBudget {
    /// A host with so much for sandboxes.
    #[must_use]
    pub fn new(total_mib: u64) -> Self {
        Self { total_mib, shared: Arc::default() }
    }

    /// The whole.
    #[must_use]
    pub const fn total_mib(&self) -> u64 {
        self.total_mib
    }

    /// What is left.
    #[must_use]
    pub fn free_mib(&self) -> u64 {
        self.total_mib.saturating_sub(self.shared.used_mib.load(Ordering::Relaxed))
    }

    /// Takes a sandbox's memory until the reservation is dropped.
    pub fn reserve(&self, guest: Guest, memory_mib: u32) -> Result<Reservation, HostFull> {
        self.take(host_mib(guest, memory_mib))
    }

    /// Takes so much if it is free now.
    pub fn reserve_mib(&self, mib: u64) -> Result<Reservation, HostFull> {
        self.take(mib)
    }

    /// Takes so much if it is free now. For what ends soon, like [`Self::reserve_soon`].
    pub fn reserve_brief(&self, mib: u64) -> Result<Reservation, HostFull> {
        let mut reservation = self.take(mib)?;
        reservation.brief = true;
        Ok(reservation)
    }

    /// Takes memory that is in use already, whether it fits or not (adoption after a restart with a smaller budget).
    #[must_use]
    pub fn reserve_adopted(&self, guest: Guest, memory_mib: u32) -> Reservation {
        let mib = host_mib(guest, memory_mib);
        self.shared.used_mib.fetch_add(mib, Ordering::Relaxed);
        Reservation { shared: Arc::clone(&self.shared), mib, brief: false }
    }

    /// Takes so much as soon as it is free, asking for room meanwhile; on a host that is smaller, all of it. For what ends
    /// soon: its end is reported to control at once.
    pub async fn reserve_soon(&self, mib: u64, patience: Duration) -> Result<Reservation, HostFull> {
        let mut reservation = self.wait_for(mib, patience).await?;
        reservation.brief = true;
        Ok(reservation)
    }

    async fn wait_for(&self, mib: u64, patience: Duration) -> Result<Reservation, HostFull> {
        let mib = mib.min(self.total_mib);
        let wait = async {
            loop {
                // Before the look, so that what gets free after it is not missed.
                let freed = self.shared.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if let Ok(reservation) = self.take(mib) {
                    return reservation;
                }
                self.shared.wanted.notify_one();
                freed.await;
            }
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(reservation) => Ok(reservation),
            Err(_) => self.take(mib),
        }
    }

    /// Returns when somebody waits for memory.
    pub async fn wanted(&self) {
        self.shared.wanted.notified().await;
    }

    /// Returns when what [`reserve_soon`](Self::reserve_soon) took was given back since the last time.
    pub async fn returned(&self) {
        self.shared.returned.notified().await;
    }

    fn take(&self, needed_mib: u64) -> Result<Reservation, HostFull> {
        let take = |used: u64| used.checked_add(needed_mib).filter(|sum| *sum <= self.total_mib);
        match self.shared.used_mib.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(Reservation { shared: Arc::clone(&self.shared), mib: needed_mib, brief: false }),
            Err(used) => {
                let free_mib = self.total_mib.saturating_sub(used);
                Err(HostFull { needed_mib, free_mib, total_mib: self.total_mib })
            }
        }
    }
}

/// Memory taken; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    mib: u64,
    brief: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.used_mib.fetch_sub(self.mib, Ordering::Relaxed);
        self.shared.freed.notify_waiters();
        if self.brief {
            self.shared.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_follow_memory() {
        for (mib, millis) in [(128, 72), (1769, 1000), (3538, 2000), (10240, 5788), (0, 1)] {
            assert_eq!(cpu_millis(mib), millis, "{mib}");
        }
        assert_eq!(sandbox_limits(128, 0).memory_bytes, (128 + 32 + 1) << 20);
        assert_eq!(linux_limits(128, 2).memory_bytes, (128 + 48 + 32 + 1) << 20);
        for (mib, cores, cpus) in
            [(128, 8, 1), (1769, 8, 1), (1770, 8, 2), (10_240, 64, 6), (10_240, 2, 2), (128, 0, 1)]
        {
            assert_eq!(vcpus(mib, cores), cpus, "{mib} of {cores}");
        }
    }

    #[tokio::test]
    async fn who_waits_asks_for_room_and_gets_it() {
        let budget = MemoryBudget::new(400);
        let held = [budget.reserve(Guest::Wasm, 100).unwrap(), budget.reserve(Guest::Wasm, 100).unwrap()];
        let short = Duration::from_millis(1);
        let full = budget.reserve_soon(300, short).await.unwrap_err();
        assert_eq!((full.needed_mib, full.free_mib), (300, 136));
        let mut held = held.into_iter();
        let (got, ()) = tokio::join!(budget.reserve_soon(300, Duration::from_mins(1)), async {
            // One reservation a request for room, until it is enough.
            for reservation in held.by_ref() {
                budget.wanted().await;
                drop(reservation);
            }
        });
        let got = got.unwrap();
        assert_eq!(got.mib, 300);
        drop(got);
        budget.returned().await;
        // More than there is: all there is.
        assert_eq!(budget.reserve_soon(1000, short).await.unwrap().mib, 400);
    }

    proptest! {
        #[test]
        fn never_over_the_budget(steps in proptest::collection::vec((0_u32..400, proptest::bool::ANY), 0..60)) {
            let budget = MemoryBudget::new(1000);
            let mut held: Vec<Reservation> = Vec::new();
            for (mib, take) in steps {
                if take {
                    let free = budget.free_mib();
                    match budget.reserve(Guest::Wasm, mib) {
                        Ok(reservation) => held.push(reservation),
                        Err(full) => prop_assert!(full.needed_mib > free && full.free_mib == free),
                    }
                } else if !held.is_empty() {
                    held.swap_remove(mib as usize % held.len());
                }
                let used: u64 = held.iter().map(|reservation| reservation.mib).sum();
                prop_assert!(used <= 1000);
                prop_assert_eq!(budget.free_mib(), 1000 - used);
            }
        }
    }
}
