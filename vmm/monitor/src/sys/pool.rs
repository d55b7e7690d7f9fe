//! Memory of huge pages that the host has set aside (hugetlb): there or not there when it is asked for, never later.
//!
//! The pages are reserved with the mapping, so that touching one cannot fail for want of it; a mapping that the host has no pages
//! for is refused. What the host has is found by trying, for nothing can be opened here.

use super::Reservation;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;

/// A size of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePage {
    /// 2 MiB.
    TwoMib,
    /// 1 GiB.
    OneGib,
}

/// Why there is no such memory: the host's fault, or of who asked for it.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No whole pages.
    #[error("{len} bytes are no multiple of {page}", page = .page.name())]
    Size {
        /// Asked for.
        len: u64,
        /// The page.
        page: HugePage,
    },
    /// The host has not as many.
    #[error("the host has {free} free pages of {page}, and {needed} are needed: {advice}", page = .page.name(), advice = .page.advice())]
    TooFew {
        /// The page.
        page: HugePage,
        /// How many there are.
        free: usize,
        /// How many would have to be.
        needed: usize,
    },
    /// The kernel refuses for another reason.
    #[error("cannot map pages of {page}: {source}", page = .page.name())]
    Map {
        /// The page.
        page: HugePage,
        /// Why.
        source: io::Error,
    },
}

impl HugePage {
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::TwoMib => 2 << 20,
            Self::OneGib => 1 << 30,
        }
    }

    const fn flag(self) -> MapFlags {
        match self {
            Self::TwoMib => MapFlags::HUGE_2MB,
            Self::OneGib => MapFlags::HUGE_1GB,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::TwoMib => "2 MiB",
            Self::OneGib => "1 GiB",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::TwoMib => "write more to /proc/sys/vm/nr_hugepages",
            Self::OneGib => "write more to /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
        }
    }
}

impl Reservation {
    /// Memory of such pages, all of them there.
    pub fn of_pool(len: u64, page: HugePage) -> Result<Self, PoolError> {
        let size = usize::try_from(len).ok().filter(|size| size.is_multiple_of(page.bytes()));
        let size = size.ok_or(PoolError::Size { len, page })?;
        let failed = |source| PoolError::Map { page, source };
        let mut reservation = Self::aligned(size, MapFlags::PRIVATE, page.bytes()).map_err(failed)?;
        reservation.pool = true;
        let target = reservation.part(0, size).map_err(failed)?;
        // SAFETY: 1. the replaced range lies in this reservation (`part`), which nobody has yet.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(
                target.cast(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::HUGETLB | page.flag(),
            )
        };
        match mapped {
            Ok(_) => Ok(reservation),
            Err(rustix::io::Errno::NOMEM) => {
                let needed = size / page.bytes();
                Err(PoolError::TooFew { page, free: free_pages(page, needed), needed })
            }
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// How many pages can be had, if fewer than `needed`.
fn free_pages(page: HugePage, needed: usize) -> usize {
    let (mut free, mut too_many) = (0, needed);
    while too_many - free > 1 {
        let middle = free + (too_many - free) / 2;
        if can_map(page, middle) { free = middle } else { too_many = middle }
    }
    free
}

fn can_map(page: HugePage, count: usize) -> bool {
    let len = count.saturating_mul(page.bytes());
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | page.flag();
    // SAFETY: 1. no fixed address, so no existing mapping is touched.
    let mapped = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags) };
    // SAFETY: 1. exactly what was mapped here; 2. nobody has touched it.
    mapped.is_ok_and(|at| unsafe { rustix::mm::munmap(at, len) }.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_page_is_refused_by_name() {
        for (len, page) in
            [(3 << 20, HugePage::TwoMib), (1 << 20, HugePage::OneGib), ((1 << 30) + 1, HugePage::OneGib)]
        {
            let refused = Reservation::of_pool(len, page);
            assert!(matches!(refused, Err(PoolError::Size { .. })), "{refused:?}");
        }
    }

    /// More than any host has set aside: it says how many there are.
    #[test]
    fn a_host_with_too_few_says_how_many_it_has() {
        let error = Reservation::of_pool(1 << 46, HugePage::TwoMib).unwrap_err().to_string();
        let known = ["free pages of 2 MiB, and 33554432 are needed", "cannot map pages of 2 MiB"];
        assert!(known.iter().any(|text| error.contains(text)), "{error}");
    }
}
