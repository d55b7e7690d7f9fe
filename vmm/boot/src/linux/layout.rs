//! Where things lie in a Linux guest's physical memory.
//!
//! ```text
//! 0x0000_1000  GDT                     ) first MiB: what the kernel is handed; usable afterwards,
//! 0x0000_6000  PVH start info          ) but for the ACPI tables
//! 0x0000_7000  boot_params             )
//! 0x0000_9000  page tables (6 pages)   )
//! 0x0002_0000  command line            )
//! 0x000E_0000  ACPI tables (56 KiB)    ) reclaimable by the kernel
//! 0x000E_E000  generation id, clock    ) a page each, reserved: the host writes them while the guest runs
//! 0x0010_0000  kernel ... initrd at the top of low memory
//! 0xC000_0000  no memory up to 4 GiB: virtio-mmio windows, I/O APIC, local APIC, KVM's own pages
//! 4 GiB        the rest of memory
//! ```

use core::ops::Range;

/// Page of the descriptor table.
pub const GDT: u64 = 0x1000;
/// Page of PVH's start info, module list and memory map.
pub const PVH_INFO: u64 = 0x6000;
/// Page of the boot protocol's `boot_params`.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Page tables: one PML4, one PDPT, four page directories.
pub const TABLES: Range<u64> = 0x9000..0xF000;
/// The command line with its terminator.
pub const COMMAND_LINE: Range<u64> = 0x2_0000..0x2_1000;
/// End of memory that firmware leaves alone below 1 MiB.
pub const BASE_END: u64 = 0x9_FC00;
/// The ACPI tables.
pub const ACPI: Range<u64> = 0xE_0000..0xE_E000;
/// Page of the generation id, which stands at its start.
pub const GENERATION: u64 = 0xE_E000;
/// Page of the clock.
pub const CLOCK: u64 = 0xE_F000;
/// The pages of memory that the host keeps: a guest can give back any but these.
pub const KEPT: Range<u64> = GENERATION..0xF_0000;
/// Where memory for kernels starts.
pub const KERNEL_START: u64 = 0x10_0000;
/// Most bytes of memory below the gap.
pub const LOW_MAX: u64 = 0xC000_0000;
/// First address above the gap.
pub const HIGH_BASE: u64 = 4 << 30;
/// Least and most memory of a guest.
pub const MEMORY: core::ops::RangeInclusive<u64> = 64 << 20..=512 << 30;

/// First window of the virtio-mmio devices.
pub const VIRTIO_BASE: u64 = 0xD000_0000;
/// Bytes from one window to the next.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// Interrupt of the power button. The keyboard controller, whose it is on a PC, raises none.
pub const POWER_GSI: u32 = 1;
/// Interrupt of the generation id.
pub const GENERATION_GSI: u32 = 3;
/// Interrupt of the serial port.
pub const SERIAL_GSI: u32 = 4;
/// First interrupt of the virtio devices.
pub const VIRTIO_GSI: u32 = 5;
/// Most virtio devices: a window, an interrupt line and, if it is a disk, a thread each. Windows and lines are there for many more;
/// with 128 a 6.12 kernel on four vCPUs did not get through its boot on the lab host, and it is not known why (an emulator that
/// delivers interrupts once makes no difference).
pub const VIRTIO_MAX: usize = 48;
/// The I/O APIC's address, as KVM has it.
pub const IO_APIC: u32 = 0xFEC0_0000;
/// The local APICs' address.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;
/// Port of the first serial port.
pub const SERIAL_PORT: u16 = 0x3F8;
/// The keyboard controller's data port.
pub const KEYBOARD_PORT: u16 = 0x60;
/// Its command port.
pub const RESET_PORT: u16 = 0x64;
/// Its command that pulses the reset line.
pub const RESET_COMMAND: u8 = 0xFE;
/// ACPI sleep control register (ACPI 6.5, 4.8.3.7).
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// Type of the soft-off state, as the tables' `_S5` says it.
pub const S5_TYPE: u8 = 5;

const _: () = assert!(VIRTIO_BASE >= LOW_MAX);
const _: () = assert!(VIRTIO_BASE + VIRTIO_MAX as u64 * VIRTIO_STRIDE <= IO_APIC as u64);
// What Linux takes of one I/O APIC.
const _: () = assert!(VIRTIO_GSI as usize + VIRTIO_MAX <= 240);

/// The window of a device by its place.
#[must_use]
pub const fn virtio_window(index: usize) -> u64 {
    VIRTIO_BASE + index as u64 * VIRTIO_STRIDE
}

/// The interrupt of a device by its place.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "places are below VIRTIO_MAX")]
pub const fn virtio_gsi(index: usize) -> u32 {
    VIRTIO_GSI + index as u32
}

/// Memory of a guest, split around the gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Banks {
    /// Bytes from 0.
    pub low: u64,
    /// Bytes from [`HIGH_BASE`].
    pub high: u64,
}

impl Banks {
    /// Splits a size that is a multiple of a page and within [`MEMORY`].
    #[must_use]
    pub fn new(memory_bytes: u64) -> Option<Self> {
        let fits = MEMORY.contains(&memory_bytes) && memory_bytes.is_multiple_of(0x1000);
        let low = memory_bytes.min(LOW_MAX);
        fits.then_some(Self { low, high: memory_bytes - low })
    }

    /// Where memory that is plugged later begins: above all other, aligned to the largest block that Linux adds memory in. No
    /// memory map names it: its driver asks the device.
    #[must_use]
    pub const fn pluggable_base(self) -> u64 {
        (HIGH_BASE + self.high).next_multiple_of(2 << 30)
    }
}

/// What a range of the memory map is (ACPI 6.5, 15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// Memory.
    Usable = 1,
    /// The host's; not to be touched but by its devices' drivers.
    Reserved = 2,
    /// ACPI tables, free once they were read.
    AcpiReclaimable = 3,
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it is.
    pub kind: RangeKind,
}

/// The memory map (e820) of a guest, ascending.
#[must_use]
pub fn memory_map(banks: Banks) -> alloc::vec::Vec<MapEntry> {
    let usable = |start, end: u64| MapEntry { start, len: end - start, kind: RangeKind::Usable };
    let mut map = alloc::vec![
        usable(0, BASE_END),
        MapEntry { start: ACPI.start, len: ACPI.end - ACPI.start, kind: RangeKind::AcpiReclaimable },
        MapEntry { start: KEPT.start, len: KEPT.end - KEPT.start, kind: RangeKind::Reserved },
        usable(KERNEL_START, banks.low),
    ];
    if banks.high > 0 {
        map.push(usable(HIGH_BASE, HIGH_BASE + banks.high));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_outside_are_refused() {
        for bad in [0, 1 << 20, (64 << 20) - 0x1000, (64 << 20) + 1, (512 << 30) + 0x1000] {
            assert_eq!(Banks::new(bad), None, "{bad:#x}");
        }
    }

    proptest! {
        #[test]
        fn the_map_is_ascending_and_complete(pages in (64_u64 << 8)..=(512 << 18)) {
            let bytes = pages * 0x1000;
            let banks = Banks::new(bytes).unwrap();
            let map = memory_map(banks);
            prop_assert!(map.windows(2).all(|pair| pair[0].start + pair[0].len <= pair[1].start));
            prop_assert!(map.iter().all(|entry| entry.len > 0));
            let usable: u64 = map.iter().filter(|e| e.kind == RangeKind::Usable).map(|e| e.len).sum();
            prop_assert_eq!(usable, bytes - (KERNEL_START - BASE_END));
            // Nothing lies where devices are.
            prop_assert!(map.iter().all(|e| e.start + e.len <= LOW_MAX || e.start >= HIGH_BASE));
        }
    }
}
