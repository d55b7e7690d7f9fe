//! Registers out of specification (virtio 1.2, 4.2.2), tried with every device.

use super::rings::Row;
use crate::driver::{AGREED, Device, LIVE, register};
use crate::script::{Op, Script};
use warren_devices::virtio::transport::{CONFIG, QUEUE_NOTIFY};

/// Bytes of a window.
const WINDOW: u32 = 0x1000;

/// The table.
pub const ROWS: &[Row] = &[
    ("every register read, one byte", &[], |on, s| sweep(on, s, Op::Read, 1, 0)),
    ("every register read, two bytes", &[], |on, s| sweep(on, s, Op::Read, 2, 0)),
    ("every register read, four bytes at every address", &[], |on, s| sweep(on, s, Op::Read, 4, 0)),
    ("every register read, eight bytes at every address", &[], |on, s| sweep(on, s, Op::Read, 8, 0)),
    ("ones written to every register, one byte", &[], |on, s| sweep(on, s, Op::Write, 1, !0)),
    ("ones written to every register, two bytes", &[], |on, s| sweep(on, s, Op::Write, 2, !0)),
    ("ones written to every register, four bytes at every address", &[], |on, s| {
        sweep(on, s, Op::Write, 4, !0);
    }),
    ("ones written to every register, eight bytes at every address", &[], |on, s| {
        sweep(on, s, Op::Write, 8, !0);
    }),
    ("every register written while it works", &[], |on, s| {
        on.begin(s);
        s.many(Op::Write, 4, WINDOW / 4, [on.window() + 4, 0x5A5A_5A5A, 0], [4, 0x0101_0101]);
    }),
    ("accesses over the edge of a window", &[], |on, s| {
        for at in 1..8 {
            s.read(8, on.window() + u64::from(WINDOW) - at).write(
                8,
                on.window() + u64::from(WINDOW) - at,
                !0,
            );
        }
    }),
    ("queues that there are not", &[], |on, s| {
        on.agree(s, 0);
        for number in [8, 255, 256, 0xFFFF, 0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] {
            s.write32(on.window() + register::QUEUE_SEL, number);
            s.check(4, on.window() + register::QUEUE_NUM_MAX, 0).check(
                4,
                on.window() + register::QUEUE_READY,
                0,
            );
            s.write32(on.window() + register::QUEUE_NUM, 8).write32(on.window() + register::QUEUE_READY, 1);
            s.check(4, on.window() + register::QUEUE_READY, 0);
        }
    }),
    ("bells of queues that there are not", &[], |on, s| {
        on.begin(s);
        s.many(Op::Write, 4, 2000, [on.window() + QUEUE_NOTIFY, 0, 0], [0, 1]);
        s.many(Op::Write, 4, 32, [on.window() + QUEUE_NOTIFY, 1, 0], [0, 0x0F0F_0F0F]);
    }),
    ("a bell of one, two and eight bytes", &[], |on, s| {
        on.begin(s);
        for size in [1, 2, 8] {
            s.many(Op::Write, size, 100, [on.window() + QUEUE_NOTIFY, 0, 0], [0, 1]);
        }
    }),
    ("bells without a request", &[], |on, s| {
        on.begin(s);
        s.many(Op::Write, 4, 5000, [on.window() + QUEUE_NOTIFY, 0, 0], [0; 2]);
    }),
    ("bells before the start", &[], |on, s| {
        s.write32(on.window() + register::STATUS, 0);
        s.many(Op::Write, 4, 100, [on.window() + QUEUE_NOTIFY, 0, 0], [0; 2]);
        on.agree(s, 0);
        s.many(Op::Write, 4, 100, [on.window() + QUEUE_NOTIFY, 0, 0], [0; 2]);
    }),
    ("a start without features", &[], |on, s| {
        s.write32(on.window() + register::STATUS, 0).write32(on.window() + register::STATUS, LIVE);
        s.check(4, on.window() + register::STATUS, 0);
        s.write32(on.window() + register::STATUS, 1).write32(on.window() + register::STATUS, 3);
        s.write32(on.window() + register::STATUS, LIVE).check(4, on.window() + register::STATUS, 3);
    }),
    ("features that are not offered", &[], |on, s| {
        for status in [0, 1, 3] {
            s.write32(on.window() + register::STATUS, status);
        }
        for half in [0, 1] {
            s.write32(on.window() + register::DRIVER_FEATURES_SEL, half);
            s.write32(on.window() + register::DRIVER_FEATURES, 0xFFFF_FFFF);
        }
        s.write32(on.window() + register::STATUS, AGREED).check(4, on.window() + register::STATUS, 3);
    }),
    ("feature words that there are not", &[], |on, s| {
        for half in [2, 3, 31, 32, 0x8000_0000, 0xFFFF_FFFF] {
            s.write32(on.window() + register::DEVICE_FEATURES_SEL, half).check(4, on.window() + 0x10, 0);
            s.write32(on.window() + register::DRIVER_FEATURES_SEL, half);
            s.write32(on.window() + register::DRIVER_FEATURES, 0xFFFF_FFFF);
        }
    }),
    ("every status", &[], |on, s| {
        on.begin(s);
        s.many(Op::Write, 4, 512, [on.window() + register::STATUS, 0x1FF, 0], [0, u64::MAX]);
    }),
    ("a start without queues", &[], |on, s| {
        on.agree(s, 0);
        s.write32(on.window() + register::STATUS, LIVE).check(4, on.window() + register::STATUS, LIVE);
        on.ring(0).bell(s);
    }),
    ("resets without end", &[], |on, s| {
        s.again(100, |s| {
            s.write32(on.window() + register::STATUS, 0);
            for status in [1, 3] {
                s.write32(on.window() + register::STATUS, status);
            }
        });
    }),
    ("starts without end", &[], |on, s| {
        s.again(50, |s| on.begin(s));
    }),
    ("interrupts acknowledged that there were not", &[], |on, s| {
        s.many(Op::Write, 4, 500, [on.window() + register::INTERRUPT_ACK, 0, 0], [0, 0x0101_0101]);
        s.check(4, on.window() + register::INTERRUPT_STATUS, 0);
    }),
    ("the configuration written, at every byte", &[], |on, s| {
        on.begin(s);
        for size in [1, 2, 4, 8] {
            s.many(Op::Write, size, 128, [on.window() + CONFIG, !0, 0], [1, 0]);
        }
    }),
    ("the configuration's end", &[], |on, s| {
        for size in [1, 2, 4, 8] {
            s.many(Op::Read, size, 64, [on.window() + u64::from(WINDOW) - 64, 0, 0], [1, 0]);
            s.many(Op::Write, size, 64, [on.window() + u64::from(WINDOW) - 64, !0, 0], [1, 0]);
        }
    }),
];

/// One access at every address of the window.
fn sweep(on: Device, s: &mut Script, op: Op, size: u8, value: u64) {
    let last = WINDOW - u32::from(size) + 1;
    s.many(op, size, last, [on.window(), value, 0], [1, 0]);
}
