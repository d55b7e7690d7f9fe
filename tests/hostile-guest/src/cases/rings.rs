//! Rings out of specification (virtio 1.2, 2.7), tried with every device: a disk's thread, the worker and the network thread each walk them.

use crate::driver::{
    AGREED, AVAILABLE, BUFFERS, COMMON, Device, INDIRECT, LIVE, MEMORY, NEXT, Ring, SIZE, TABLE, USED, WRITE,
    register,
};
use crate::script::{Op, Script};
use warren_boot::linux::layout::{IO_APIC, LOCAL_APIC, VIRTIO_BASE};
use warren_devices::virtio::F_INDIRECT_DESC;

/// Name, what the guest says, what is done.
pub type Row = (&'static str, &'static [&'static str], fn(Device, &mut Script));

const BROKEN: &[&str] = &["needs-reset"];
const WORKS: &[&str] = &["used"];
const SILENT: &[&str] = &[];

/// The table.
pub const ROWS: &[Row] = &[
    ("a buffer behind memory", BROKEN, |on, s| one(on, s, [MEMORY, 64], 0, 0)),
    ("a buffer over the end of memory", BROKEN, |on, s| one(on, s, [MEMORY - 8, 64], 0, 0)),
    ("a buffer that wraps", BROKEN, |on, s| one(on, s, [u64::MAX - 8, 64], 0, 0)),
    ("a buffer at the last address", BROKEN, |on, s| one(on, s, [u64::MAX, 1], WRITE, 0)),
    ("a buffer of 4 GiB less one", BROKEN, |on, s| one(on, s, [0, 0xFFFF_FFFF], WRITE, 0)),
    ("a buffer that is a device's window", BROKEN, |on, s| one(on, s, [VIRTIO_BASE, 64], WRITE, 0)),
    ("a buffer that is the interrupt controller", BROKEN, |on, s| one(on, s, [IO_APIC.into(), 64], WRITE, 0)),
    ("a buffer that is the processor's own controller", BROKEN, |on, s| {
        one(on, s, [LOCAL_APIC.into(), 64], 0, 0);
    }),
    ("a next one beyond the table", BROKEN, |on, s| one(on, s, [BUFFERS, 64], NEXT, SIZE)),
    ("a next one far beyond the table", BROKEN, |on, s| one(on, s, [BUFFERS, 64], NEXT, u16::MAX)),
    ("a descriptor that is its own next", BROKEN, |on, s| one(on, s, [BUFFERS, 64], NEXT, 0)),
    ("two descriptors in a circle", BROKEN, |on, s| {
        on.begin(s);
        let ring = on.ring(on.asks());
        ring.describes(s, 0, [BUFFERS, 64], NEXT, 1).describes(s, 1, [BUFFERS, 64], NEXT, 0);
        asked(ring, s);
    }),
    ("what is read behind what is written", BROKEN, |on, s| {
        on.begin(s);
        let ring = on.ring(on.asks());
        ring.describes(s, 0, [BUFFERS, 64], NEXT | WRITE, 1).describes(s, 1, [BUFFERS, 64], 0, 0);
        asked(ring, s);
    }),
    ("a head beyond the table", BROKEN, |on, s| {
        on.begin(s);
        on.ring(on.asks()).give(s, &[SIZE]).used_or_broken(s, 1);
    }),
    ("a head far beyond the table", BROKEN, |on, s| {
        on.begin(s);
        on.ring(on.asks()).give(s, &[u16::MAX]).used_or_broken(s, 1);
    }),
    ("an index that jumps by one too many", BROKEN, |on, s| jump(on, s, u64::from(SIZE) + 1)),
    ("an index that jumps half way round", BROKEN, |on, s| jump(on, s, 0x8000)),
    ("an index that goes back", BROKEN, |on, s| jump(on, s, 0xFFFF)),
    ("a table in a table", BROKEN, |on, s| {
        on.begin(s);
        let ring = on.ring(on.asks());
        ring.describes(s, 0, [ring.base + TABLE, 32], INDIRECT, 0);
        ring.describes_in_table(s, 0, [ring.base + TABLE, 32], INDIRECT, 0);
        asked(ring, s);
    }),
    ("a table of no whole descriptors", BROKEN, |on, s| one_table(on, s, 24, INDIRECT)),
    ("a table of no descriptor", BROKEN, |on, s| one_table(on, s, 0, INDIRECT)),
    ("a table of 4 GiB", BROKEN, |on, s| one_table(on, s, 0xFFFF_FFF0, INDIRECT)),
    ("a table behind memory", BROKEN, |on, s| one(on, s, [MEMORY, 32], INDIRECT, 0)),
    ("a table that wraps", BROKEN, |on, s| one(on, s, [u64::MAX - 15, 32], INDIRECT, 0)),
    ("a table whose next one is beyond it", BROKEN, |on, s| {
        on.begin(s);
        let ring = on.ring(on.asks());
        ring.describes(s, 0, [ring.base + TABLE, 32], INDIRECT, 0);
        ring.describes_in_table(s, 0, [BUFFERS, 64], NEXT, 2);
        asked(ring, s);
    }),
    ("a chain longer than its queue", BROKEN, |on, s| {
        on.begin(s);
        let ring = on.ring(on.asks());
        ring.describes(s, 0, [ring.base + TABLE, 16 * 64], INDIRECT, 0);
        circle(s, ring.base + TABLE, 64, [BUFFERS, 16], 0);
        asked(ring, s);
    }),
    ("a chain of 4 GiB", BROKEN, |on, s| {
        on.begin_with(s, F_INDIRECT_DESC, 64);
        let ring = on.ring(on.asks());
        ring.describes(s, 0, [ring.base + TABLE, 16 * 64], INDIRECT, 0);
        circle(s, ring.base + TABLE, 64, [0, MEMORY], 0);
        asked(ring, s);
    }),
    ("descriptors behind memory", BROKEN, |on, s| {
        placed(on, s, |ring| [MEMORY, ring.base + AVAILABLE, ring.base + USED]);
    }),
    ("descriptors over the end of memory", BROKEN, |on, s| {
        placed(on, s, |ring| [MEMORY - 16, ring.base + AVAILABLE, ring.base + USED]);
    }),
    ("an available ring behind memory", BROKEN, |on, s| {
        placed(on, s, |ring| [ring.base, MEMORY, ring.base + USED]);
    }),
    ("a used ring behind memory", BROKEN, |on, s| {
        placed(on, s, |ring| [ring.base, ring.base + AVAILABLE, MEMORY]);
    }),
    ("a used ring that is a device's window", BROKEN, |on, s| {
        placed(on, s, |ring| [ring.base, ring.base + AVAILABLE, VIRTIO_BASE]);
    }),
    ("rings above 4 GiB", BROKEN, |on, s| placed(on, s, |_| [1 << 40, 1 << 41, 1 << 42])),
    ("rings that wrap are none", SILENT, |on, s| {
        refused(on, s, SIZE, |_| [u64::MAX - 15, u64::MAX - 1, u64::MAX - 3]);
    }),
    ("rings that are not aligned are none", SILENT, |on, s| {
        refused(on, s, SIZE, |ring| [ring.base + 8, ring.base + AVAILABLE + 1, ring.base + USED + 2]);
    }),
    ("a queue of no power of two is none", SILENT, |on, s| refused(on, s, 7, Ring::parts)),
    ("a queue of none is none", SILENT, |on, s| refused(on, s, 0, Ring::parts)),
    ("a queue larger than the largest is none", SILENT, |on, s| refused(on, s, 1024, Ring::parts)),
    ("all rings in one place", SILENT, |on, s| {
        on.agree(s, F_INDIRECT_DESC);
        let ring = on.ring(on.asks());
        ring.describe_at(s, SIZE, [ring.base; 3]);
        s.write32(on.window() + register::STATUS, LIVE);
        ring.describes(s, 0, [BUFFERS, 64], 0, 0).bell(s);
        s.many(Op::Write, 2, 1000, [ring.base + 2, 0, 0], [0, 1]);
        ring.bell(s);
    }),
    ("queue registers written after the start (CVE-2026-5747)", WORKS, |on, s| {
        on.begin(s);
        let ring = on.ring(on.asks());
        for (register, value) in [
            (register::QUEUE_SEL, ring.number),
            (register::QUEUE_READY, 0),
            (register::QUEUE_NUM, 0x8000),
            (register::QUEUE_DESC, 0xFFFF_F000),
            (register::QUEUE_DESC + 4, 0xFFFF_FFFF),
            (register::QUEUE_DRIVER, 0xFFFF_F000),
            (register::QUEUE_DEVICE, 0xFFFF_F000),
            (register::QUEUE_READY, 1),
        ] {
            s.write32(on.window() + register, value);
        }
        honest(on, s);
    }),
    ("a queue made unready after the start", WORKS, |on, s| {
        on.begin(s);
        s.write32(on.window() + register::QUEUE_SEL, on.asks())
            .write32(on.window() + register::QUEUE_READY, 0);
        honest(on, s);
    }),
    ("features said after the start", WORKS, |on, s| {
        on.begin(s);
        s.write32(on.window() + register::DRIVER_FEATURES, 0xFFFF_FFFF);
        honest(on, s);
    }),
    ("a reset with requests in flight (CVE-2026-45782)", SILENT, |on, s| {
        s.again(50, |s| {
            on.begin(s);
            lay(on, s);
            on.ring(on.asks()).give(s, &[0; SIZE as usize]);
            s.write32(on.window() + register::STATUS, 0);
        });
    }),
    ("buffers that are the rings", SILENT, |on, s| {
        on.begin(s);
        let ring = on.ring(on.asks());
        ring.describes(s, 0, [ring.base + USED, 64], WRITE, 0).describes(s, 1, [ring.base, 64], WRITE, 0);
        ring.give(s, &[0, 1, 0, 1]);
        s.many(Op::Read, 4, 200, [on.window() + register::STATUS, 0, 0], [0; 2]);
    }),
    ("descriptors that change while they are walked", SILENT, |on, s| {
        on.begin(s);
        lay(on, s);
        let ring = on.ring(on.asks());
        s.again(40, |s| {
            ring.index(s, 4);
            s.many(Op::Toggle, 4, 200, [ring.base, 0xFFFF_FFF0, BUFFERS], [0; 2]);
            s.many(Op::Toggle, 4, 200, [ring.base + 12, 0xFFFF_FFFF, 0], [0; 2]);
        });
    }),
    ("an index that changes while it is read", SILENT, |on, s| {
        on.begin(s);
        lay(on, s);
        let ring = on.ring(on.asks());
        s.again(40, |s| {
            ring.bell(s);
            s.many(Op::Toggle, 4, 200, [ring.base + AVAILABLE, 0xFFFF_0001, 0x0001_0000], [0; 2]);
        });
    }),
    ("flags and events that are nonsense", WORKS, |on, s| {
        on.begin_with(s, COMMON, SIZE);
        let ring = on.ring(on.asks());
        s.write(2, ring.base + AVAILABLE, 0xFFFF).write(2, ring.base + AVAILABLE + 4 + 16, 0x8000);
        s.write(4, ring.base + USED, 0xFFFF_0000 | 0xFFFF);
        s.write(2, ring.base + USED + 2, 0);
        honest(on, s);
    }),
    ("a used ring that the driver writes to", SILENT, |on, s| {
        on.begin(s);
        lay(on, s);
        let ring = on.ring(on.asks());
        ring.give(s, &[0]);
        s.fill(ring.base + USED, 128, !0);
        ring.bell(s);
    }),
];

impl Ring {
    fn parts(self) -> [u64; 3] {
        [self.base, self.base + AVAILABLE, self.base + USED]
    }
}

/// One descriptor of the queue that takes requests.
fn one(on: Device, s: &mut Script, buffer: [u64; 2], flags: u16, next: u16) {
    on.begin(s);
    let ring = on.ring(on.asks());
    ring.describes(s, 0, buffer, flags, next);
    asked(ring, s);
}

/// A table of descriptors, itself of this length.
fn one_table(on: Device, s: &mut Script, len: u64, flags: u16) {
    on.begin(s);
    let ring = on.ring(on.asks());
    ring.describes_in_table(s, 0, [BUFFERS, 64], 0, 0);
    ring.describes(s, 0, [ring.base + TABLE, len], flags, 0);
    asked(ring, s);
}

/// A table whose descriptors lead from one to the next, `count` of them.
fn circle(s: &mut Script, table: u64, count: u16, [gpa, len]: [u64; 2], flags: u16) {
    for at in 0..count {
        let flags = if at + 1 < count { flags | NEXT } else { flags };
        let place = table + 16 * u64::from(at);
        s.write(8, place, gpa);
        s.write(8, place + 8, len | u64::from(flags) << 32 | u64::from(at + 1) << 48);
    }
}

/// The first descriptor is made available; what comes of it is said.
fn asked(ring: Ring, s: &mut Script) {
    ring.give(s, &[0]).used_or_broken(s, 1);
}

fn jump(on: Device, s: &mut Script, index: u64) {
    on.begin(s);
    lay(on, s);
    on.ring(on.asks()).index(s, index).used_or_broken(s, 0x5555);
}

/// The queue that takes requests lies where `place` says; the device is started.
fn placed(on: Device, s: &mut Script, place: fn(Ring) -> [u64; 3]) {
    on.agree(s, F_INDIRECT_DESC);
    let ring = on.ring(on.asks());
    ring.describe_at(s, SIZE, place(ring));
    s.write32(on.window() + register::STATUS, LIVE);
    ring.bell(s).used_or_broken(s, 1);
}

/// The same for one that cannot be made ready.
fn refused(on: Device, s: &mut Script, size: u16, place: fn(Ring) -> [u64; 3]) {
    on.agree(s, F_INDIRECT_DESC);
    let ring = on.ring(on.asks());
    ring.describe_at(s, size, place(ring));
    s.check(4, on.window() + register::QUEUE_READY, 0).check(4, on.window() + register::STATUS, AGREED);
    s.write32(on.window() + register::STATUS, LIVE);
    lay(on, s);
    ring.give(s, &[0]);
    s.check(2, ring.base + USED + 2, 0);
}

/// A request that is in order lies in the first descriptors.
fn lay(on: Device, s: &mut Script) {
    on.lay(s);
}

/// Such a request is asked and answered.
fn honest(on: Device, s: &mut Script) {
    lay(on, s);
    on.ring(on.asks()).give(s, &[0]).used_or_broken(s, 1);
}
