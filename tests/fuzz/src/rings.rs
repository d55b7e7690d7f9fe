//! Rings in guest memory, through the monitor's own walker, and the requests that come out of them.
//!
//! An input is two features and places of a queue, then the guest's memory from address 0. Memory is where the monitor keeps it:
//! a mapping read by volatile accesses.

use crate::Input;
use std::cell::RefCell;
use warren_devices::virtio::block::{Disk, Request};
use warren_devices::virtio::transport::QueueConfig;
use warren_devices::virtio::vsock::{self, Mux};
use warren_devices::virtio::{Chain, Range, balloon, mem, net};
use warren_vmm::linux::virtio::walk::Walk;
use warren_vmm::ram::Ram;

/// Bytes of the guest's memory.
const LEN: u64 = 0x1_0000;

thread_local! {
    static RAM: RefCell<Ram> = RefCell::new(Ram::detached(0, LEN).expect("64 KiB"));
}

/// Walks the queue to its end and gives each request to `take`, which says how much it wrote.
fn walk(bytes: &[u8], mut take: impl FnMut(&Chain, &Ram) -> u32) {
    let mut input = Input(bytes);
    let (features, size) = (input.long(), 1 << (input.byte() % 9));
    let mut place = |align: u64| u64::from(input.half()) * align;
    let (descriptors, driver, device) = (place(16), place(2), place(4));
    let config = QueueConfig { size, ready: true, descriptors, driver, device };
    RAM.with_borrow(|ram| {
        let memory = input.rest();
        let memory = &memory[..memory.len().min(usize::try_from(LEN).expect("small"))];
        ram.put(0, &vec![0; usize::try_from(LEN).expect("small")]).expect("all of it");
        ram.put(0, memory).expect("a part of it");
        let Ok(Some(mut walk)) = Walk::new(&config, features, ram) else { return };
        // What an honest driver could have made available; finished requests may be offered again by what is written.
        for _ in 0..=2 * u32::from(size) {
            let Ok(Some((head, chain))) = walk.next(ram) else { return };
            assert!(head < size);
            for range in chain.readable().iter().chain(chain.writable()) {
                inside(*range);
            }
            let written = take(&chain, ram);
            assert!(written <= chain.writable_len());
            if walk.finish(ram, head, written).is_err() {
                return;
            }
        }
    });
}

fn inside(range: Range) {
    assert!(
        range.len > 0 && range.gpa.checked_add(range.len.into()).is_some_and(|end| end <= LEN),
        "{range:?}"
    );
}

/// Requests of no device: the walk alone.
pub(crate) fn queue_walk(bytes: &[u8]) {
    walk(bytes, |chain, ram| {
        let _head: Option<[u8; 16]> = chain.copy_head(ram);
        chain.writable_len()
    });
}

/// Disk requests: what is to be done lies on the disk, and as much of it in memory as on the disk.
pub(crate) fn block_request(bytes: &[u8]) {
    let mut input = Input(bytes);
    let disk = Disk { sectors: input.half().into(), read_only: input.byte() & 1 == 1 };
    let size = disk.sectors * 512;
    walk(input.rest(), |chain, ram| {
        let Ok(parsed) = disk.parse(chain, ram) else { return 0 };
        assert!(parsed.status_at < LEN && parsed.data_len < chain.writable_len());
        let moved = |ranges: &[Range]| {
            let len = |range: &Range| {
                inside(*range);
                u64::from(range.len)
            };
            ranges.iter().map(len).sum::<u64>()
        };
        match parsed.request {
            Ok(Request::Read { offset, into }) => {
                assert!(offset + moved(&into) <= size && moved(&into) == u64::from(parsed.data_len));
            }
            Ok(Request::Write { offset, from }) => {
                assert!(!disk.read_only && offset + moved(&from) <= size);
            }
            Ok(Request::Discard(extent) | Request::WriteZeroes { extent, .. }) => {
                assert!(
                    !disk.read_only && extent.offset.checked_add(extent.len).is_some_and(|end| end <= size)
                );
            }
            Ok(Request::Id(into)) => assert!(moved(&into) <= 20),
            Ok(Request::Flush) | Err(_) => {}
        }
        parsed.data_len + 1
    });
}

/// Frames: a header that was judged is judged the same again.
pub(crate) fn net_header(bytes: &[u8]) {
    let mut input = Input(bytes);
    let features = input.long();
    walk(input.rest(), |chain, ram| {
        const HEADER: usize = net::HEADER_LEN as usize;
        let Some(header) = chain.copy_head::<HEADER>(ram) else { return 0 };
        let len = chain.readable_len() - net::HEADER_LEN;
        if let Ok(judged) = net::judge(header, len, features) {
            assert_eq!(net::judge(judged, len, features), Ok(judged));
        }
        0
    });
}

/// Packets of streams: the table stays bounded and never owes more than it may, whatever the guest says.
pub(crate) fn vsock_packet(bytes: &[u8]) {
    const HEADER: usize = vsock::HEADER_LEN as usize;
    let mut mux = Mux::new(3);
    let mut input = Input(bytes);
    for port in 0..u32::from(input.byte() % 4) {
        let _key = mux.connect(port);
    }
    let mut open = Vec::new();
    walk(input.rest(), |chain, ram| {
        if !mux.listens() {
            return 0;
        }
        let Some(header) = chain.copy_head::<HEADER>(ram) else { return 0 };
        let header = vsock::Header::read(&header);
        match mux.receive(&header, chain.readable_len() - vsock::HEADER_LEN) {
            vsock::Received::Wanted(key) if key.host % 2 == 0 => {
                mux.accept(key);
                open.push(key);
            }
            vsock::Received::Wanted(key) => mux.refuse(key),
            vsock::Received::Opened(key) => open.push(key),
            vsock::Received::Data(key) => {
                assert!(mux.held(key) <= vsock::credit::ROOM, "more than was granted");
                mux.forwarded(key, header.len / 2);
            }
            vsock::Received::Nothing | vsock::Received::Shut(_) => {}
        }
        let mut packets = 0;
        while let Some(next) = mux.next_packet() {
            packets += 1;
            assert!(packets < 1024, "packets without end");
            if let vsock::Next::Data(key, room) = next {
                if room > 1 {
                    let _header = mux.read(key, room / 2);
                } else {
                    mux.ended(key);
                }
            }
        }
        while let Some(key) = mux.take_gone() {
            open.retain(|known| *known != key);
        }
        0
    });
}

/// Pages lent and reported: whole, memory, none of the host's own, and of an array each once.
pub(crate) fn balloon_request(bytes: &[u8]) {
    let mut input = Input(bytes);
    let start = u64::from(input.half());
    let kept = start..start + u64::from(input.half());
    let pages = |runs: &[balloon::Run]| -> Vec<u64> {
        runs.iter()
            .flat_map(|run| {
                assert!(run.len > 0 && run.gpa + run.len <= LEN, "{run:?}");
                assert!(run.gpa.is_multiple_of(balloon::PAGE) && run.len.is_multiple_of(balloon::PAGE));
                (run.gpa..run.gpa + run.len).step_by(4096)
            })
            .collect()
    };
    let may_go = |page: &u64| kept.is_empty() || page + balloon::PAGE <= kept.start || kept.end <= *page;
    walk(input.rest(), |chain, ram| {
        let lent = pages(&balloon::lent(chain, ram, std::slice::from_ref(&kept)));
        assert!(lent.is_sorted_by(|one, next| one < next) && lent.iter().all(may_go));
        assert!(pages(&balloon::reported(chain, std::slice::from_ref(&kept))).iter().all(may_go));
        let _told = balloon::statistics(chain, ram);
        0
    });
}

/// Memory that is plugged: never more than the host wants or has, and each change is one.
pub(crate) fn memory_request(bytes: &[u8]) {
    const COUNT: u64 = 12;
    let mut input = Input(bytes);
    let requested = u64::from(input.byte()) % (COUNT + 1) * mem::BLOCK_MIN;
    let mut blocks = mem::Blocks::new(1 << 32, COUNT * mem::BLOCK_MIN);
    walk(input.rest(), |chain, ram| {
        let Some(request) = mem::Request::read(chain, ram) else { return 0 };
        if let mem::Verdict::Do(change) = blocks.judge(request, requested) {
            let (before, (at, len)) = (blocks.plugged(), blocks.bytes(&change.blocks));
            assert!(len > 0 && at + len <= blocks.region(), "{change:?}");
            blocks.made(&change);
            let after = if change.plug { before + len } else { blocks.plugged() };
            assert!(after == blocks.plugged() && after != before && after <= requested, "{change:?}");
        }
        0
    });
}
