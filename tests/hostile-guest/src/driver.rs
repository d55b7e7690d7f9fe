//! Drivers as steps: each device brought up by the book and asked something that it must answer.
//!
//! Every queue has its rings at a place of its own and is used from its start: who wants a second round resets the device first.

use crate::script::{Op, Script};
use warren_boot::linux::layout::virtio_window;
use warren_devices::virtio::transport::QUEUE_NOTIFY;
use warren_devices::virtio::vsock::{Header, packet};
use warren_devices::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};

/// Registers (virtio 1.2, table 4.1).
pub mod register {
    /// Which half of the features is read.
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// The driver's features.
    pub const DRIVER_FEATURES: u64 = 0x020;
    /// Which half of them is written.
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// Which queue is described.
    pub const QUEUE_SEL: u64 = 0x030;
    /// Its largest size.
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    /// Its size.
    pub const QUEUE_NUM: u64 = 0x038;
    /// Whether it may be used.
    pub const QUEUE_READY: u64 = 0x044;
    /// Why there was an interrupt.
    pub const INTERRUPT_STATUS: u64 = 0x060;
    /// That it was seen.
    pub const INTERRUPT_ACK: u64 = 0x064;
    /// The device's status.
    pub const STATUS: u64 = 0x070;
    /// Its descriptors, the lower half.
    pub const QUEUE_DESC: u64 = 0x080;
    /// The available ring.
    pub const QUEUE_DRIVER: u64 = 0x090;
    /// The used ring.
    pub const QUEUE_DEVICE: u64 = 0x0A0;
}

use register::{
    DRIVER_FEATURES, DRIVER_FEATURES_SEL, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NUM, QUEUE_READY,
    QUEUE_SEL, STATUS,
};

/// Entries of every queue here, unless a case says otherwise.
pub const SIZE: u16 = 8;
/// Status of a device whose features are agreed, and of one that works.
pub const AGREED: u64 = 11;
/// See [`AGREED`].
pub const LIVE: u64 = 15;
/// Buffers begin here.
pub const BUFFERS: u64 = 0x80_0000;
/// The first word of the disks' first sector.
pub const PATTERN: u64 = 0x6B73_6964_6E65_7261;
/// Bytes of guest memory of every machine here.
pub const MEMORY: u64 = 64 << 20;

/// A descriptor is followed by another.
pub const NEXT: u16 = 1;
/// The device writes to it.
pub const WRITE: u16 = 2;
/// It is a table of others.
pub const INDIRECT: u16 = 4;

/// A device of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A disk that may be written.
    Disk,
    /// One that may not.
    ReadOnly,
    /// Entropy.
    Rng,
    /// Streams.
    Vsock,
    /// A card.
    Net,
    /// Memory lent.
    Balloon,
    /// Memory plugged.
    Mem,
}

/// What a machine has, in the order of its windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// What a machine in a jail has.
    Jailed,
    /// Every other device, in a VMM that nobody but itself sealed.
    Sealed,
}

impl Machine {
    /// Its devices.
    #[must_use]
    pub const fn devices(self) -> &'static [Device] {
        match self {
            Self::Jailed => &[Device::Disk, Device::ReadOnly, Device::Rng, Device::Vsock],
            Self::Sealed => &[Device::Net, Device::Balloon, Device::Mem],
        }
    }
}

/// A queue of a device, laid in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// The device's window.
    pub window: u64,
    /// Its number there.
    pub number: u64,
    /// Where it lies.
    pub base: u64,
}

impl Device {
    /// The machine that has it.
    #[must_use]
    pub fn machine(self) -> Machine {
        if Machine::Jailed.devices().contains(&self) { Machine::Jailed } else { Machine::Sealed }
    }

    /// Where its registers are.
    #[must_use]
    pub fn window(self) -> u64 {
        virtio_window(self.place())
    }

    /// A queue of it.
    #[must_use]
    pub fn ring(self, number: u64) -> Ring {
        let base = 0x40_0000 + self.place() as u64 * 0x8_0000 + number * 0x1_0000;
        Ring { window: self.window(), number, base }
    }

    /// Queues that its driver uses.
    #[must_use]
    pub const fn queues(self) -> u64 {
        match self {
            Self::Disk | Self::ReadOnly | Self::Rng | Self::Mem => 1,
            Self::Net => 2,
            Self::Vsock | Self::Balloon => 3,
        }
    }

    /// The queue that a request is made in.
    #[must_use]
    pub const fn asks(self) -> u64 {
        match self {
            Self::Vsock | Self::Net => 1,
            _ => 0,
        }
    }

    /// A buffer of its driver's.
    #[must_use]
    pub fn buffer(self, at: u64) -> u64 {
        BUFFERS + self.place() as u64 * 0x10_0000 + at
    }

    fn place(self) -> usize {
        self.machine().devices().iter().position(|device| *device == self).unwrap_or_default()
    }

    /// Brings it up: reset, features, queues, live.
    pub fn begin(self, script: &mut Script) {
        self.begin_with(script, F_INDIRECT_DESC, SIZE);
    }

    /// The same with these features and so many entries a queue.
    pub fn begin_with(self, script: &mut Script, features: u64, size: u16) {
        self.agree(script, features);
        for number in 0..self.queues() {
            self.ring(number).describe(script, size);
        }
        script.write32(self.window() + STATUS, LIVE);
    }

    /// Resets it and agrees on features.
    pub fn agree(self, script: &mut Script, features: u64) {
        let window = self.window();
        for status in [0, 1, 3] {
            script.write32(window + STATUS, status);
        }
        let features = features | F_VERSION_1;
        for (half, value) in [(0, features & 0xFFFF_FFFF), (1, features >> 32)] {
            script.write32(window + DRIVER_FEATURES_SEL, half).write32(window + DRIVER_FEATURES, value);
        }
        script.write32(window + STATUS, AGREED);
    }

    /// Lays a request that is in order into the first descriptors of the queue that takes it.
    pub fn lay(self, script: &mut Script) {
        let ask = self.ring(self.asks());
        let (request, answer) = (self.buffer(0), self.buffer(0x1000));
        match self {
            Self::Disk | Self::ReadOnly => {
                disk_request(
                    script,
                    self,
                    DiskRequest { kind: 0, sector: 0, len: 512, ..DiskRequest::default() },
                );
            }
            Self::Rng => {
                ask.describes(script, 0, [answer, 64], WRITE, 0);
            }
            Self::Vsock => {
                let header = Header { src_port: 77, op: packet::OP_REQUEST, ..stream() };
                script.bytes(request, &header.bytes());
                ask.describes(script, 0, [request, packet::HEADER_LEN.into()], 0, 0);
            }
            Self::Net => {
                script.fill(request, 128, 0);
                ask.describes(script, 0, [request, 12 + 60], 0, 0);
            }
            Self::Balloon => {
                // A page that nothing here uses.
                script.write32(request, (MEMORY >> 12) - 16);
                ask.describes(script, 0, [request, 4], 0, 0);
            }
            Self::Mem => {
                // Unplug everything: there is nothing, and that is so.
                script.fill(request, 24, 0).write(2, request, 2).fill(answer, 16, !0);
                ask.describes(script, 0, [request, 24], NEXT, 1).describes(script, 1, [answer, 10], WRITE, 0);
            }
        }
    }

    /// Brings it up, asks it something by the book, and insists on the answer.
    pub fn answers(self, script: &mut Script) {
        self.begin(script);
        let ask = self.ring(self.asks());
        let answer = self.buffer(0x1000);
        if self == Self::Vsock {
            self.ring(0).describes(script, 0, [answer, 256], WRITE, 0).give(script, &[0]);
        }
        self.lay(script);
        ask.give(script, &[0]).used(script, 1);
        match self {
            Self::Disk | Self::ReadOnly => {
                script.check(1, answer + 512, 0).check(8, answer, PATTERN);
            }
            Self::Rng => {
                script.check(4, ask.base + USED + 8, 64);
            }
            Self::Vsock => {
                // Nobody listens there.
                self.ring(0).used(script, 1);
                script.check(2, answer + 30, packet::OP_RST.into()).check(4, answer + 20, 77);
            }
            Self::Mem => {
                script.check(2, answer, 0);
            }
            Self::Net | Self::Balloon => {}
        }
    }
}

/// Where a ring's parts are behind its base: the available ring, the used ring, and a table for indirect descriptors.
pub const AVAILABLE: u64 = 0x4000;
/// See [`AVAILABLE`].
pub const USED: u64 = 0x8000;
/// See [`AVAILABLE`].
pub const TABLE: u64 = 0xC000;

#[expect(clippy::return_self_not_must_use, reason = "each is called for what it adds to the script")]
impl Ring {
    /// Empties it, tells the device where it is, and makes it ready.
    pub fn describe(self, script: &mut Script, size: u16) {
        self.describe_at(script, size, [self.base, self.base + AVAILABLE, self.base + USED]);
    }

    /// The same, its descriptors, available and used ring said to be here.
    pub fn describe_at(self, script: &mut Script, size: u16, at: [u64; 3]) {
        for part in [0, AVAILABLE, USED] {
            script.fill(self.base + part, 16 * u32::from(SIZE) + 16, 0);
        }
        let window = self.window;
        script.write32(window + QUEUE_SEL, self.number).write32(window + QUEUE_NUM, size.into());
        for (register, address) in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(at) {
            script
                .write32(window + register, address & 0xFFFF_FFFF)
                .write32(window + register + 4, address >> 32);
        }
        script.write32(window + QUEUE_READY, 1);
    }

    /// A descriptor: address and length, flags, the next one.
    pub fn describes(
        self,
        script: &mut Script,
        at: u64,
        [gpa, len]: [u64; 2],
        flags: u16,
        next: u16,
    ) -> Self {
        descriptor(script, self.base + 16 * at, [gpa, len], flags, next);
        self
    }

    /// One of its table for indirect descriptors.
    pub fn describes_in_table(
        self,
        script: &mut Script,
        at: u64,
        [gpa, len]: [u64; 2],
        flags: u16,
        next: u16,
    ) -> Self {
        descriptor(script, self.base + TABLE + 16 * at, [gpa, len], flags, next);
        self
    }

    /// Makes these heads available, as the first, and rings.
    pub fn give(self, script: &mut Script, heads: &[u16]) -> Self {
        for (head, at) in heads.iter().zip(0_u64..) {
            script.write(2, self.base + AVAILABLE + 4 + 2 * (at % u64::from(SIZE)), (*head).into());
        }
        self.index(script, heads.len() as u64)
    }

    /// Says that so many were made available, and rings.
    pub fn index(self, script: &mut Script, index: u64) -> Self {
        script.write(2, self.base + AVAILABLE + 2, index);
        self.bell(script)
    }

    /// Rings.
    pub fn bell(self, script: &mut Script) -> Self {
        script.write32(self.window + QUEUE_NOTIFY, self.number);
        self
    }

    /// Waits until so many were given back.
    pub fn used(self, script: &mut Script, count: u64) -> Self {
        script.step(Op::Wait, 2, [self.base + USED + 2, count, 0]);
        self
    }

    /// Waits for that or until the device needs a reset, and says which.
    pub fn used_or_broken(self, script: &mut Script, count: u64) -> Self {
        script.step(Op::WaitDevice, 2, [self.base + USED + 2, count, self.window]);
        self
    }
}

fn descriptor(script: &mut Script, at: u64, [gpa, len]: [u64; 2], flags: u16, next: u16) {
    script.write(8, at, gpa);
    script.write(8, at + 8, len & 0xFFFF_FFFF | u64::from(flags) << 32 | u64::from(next) << 48);
}

/// A disk's request. Its header is the device's buffer, its data and status the one behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskRequest {
    /// `VIRTIO_BLK_T_...`.
    pub kind: u32,
    /// Where.
    pub sector: u64,
    /// Bytes of data, which the device writes unless `gives`.
    pub len: u64,
    /// The driver gives the data.
    pub gives: bool,
}

/// Lays a disk's request into its first three descriptors.
pub fn disk_request(script: &mut Script, disk: Device, request: DiskRequest) {
    let (header, data) = (disk.buffer(0), disk.buffer(0x1000));
    let status = data + request.len.min(0x1_0000);
    script.write(8, header, request.kind.into()).write(8, header + 8, request.sector);
    script.write(1, status, 0xEE);
    let ring = disk.ring(0);
    ring.describes(script, 0, [header, 16], NEXT, 1);
    let flags = if request.gives { NEXT } else { NEXT | WRITE };
    ring.describes(script, 1, [data, request.len], flags, 2).describes(script, 2, [status, 1], WRITE, 0);
}

/// A header of the guest's own to the host.
#[must_use]
pub fn stream() -> Header {
    Header {
        src_cid: GUEST_CID,
        dst_cid: 2,
        dst_port: 99,
        kind: packet::TYPE_STREAM,
        buf_alloc: 65_536,
        ..Header::default()
    }
}

/// The guest's address of streams.
pub const GUEST_CID: u64 = 42;
/// Features that are offered by every device.
pub const COMMON: u64 = F_INDIRECT_DESC | F_EVENT_IDX;
