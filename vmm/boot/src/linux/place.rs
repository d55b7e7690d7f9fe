//! Where a kernel and its initrd go in a guest's memory.

use super::image::KernelImage;
use super::layout::{Banks, LOW_MAX, MEMORY};

/// Initrds start at pages.
const PAGE: u64 = 0x1000;
/// Where kernels without a header want initrds to end: what 32-bit fields and early page tables reach.
const INITRD_ADDR_MAX: u64 = 0x7FFF_FFFF;

/// A kernel and an initrd in a guest's memory: holding one proves that both lie in low memory and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The guest's memory.
    pub banks: Banks,
    /// The initrd, if there is one.
    pub initrd: Option<Initrd>,
}

/// Where an initrd lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initrd {
    /// Guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
}

/// Why they do not fit: the caller's numbers or files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A memory size that is not offered.
    #[error("{0} bytes of memory: a multiple of 4096 from {least} MiB to {most} MiB is needed", least = MEMORY.start() >> 20, most = MEMORY.end() >> 20)]
    Memory(u64),
    /// The kernel does not fit.
    #[error("the kernel needs memory up to {needs} MiB, the guest has {has} MiB below the gap", needs = .end.div_ceil(1 << 20), has = .low >> 20)]
    Kernel {
        /// First byte after what it needs.
        end: u64,
        /// Bytes of low memory.
        low: u64,
    },
    /// The initrd does not fit between the kernel and the end.
    #[error("an initrd of {len} bytes does not fit: between kernel and end of memory there are {room}")]
    Initrd {
        /// How large it is.
        len: u64,
        /// How much there is.
        room: u64,
    },
}

impl Placement {
    /// Places a kernel, and an initrd unless `initrd_len` is 0, at the top of the memory it may use.
    pub fn new(kernel: &KernelImage, initrd_len: u64, memory_bytes: u64) -> Result<Self, PlacementError> {
        let banks = Banks::new(memory_bytes).ok_or(PlacementError::Memory(memory_bytes))?;
        if kernel.end > banks.low {
            return Err(PlacementError::Kernel { end: kernel.end, low: banks.low });
        }
        if initrd_len == 0 {
            return Ok(Self { banks, initrd: None });
        }
        let addr_max = kernel.header.map_or(INITRD_ADDR_MAX, |header| header.initrd_addr_max);
        let top = banks.low.min(LOW_MAX).min(addr_max.saturating_add(1)) / PAGE * PAGE;
        let floor = kernel.end.next_multiple_of(PAGE);
        let room = top.saturating_sub(floor);
        let gpa = initrd_len
            .checked_next_multiple_of(PAGE)
            .filter(|len| *len <= room)
            .map(|len| top - len)
            .ok_or(PlacementError::Initrd { len: initrd_len, room })?;
        Ok(Self { banks, initrd: Some(Initrd { gpa, len: initrd_len }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::image::{Entry, Segment};
    use proptest::prelude::*;

    fn kernel(end: u64) -> KernelImage {
        let segments = alloc::vec![Segment { gpa: 16 << 20, offset: 0, len: 100 }];
        KernelImage { segments, end, entry: Entry::Long(16 << 20), header: None }
    }

    #[test]
    fn table() {
        let mib = |n: u64| n << 20;
        let refused = |end, len, memory| Placement::new(&kernel(end), len, memory).unwrap_err();
        assert_eq!(refused(mib(70), 0, 1), PlacementError::Memory(1));
        assert_eq!(refused(mib(70), 0, mib(64)), PlacementError::Kernel { end: mib(70), low: mib(64) });
        let room = mib(58);
        assert_eq!(refused(mib(70), room + 1, mib(128)), PlacementError::Initrd { len: room + 1, room });
        assert_eq!(refused(mib(70), u64::MAX, mib(128)), PlacementError::Initrd { len: u64::MAX, room });
        let placed = Placement::new(&kernel(mib(70)), room, mib(128)).unwrap();
        assert_eq!(placed.initrd, Some(Initrd { gpa: mib(70), len: room }));
        let large = Placement::new(&kernel(mib(70)), 4096, mib(6144)).unwrap();
        assert_eq!(
            large.initrd,
            Some(Initrd { gpa: 0x7FFF_F000, len: 4096 }),
            "below what early kernels reach"
        );
    }

    proptest! {
        #[test]
        fn an_initrd_lies_between_kernel_and_end(end in 17_u64 << 20..4 << 30, len in 1_u64..5 << 30, pages in 16_384_u64..1 << 20) {
            let memory = pages * PAGE;
            if let Ok(placed) = Placement::new(&kernel(end), len, memory) {
                let initrd = placed.initrd.unwrap();
                prop_assert!(initrd.gpa >= end && initrd.gpa % PAGE == 0 && initrd.len == len);
                prop_assert!(initrd.gpa + len <= placed.banks.low && initrd.gpa + len <= INITRD_ADDR_MAX + 1);
            }
        }
    }
}
