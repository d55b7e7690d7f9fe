//! Requests that only one kind of device has, out of specification.

use super::{Case, to};
use crate::driver::{
    AVAILABLE, BUFFERS, Device, Device::Balloon, Device::Disk, Device::Mem, Device::Net, Device::ReadOnly,
    Device::Rng, Device::Vsock, DiskRequest, MEMORY, NEXT, SIZE, USED, WRITE, disk_request, stream,
};
use crate::script::{Op, Script};
use warren_boot::linux::layout::KEPT;
use warren_devices::virtio::vsock::{Header, packet};

use super::Ends;

const BROKEN: &[&str] = &["needs-reset"];
const WORKS: &[&str] = &["used"];
const SILENT: &[&str] = &[];
/// Answers of a disk (virtio 1.2, 5.2.6).
const IO_ERROR: u64 = 1;
const UNSUPPORTED: u64 = 2;
/// Requests to a disk.
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const ID: u32 = 8;
const DISCARD: u32 = 11;
const ZEROES: u32 = 13;
/// Sectors of the disks here.
const SECTORS: u64 = 2048;

/// The table.
pub const ROWS: &[Case] = &[
    to(Disk, "a buffer without a byte", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 0], 0)])),
    to(Disk, "a buffer without a byte, to be written", BROKEN, |on, s| {
        parts(on, s, &[([BUFFERS, 0], WRITE)]);
    }),
    to(Rng, "a buffer without a byte", WORKS, |on, s| parts(on, s, &[([BUFFERS, 0], 0)])),
    to(Rng, "a buffer without a byte, to be written", WORKS, |on, s| parts(on, s, &[([BUFFERS, 0], WRITE)])),
    to(Vsock, "a buffer without a byte", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 0], 0)])),
    to(Vsock, "a buffer without a byte, to be written", BROKEN, |on, s| {
        parts(on, s, &[([BUFFERS, 0], WRITE)]);
    }),
    to(Net, "a buffer without a byte", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 0], 0)])),
    to(Net, "a buffer without a byte, to be written", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 0], WRITE)])),
    to(Balloon, "a buffer without a byte", WORKS, |on, s| parts(on, s, &[([BUFFERS, 0], 0)])),
    to(Balloon, "a buffer without a byte, to be written", WORKS, |on, s| {
        parts(on, s, &[([BUFFERS, 0], WRITE)]);
    }),
    to(Mem, "a buffer without a byte", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 0], 0)])),
    to(Mem, "a buffer without a byte, to be written", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 0], WRITE)])),
    to(Disk, "a request without a header", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 1], WRITE)])),
    to(Disk, "a request with half a header", BROKEN, |on, s| {
        parts(on, s, &[([BUFFERS, 8], 0), ([BUFFERS, 1], WRITE)]);
    }),
    to(Disk, "a request without room for its status", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 16], 0)])),
    to(Disk, "a header in sixteen pieces", WORKS, |on, s| {
        on.begin(s);
        let ring = on.ring(0);
        s.fill(BUFFERS, 16, 0);
        for at in 0..7_u16 {
            let len = if at == 6 { 10 } else { 1 };
            ring.describes(s, at.into(), [BUFFERS + u64::from(at), len], NEXT, at + 1);
        }
        ring.describes(s, 7, [BUFFERS + 64, 513], WRITE, 0);
        ring.give(s, &[0]).used_or_broken(s, 1);
    }),
    to(Disk, "a request of no type", WORKS, |on, s| disk(on, s, 77, 0, 512, false, UNSUPPORTED)),
    to(Disk, "a read behind the end", WORKS, |on, s| disk(on, s, 0, SECTORS, 512, false, IO_ERROR)),
    to(Disk, "a read over the end", WORKS, |on, s| disk(on, s, 0, SECTORS - 1, 1024, false, IO_ERROR)),
    to(Disk, "a read of the last sector there can be", WORKS, |on, s| {
        disk(on, s, 0, u64::MAX, 512, false, IO_ERROR);
    }),
    to(Disk, "a read whose place is 0 modulo 2^64", WORKS, |on, s| {
        disk(on, s, 0, 1 << 55, 512, false, IO_ERROR);
    }),
    to(Disk, "a read of no whole sector", WORKS, |on, s| disk(on, s, 0, 0, 511, false, IO_ERROR)),
    to(Disk, "a write behind the end", WORKS, |on, s| disk(on, s, OUT, SECTORS, 512, true, IO_ERROR)),
    to(Disk, "a write over the end", WORKS, |on, s| disk(on, s, OUT, SECTORS - 1, 1024, true, IO_ERROR)),
    to(Disk, "a write that wraps", WORKS, |on, s| disk(on, s, OUT, u64::MAX, 1024, true, IO_ERROR)),
    to(Disk, "a write whose data is to be written", WORKS, |on, s| disk(on, s, OUT, 8, 512, false, IO_ERROR)),
    to(Disk, "an id into no room", WORKS, |on, s| disk(on, s, ID, 0, 19, false, IO_ERROR)),
    to(Disk, "a discard of too much", WORKS, |on, s| {
        extent(on, s, DISCARD, [0, (1 << 21) + 1], 16, IO_ERROR);
    }),
    to(Disk, "a discard over the end", WORKS, |on, s| {
        extent(on, s, DISCARD, [SECTORS - 8, 16], 16, IO_ERROR);
    }),
    to(Disk, "a discard that wraps", WORKS, |on, s| extent(on, s, DISCARD, [u64::MAX, 8], 16, IO_ERROR)),
    to(Disk, "a discard with flags", WORKS, |on, s| {
        extent(on, s, DISCARD, [8, 8 | 1 << 32], 16, UNSUPPORTED);
    }),
    to(Disk, "two discards in one", WORKS, |on, s| extent(on, s, DISCARD, [8, 8], 32, IO_ERROR)),
    to(Disk, "half a discard", WORKS, |on, s| extent(on, s, DISCARD, [8, 8], 8, IO_ERROR)),
    to(Disk, "zeroes over the end", WORKS, |on, s| extent(on, s, ZEROES, [SECTORS - 8, 4096], 16, IO_ERROR)),
    to(Disk, "zeroes with unknown flags", WORKS, |on, s| {
        extent(on, s, ZEROES, [8, 8 | 6 << 32], 16, UNSUPPORTED);
    }),
    to(ReadOnly, "a write to what may not be written", WORKS, |on, s| {
        disk(on, s, OUT, 0, 512, true, IO_ERROR);
    }),
    to(ReadOnly, "a discard of what may not be written", WORKS, |on, s| {
        extent(on, s, DISCARD, [0, 8], 16, IO_ERROR);
    }),
    to(ReadOnly, "zeroes where nothing may be written", WORKS, |on, s| {
        extent(on, s, ZEROES, [0, 8], 16, IO_ERROR);
    }),
    to(ReadOnly, "a read that becomes a write while it is judged", SILENT, changing_kind),
    to(Disk, "a place that changes while it is judged", SILENT, |on, s| {
        on.begin(s);
        disk_request(s, on, DiskRequest { len: 512, ..DiskRequest::default() });
        s.again(40, |s| {
            on.ring(0).bell(s);
            s.many(Op::Toggle, 4, 200, [on.buffer(12), 0xFFFF_FFFF, 0], [0; 2]);
        });
    }),
    to(Disk, "flushes without end", SILENT, |on, s| {
        s.again(50, |s| {
            on.begin(s);
            disk_request(s, on, DiskRequest { kind: FLUSH, len: 16, ..DiskRequest::default() });
            on.ring(0).give(s, &[0; SIZE as usize]);
        });
    }),
    to(Disk, "a status over the used ring", SILENT, |on, s| {
        on.begin(s);
        let ring = on.ring(0);
        s.fill(BUFFERS, 16, 0);
        ring.describes(s, 0, [BUFFERS, 16], NEXT, 1).describes(s, 1, [ring.base + USED, 513], WRITE, 0);
        ring.give(s, &[0]);
        s.many(Op::Read, 4, 100, [on.window(), 0, 0], [0; 2]);
    }),
    to(Vsock, "a packet with half a header", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 43], 0)])),
    to(Vsock, "a packet to be written", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 64], WRITE)])),
    to(Vsock, "a packet longer than its buffers (CVE-2019-18960)", WORKS, |on, s| {
        packet_of(on, s, Header { op: packet::OP_RW, len: 4096, ..stream() }, 44);
    }),
    to(Vsock, "a packet of 4 GiB", WORKS, |on, s| {
        packet_of(on, s, Header { op: packet::OP_RW, len: u32::MAX, ..stream() }, 64);
    }),
    to(Vsock, "a packet from another guest", WORKS, |on, s| {
        packet_of(on, s, Header { src_cid: 43, op: packet::OP_REQUEST, ..stream() }, 44);
    }),
    to(Vsock, "a packet from the host to the host", WORKS, |on, s| {
        packet_of(on, s, Header { src_cid: 2, op: packet::OP_REQUEST, ..stream() }, 44);
    }),
    to(Vsock, "a packet to another guest", WORKS, |on, s| {
        packet_of(on, s, Header { dst_cid: 43, op: packet::OP_REQUEST, ..stream() }, 44);
    }),
    to(Vsock, "a packet to nobody", WORKS, |on, s| {
        packet_of(on, s, Header { dst_cid: u64::MAX, op: packet::OP_REQUEST, ..stream() }, 44);
    }),
    to(Vsock, "a packet of no type", WORKS, |on, s| {
        packet_of(on, s, Header { kind: 0, op: packet::OP_REQUEST, ..stream() }, 44);
    }),
    to(Vsock, "a packet of another type", WORKS, |on, s| {
        packet_of(on, s, Header { kind: 2, op: packet::OP_REQUEST, ..stream() }, 44);
    }),
    to(Vsock, "every operation, of no connection", SILENT, |on, s| {
        for op in [0, 2, 3, 4, 5, 6, 7, 8, 0x7FFF, 0xFFFF] {
            send(on, s, Header { op, flags: u32::MAX, fwd_cnt: u32::MAX, ..stream() }, 44);
            on.ring(1).used(s, 1);
        }
    }),
    to(Vsock, "connections without end", SILENT, |on, s| {
        on.begin(s);
        on.lay(s);
        let ring = on.ring(1);
        // Another port each time; nobody takes the answers, so at some point nothing more is taken.
        for port in 0..300 {
            s.write32(on.buffer(16), port).write(2, ring.base + AVAILABLE + 2, port + 1);
            ring.bell(s);
        }
    }),
    to(Vsock, "a header that changes while it is judged", SILENT, |on, s| {
        on.begin(s);
        on.lay(s);
        s.again(40, |s| {
            on.ring(1).bell(s);
            s.many(Op::Toggle, 4, 200, [on.buffer(24), 0xFFFF_FFFF, 0], [0; 2]);
            s.many(Op::Toggle, 4, 200, [on.buffer(28), 0x0005_0001, 0x0001_0001], [0; 2]);
        });
    }),
    to(Vsock, "no room for an answer", BROKEN, |on, s| {
        on.begin(s);
        on.ring(0).describes(s, 0, [BUFFERS + 0x2000, 43], WRITE, 0).give(s, &[0]);
        on.lay(s);
        on.ring(1).give(s, &[0]);
        on.ring(0).used_or_broken(s, 1);
    }),
    to(Vsock, "events to be read", SILENT, |on, s| {
        on.begin(s);
        on.ring(2).describes(s, 0, [BUFFERS, 4], 0, 0).give(s, &[0]);
    }),
    to(Net, "a frame with half a header", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 11], 0)])),
    to(Net, "a frame to be written", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 128], WRITE)])),
    to(Net, "a frame without a byte", WORKS, |on, s| frame(on, s, 0, 12)),
    to(Net, "a frame shorter than any", WORKS, |on, s| frame(on, s, 0, 12 + 13)),
    to(Net, "a frame of 16 MiB", WORKS, |on, s| frame(on, s, 0, 16 << 20)),
    to(Net, "a checksum that was not agreed", WORKS, |on, s| frame(on, s, 1 | 0xFFFF << 48, 12 + 60)),
    to(Net, "segments that were not agreed", WORKS, |on, s| {
        frame(on, s, 1 << 8 | 0xFFFF << 16 | 1 << 32, 12 + 60);
    }),
    to(Net, "segments of an unknown kind", WORKS, |on, s| frame(on, s, 0x7F << 8 | 0xFF, 12 + 60)),
    to(Net, "frames without end", SILENT, |on, s| {
        s.again(200, |s| {
            on.begin(s);
            on.lay(s);
            on.ring(1).give(s, &[0; SIZE as usize]);
        });
    }),
    to(Net, "a header that changes while it is judged", SILENT, |on, s| {
        on.begin(s);
        on.lay(s);
        s.again(40, |s| {
            on.ring(1).bell(s);
            s.many(Op::Toggle, 4, 200, [on.buffer(0), 0xFFFF_FFFF, 0], [0; 2]);
        });
    }),
    to(Net, "buffers of one byte", SILENT, |on, s| {
        on.begin(s);
        on.ring(0).describes(s, 0, [BUFFERS, 1], WRITE, 0).give(s, &[0; SIZE as usize]);
    }),
    to(Net, "buffers to be read", SILENT, |on, s| {
        on.begin(s);
        on.ring(0).describes(s, 0, [BUFFERS, 2048], 0, 0).give(s, &[0]);
    }),
    to(Balloon, "a page behind memory", WORKS, |on, s| pages(on, s, &[MEMORY >> 12], 4)),
    to(Balloon, "the last page there can be", WORKS, |on, s| pages(on, s, &[0xFFFF_FFFF], 4)),
    to(Balloon, "pages of devices", WORKS, |on, s| pages(on, s, &[0xD_0000, 0xF_EC00, 0xF_EE00], 12)),
    to(Balloon, "the host's own pages", WORKS, |on, s| {
        let generation = KEPT.start;
        s.step(Op::Copy, 8, [BUFFERS + 0x3000, generation, 0]);
        pages(on, s, &[KEPT.start >> 12, (KEPT.start >> 12) + 1], 8);
        // They are still there.
        s.step(Op::Copy, 8, [BUFFERS + 0x3008, generation, 0]);
        s.read(8, BUFFERS + 0x3000).call(SAME).seen(!0, 1);
    }),
    to(Balloon, "one page two hundred times", WORKS, |on, s| {
        s.many(Op::Write, 4, 200, [on.buffer(0), (MEMORY >> 12) - 9, 0], [4, 0]);
        on.begin(s);
        on.ring(0).describes(s, 0, [on.buffer(0), 800], 0, 0).give(s, &[0]).used_or_broken(s, 1);
    }),
    to(Balloon, "no whole page numbers", WORKS, |on, s| pages(on, s, &[(MEMORY >> 12) - 9], 3)),
    to(Balloon, "an array of 16 MiB", WORKS, |on, s| {
        on.begin(s);
        // All of them zero: the first page, which nobody needs any more.
        on.ring(0).describes(s, 0, [0x200_0000, 16 << 20], 0, 0).give(s, &[0]).used_or_broken(s, 1);
    }),
    to(Balloon, "page numbers to be written", WORKS, |on, s| {
        on.begin(s);
        on.ring(0).describes(s, 0, [on.buffer(0), 64], WRITE, 0).give(s, &[0]).used_or_broken(s, 1);
    }),
    to(Balloon, "pages lent without end", SILENT, |on, s| {
        s.again(100, |s| {
            s.write32(on.buffer(0), (MEMORY >> 12) - 9);
            on.begin(s);
            on.ring(0).describes(s, 0, [on.buffer(0), 4], 0, 0).give(s, &[0; SIZE as usize]);
        });
    }),
    to(Balloon, "pages taken back that were not lent", WORKS, |on, s| {
        s.write32(on.buffer(0), 0xFFFF_FFFF);
        on.begin(s);
        on.ring(1).describes(s, 0, [on.buffer(0), 4], 0, 0).give(s, &[0]).used_or_broken(s, 1);
    }),
    to(Balloon, "statistics that are nonsense", WORKS, |on, s| {
        s.fill(on.buffer(0), 4096, 0xFFFF_FFFF_FFFF_FFFF);
        on.begin(s);
        let ring = on.ring(2);
        ring.describes(s, 0, [on.buffer(0), 4095], 0, 0).describes(s, 1, [on.buffer(0), 1], 0, 0);
        // A second buffer: the first comes back.
        ring.give(s, &[0, 1]).used_or_broken(s, 1);
    }),
    Case {
        ends: Ends::By(21, ""),
        ..to(Balloon, "the page it runs from", SILENT, |on, s| {
            on.begin(s);
            // Interpreter, steps and stack read as zero then.
            s.write32(on.buffer(0), crate::guest::ENTRY >> 12).write32(on.buffer(4), 0x200);
            on.ring(0).describes(s, 0, [on.buffer(0), 8], 0, 0).give(s, &[0]);
            s.step(Op::Wait, 2, [BUFFERS, 0xFFFF, 0]);
        })
    },
    to(Mem, "half a request", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 23], 0), ([BUFFERS, 10], WRITE)])),
    to(Mem, "a request without room for an answer", BROKEN, |on, s| parts(on, s, &[([BUFFERS, 24], 0)])),
    to(Mem, "a request of no type", WORKS, |on, s| blocks(on, s, 77, 0, 1, 3)),
    to(Mem, "more plugged than the host wants", WORKS, |on, s| blocks(on, s, 0, 4 << 30, 1, 1)),
    to(Mem, "blocks outside the region", WORKS, |on, s| blocks(on, s, 0, 0, 1, 3)),
    to(Mem, "blocks that wrap", WORKS, |on, s| blocks(on, s, 0, u64::MAX - (2 << 20) + 1, 2, 3)),
    to(Mem, "no block", WORKS, |on, s| blocks(on, s, 0, 4 << 30, 0, 3)),
    to(Mem, "more blocks than there are", WORKS, |on, s| blocks(on, s, 0, 4 << 30, 0xFFFF, 3)),
    to(Mem, "half of a block", WORKS, |on, s| blocks(on, s, 0, (4 << 30) + 4096, 1, 3)),
    to(Mem, "the rest of memory unplugged", WORKS, |on, s| blocks(on, s, 1, 0, 16, 3)),
    to(Mem, "unplugged what is not plugged", WORKS, |on, s| blocks(on, s, 1, 4 << 30, 1, 3)),
    Case {
        ends: Ends::Named,
        ..to(Mem, "touched what is not plugged", SILENT, |_, s| {
            // A table of large pages for the fifth GiB; 0xA000 is the table above it.
            s.write(8, 0x30_0000, 4 << 30 | 0x83).write(8, 0xA000 + 4 * 8, 0x30_0000 | 3).read(8, 4 << 30);
        })
    },
];

/// r11 := whether the eight bytes at [`BUFFERS`] + 0x3000 and behind are the same.
const SAME: &[u8] = &[
    0xB8, 0x00, 0x30, 0x80, 0x00, // mov eax, 0x803000
    0x48, 0x8B, 0x10, // mov rdx, [rax]
    0x45, 0x31, 0xDB, // xor r11d, r11d
    0x48, 0x3B, 0x50, 0x08, // cmp rdx, [rax + 8]
    0x41, 0x0F, 0x94, 0xC3, // sete r11b
    0xC3,
];

/// A chain of these buffers in the queue of requests; whether it is given back.
fn parts(on: Device, s: &mut Script, buffers: &[([u64; 2], u16)]) {
    on.begin(s);
    s.fill(BUFFERS, 64, 0);
    let ring = on.ring(on.asks());
    for ((buffer, flags), at) in buffers.iter().zip(0_u16..) {
        let next = if usize::from(at) + 1 < buffers.len() { NEXT } else { 0 };
        ring.describes(s, at.into(), *buffer, flags | next, at + 1);
    }
    ring.give(s, &[0]).used_or_broken(s, 1);
}

/// A disk's request, and its status.
fn disk(on: Device, s: &mut Script, kind: u32, sector: u64, len: u64, gives: bool, status: u64) {
    on.begin(s);
    disk_request(s, on, DiskRequest { kind, sector, len, gives });
    on.ring(0).give(s, &[0]).used_or_broken(s, 1);
    s.check(1, on.buffer(0x1000) + len, status);
}

/// A disk's request about an extent of so many bytes: sector, and length with its flags.
fn extent(on: Device, s: &mut Script, kind: u32, [sector, rest]: [u64; 2], len: u64, status: u64) {
    s.write(8, on.buffer(0x1000), sector).write(8, on.buffer(0x1008), rest);
    s.write(8, on.buffer(0x1010), sector).write(8, on.buffer(0x1018), rest);
    disk(on, s, kind, 0, len, true, status);
}

/// A request to read what was written before, whose type changes to a write meanwhile.
fn changing_kind(on: Device, s: &mut Script) {
    s.fill(on.buffer(0x1000), 512, 0x4141_4141_4141_4141);
    on.begin(s);
    disk_request(s, on, DiskRequest { kind: OUT, sector: 0, len: 512, gives: true });
    s.again(40, |s| {
        on.ring(0).bell(s);
        s.many(Op::Toggle, 4, 200, [on.buffer(0), 0, OUT.into()], [0; 2]);
        s.many(Op::Toggle, 4, 20, [on.ring(0).base + 28, 0x0002_0003, 0x0002_0001], [0; 2]);
    });
}

/// A packet in a buffer of so many bytes, and that it is given back.
fn packet_of(on: Device, s: &mut Script, header: Header, len: u64) {
    send(on, s, header, len);
    on.ring(1).used_or_broken(s, 1);
}

/// A packet in a buffer of so many bytes.
fn send(on: Device, s: &mut Script, header: Header, len: u64) {
    on.begin(s);
    s.bytes(on.buffer(0), &header.bytes());
    on.ring(1).describes(s, 0, [on.buffer(0), len], 0, 0).give(s, &[0]);
}

/// A frame of so many bytes with this header.
fn frame(on: Device, s: &mut Script, header: u64, len: u64) {
    on.begin(s);
    s.write(8, BUFFERS, header).write(8, BUFFERS + 8, 0);
    on.ring(1).describes(s, 0, [BUFFERS, len], 0, 0).give(s, &[0]).used_or_broken(s, 1);
}

/// Pages lent: their numbers, in a buffer of so many bytes.
fn pages(on: Device, s: &mut Script, numbers: &[u64], len: u64) {
    for (number, at) in numbers.iter().zip((on.buffer(0)..).step_by(4)) {
        s.write32(at, *number);
    }
    on.begin(s);
    on.ring(0).describes(s, 0, [on.buffer(0), len], 0, 0).give(s, &[0]).used_or_broken(s, 1);
}

/// A request for blocks, and the kind of its answer.
fn blocks(on: Device, s: &mut Script, kind: u64, gpa: u64, count: u64, answer: u64) {
    s.write(8, on.buffer(0), kind).write(8, on.buffer(8), gpa).write(8, on.buffer(16), count);
    s.fill(on.buffer(0x1000), 16, !0);
    on.begin(s);
    let ring = on.ring(0);
    ring.describes(s, 0, [on.buffer(0), 24], NEXT, 1).describes(s, 1, [on.buffer(0x1000), 10], WRITE, 0);
    ring.give(s, &[0]).used_or_broken(s, 1);
    s.check(2, on.buffer(0x1000), answer);
}
