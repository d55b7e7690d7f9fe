//! What a Linux guest is made of. The monitor started as `warren-vmm linux` takes it; the other one refuses it.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// A Linux guest. Its descriptors come in this order: kernel, initrd if there is one, then those of each device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxSpec {
    /// Bytes of memory, at most what the machine was made with.
    pub memory_bytes: u64,
    /// The kernel's command line.
    pub command_line: String,
    /// What the guest sees of the processor: [`HOST_TEMPLATE`], or a template that other hosts of a family have too.
    pub cpu_template: String,
    /// Whether an initrd comes along.
    pub initrd: bool,
    /// By which of its entries the kernel is started.
    pub entry: BootEntry,
    /// virtio-mmio devices, in the order of their windows.
    pub devices: Vec<DeviceSpec>,
    /// A label for logs: ASCII `[a-z0-9-]`.
    pub label: String,
}

/// A Linux guest that was written down. Its descriptors come in this order: the memory that the snapshot has, sealed against
/// writes and shrinking, then those of each device, as for [`LinuxSpec`]. Disks hold what they held when it was written down, but for
/// those that held nothing: what they hold now their drivers are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxRestore {
    /// What [`crate::ControlReply::Snapshot`] gave.
    pub state: Vec<u8>,
    /// Its devices again, of the same kinds and sizes. A vsock device may have another address; a disk that was empty, any size.
    pub devices: Vec<DeviceSpec>,
    /// Whether its memory is copied into memory of the VM's own, of huge pages where the host has them: for a guest that touches much
    /// of it at once. Otherwise it is mapped, and each page that is touched costs the guest an exit. No copy is put back
    /// ([`crate::ControlRequest::Reset`]), and none is made of what a pager brings.
    pub copied: bool,
    /// A label for logs: ASCII `[a-z0-9-]`.
    pub label: String,
}

/// The template of a guest that stays on its host: all that the host has to give.
pub const HOST_TEMPLATE: &str = "host";

/// An entry of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootEntry {
    /// The 64-bit one, which bzImage and ELF kernels have.
    Long,
    /// PVH, which ELF kernels with the note have.
    Pvh,
}

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceSpec {
    /// A raw disk: one descriptor of a regular file.
    Block {
        /// Writes are refused; the descriptor need not be writable.
        read_only: bool,
    },
    /// The same with limits: of bytes read and written, and of requests.
    LimitedBlock {
        /// As for [`Self::Block`].
        read_only: bool,
        /// Of both directions together.
        limits: Limits,
    },
    /// Entropy: no descriptor.
    Rng,
    /// Streams between host and guest: no descriptor. At most one a guest.
    Vsock {
        /// The guest's address: 3 or more, and not all ones.
        guest_cid: u32,
    },
    /// A network card: one descriptor of a tap device made with `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`, attached and
    /// not shared.
    Net {
        /// The guest's address: of a station, not of a group.
        mac: [u8; 6],
        /// Limits of what the guest receives, a frame an operation.
        receive: Limits,
        /// Limits of what it sends.
        send: Limits,
    },
    /// Memory that the guest lends to its host, and statistics: no descriptor. At most one a guest.
    Balloon {
        /// Whether the guest also gives back what it frees, without being asked.
        reports_free: bool,
    },
    /// A disk over a base: it begins as the base is, and what is written goes to a file of its own. Two descriptors: that file, of the
    /// disk's length, of which nothing is read that was not written first; then the base.
    OverlaidBlock {
        /// Where the base comes from.
        base: Base,
        /// As for [`Self::LimitedBlock`]: what is read of the base counts as what is read of the file.
        limits: Limits,
    },
    /// Memory that is plugged while the guest runs: no descriptor. At most one a guest, of a machine that was made with room
    /// for it.
    Memory {
        /// MiB that are to be plugged from the start.
        plugged_mib: u32,
    },
}

/// What a disk begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// A file as long as the disk that nobody writes: it is read in place, whoever else reads it. The descriptor need not be writable.
    File,
    /// An image that a pager brings page by page: the descriptor is the VMM's end of a socket of its own to that pager, as the memory
    /// has one. With [`crate::ControlRequest::RestoreLinuxPaged`] alone, and for one disk of a guest.
    Pager,
}

/// Memory that is plugged, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// A block: sizes are its multiples.
    pub block_bytes: u64,
    /// The most that there can be.
    pub region_bytes: u64,
    /// What the host wants.
    pub requested_bytes: u64,
    /// What there is.
    pub plugged_bytes: u64,
}

/// What a guest lends, and what it says of its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStatus {
    /// Bytes that it was asked for.
    pub target_bytes: u64,
    /// Bytes that it says it lends: of what it was asked for, not of what it reports as free.
    pub actual_bytes: u64,
    /// Bytes given back to the host since the guest's start, lent or reported as free, the same page as often as it was.
    pub returned_bytes: u64,
    /// How often the guest told statistics. They are the last that it told.
    pub told: u64,
    /// The guest's numbers, which may be anything.
    pub guest: GuestMemory,
}

/// A guest's own numbers of its memory, as far as its kernel tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMemory {
    /// Bytes that its kernel has.
    pub total: Option<u64>,
    /// Bytes that nothing uses.
    pub free: Option<u64>,
    /// Bytes that a new program could have.
    pub available: Option<u64>,
    /// Bytes of files' pages.
    pub caches: Option<u64>,
    /// Bytes swapped in.
    pub swapped_in: Option<u64>,
    /// Bytes swapped out.
    pub swapped_out: Option<u64>,
    /// Faults that waited for a disk.
    pub major_faults: Option<u64>,
    /// Faults that did not.
    pub minor_faults: Option<u64>,
}

/// Limits of one direction of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub bytes: Option<Rate>,
    /// Operations.
    pub operations: Option<Rate>,
}

/// A bucket that is full at first. Neither number is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// What it holds.
    pub burst: u64,
    /// What comes back a second.
    pub per_second: u64,
}

/// VMM to whoever asked for a stream ([`crate::Role::Vsock`], [`crate::Role::VsockAccept`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VsockReply {
    /// The other end is there; what follows are the stream's bytes, both ways.
    Connected,
    /// The port is listened on. `Connected` follows when the guest has connected to it.
    Parked,
    /// There is no stream, and the VMM closes the connection.
    Refused {
        /// Why.
        why: VsockRefusal,
    },
}

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VsockRefusal {
    /// No guest was loaded yet, or it has no vsock device.
    NoDevice,
    /// The guest answered that nobody listens on this port (yet). A stream asked for before the guest's driver is up
    /// waits for the driver, not for the listener.
    NotListening,
    /// As many streams as the VMM allows.
    Full,
    /// Bytes came before the answer.
    TooEarly,
}

impl core::fmt::Display for VsockRefusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoDevice => "there is no guest with a vsock device",
            Self::NotListening => "nobody listens on this port of the guest",
            Self::Full => "too many streams",
            Self::TooEarly => "bytes came before the answer",
        })
    }
}

impl DeviceSpec {
    /// Whether it is a disk, of any kind.
    #[must_use]
    pub const fn is_disk(&self) -> bool {
        matches!(self, Self::Block { .. } | Self::LimitedBlock { .. } | Self::OverlaidBlock { .. })
    }

    /// How many descriptors come with it.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::OverlaidBlock { .. } => 2,
            Self::Block { .. } | Self::LimitedBlock { .. } | Self::Net { .. } => 1,
            Self::Rng | Self::Vsock { .. } | Self::Balloon { .. } | Self::Memory { .. } => 0,
        }
    }
}

impl LinuxSpec {
    /// How many descriptors come along.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        1 + usize::from(self.initrd) + self.devices.iter().map(DeviceSpec::descriptors).sum::<usize>()
    }
}
