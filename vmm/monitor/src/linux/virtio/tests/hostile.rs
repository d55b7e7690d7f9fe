//! A driver that writes whatever it likes into rings, descriptors and headers, against each device through the real
//! ring-walking adapter: nothing panics, everything ends, and nothing outside of what was offered is touched.

use super::super::balloon::Balloon;
use super::super::mem::Mem;
use super::super::net::Net;
use super::super::vsock::Vsock;
use super::*;
use proptest::prelude::*;
use warren_boot::linux::layout::KEPT;
use warren_devices::rate::Limits;
use warren_devices::virtio::vsock::Header;

/// Where the driver's requests lie; nothing else may change but the used rings.
const ARENA: u64 = 0x8_0000;
const ARENA_LEN: u64 = 0x1_0000;

/// Mostly sound, now and then anything.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![12 => ARENA..ARENA + ARENA_LEN, 1 => any::<u64>()]
}

fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let len = prop_oneof![6 => 0_u32..100, 6 => 0_u32..5000, 1 => any::<u32>()];
    let flags = prop_oneof![10 => 0_u16..4, 1 => 0_u16..8];
    let next = prop_oneof![12 => 0_u16..SIZE, 1 => any::<u16>()];
    (address(), len, flags, next)
}

/// One thing that a driver does.
#[derive(Clone, Debug)]
enum Act {
    Table(usize, Vec<(u64, u32, u16, u16)>),
    /// Bytes somewhere in the arena: headers of requests among them.
    Bytes(u64, Vec<u8>),
    /// So many more heads made available.
    Offer(usize, Vec<u16>),
    /// The available index, as it pleases.
    Jump(usize, u16),
    Serve,
    Reset,
    Register(u64, u32),
}

fn act(header: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Act> {
    let queue = || 0_usize..3;
    let head = prop_oneof![20 => 0..SIZE, 1 => any::<u16>()];
    prop_oneof![
        4 => (queue(), prop::collection::vec(descriptor(), usize::from(SIZE))).prop_map(|(q, table)| Act::Table(q, table)),
        6 => (ARENA..ARENA + ARENA_LEN - 64, header).prop_map(|(at, bytes)| Act::Bytes(at, bytes)),
        8 => (queue(), prop::collection::vec(head, 1..6)).prop_map(|(q, heads)| Act::Offer(q, heads)),
        1 => (queue(), any::<u16>()).prop_map(|(q, to)| Act::Jump(q, to)),
        8 => Just(Act::Serve),
        2 => Just(Act::Reset),
        1 => (0_u64..0x200, any::<u32>()).prop_map(|(at, value)| Act::Register(at, value)),
    ]
}

/// Does it all; `outside` is called after each act.
fn drive<S: Serve>(driver: &mut Driver<S>, acts: Vec<Act>, outside: impl FnMut(&mut Driver<S>)) {
    drive_within(driver, acts, outside, |page| page == [0xA5; 0x1000]);
}

/// The same where a page around the arena may have become something else.
fn drive_within<S: Serve>(
    driver: &mut Driver<S>,
    acts: Vec<Act>,
    mut outside: impl FnMut(&mut Driver<S>),
    is_whole: impl Fn(&[u8]) -> bool,
) {
    let queues = driver.made.len();
    driver.bring_up();
    // Around the arena: what nobody may touch.
    driver.ram.put(ARENA - 0x1000, &[0xA5; 0x1000]).unwrap();
    driver.ram.put(ARENA + ARENA_LEN, &[0xA5; 0x1000]).unwrap();
    for act in acts {
        match act {
            Act::Table(queue, table) => {
                let base = (queue % queues) as u64 * QUEUE_STRIDE + DESCRIPTORS;
                for (at, (gpa, len, flags, next)) in (0..).zip(table) {
                    // A length that leaves the arena is somebody else's memory.
                    let end = ARENA + ARENA_LEN;
                    let inside = (ARENA..end).contains(&gpa) && u64::from(len) < 0x1_0000;
                    let len = if inside { len.min(u32::try_from(end - gpa).unwrap()) } else { len };
                    let gpa = if gpa < ARENA || gpa >= end { gpa | 1 << 40 } else { gpa };
                    let fields: [&[u8]; 4] =
                        [&gpa.to_le_bytes(), &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
                    driver.ram.put(base + at * 16, &fields.concat()).unwrap();
                }
            }
            Act::Bytes(at, bytes) => driver.ram.put(at, &bytes).unwrap(),
            Act::Offer(queue, heads) => {
                let queue = queue % queues;
                let ring = queue as u64 * QUEUE_STRIDE + AVAILABLE;
                for head in heads {
                    let made = driver.made[queue];
                    driver.ram.put(ring + 4 + u64::from(made % SIZE) * 2, &head.to_le_bytes()).unwrap();
                    driver.made[queue] = made.wrapping_add(1);
                }
                driver.ram.put(ring + 2, &driver.made[queue].to_le_bytes()).unwrap();
            }
            Act::Jump(queue, to) => {
                driver
                    .ram
                    .put((queue % queues) as u64 * QUEUE_STRIDE + AVAILABLE + 2, &to.to_le_bytes())
                    .unwrap();
            }
            Act::Serve => driver.serve(),
            Act::Reset => driver.bring_up(),
            Act::Register(at, value) => driver.set(at & !3, value),
        }
        outside(driver);
    }
    driver.serve();
    for at in [ARENA - 0x1000, ARENA + ARENA_LEN] {
        let page = driver.bytes(at, 0x1000);
        assert!(is_whole(&page), "{at:#x}: {page:?}");
    }
    // And it still works for a driver that keeps the rules.
    driver.bring_up();
}

fn block_header() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![prop::sample::select(vec![0_u32, 1, 4, 8, 11, 13]), any::<u32>()];
    let sector = prop_oneof![4 => 0_u64..20, 1 => any::<u64>()];
    (kind, sector, 0_u64..20, any::<(u32, u32)>()).prop_map(|(kind, sector, from, (count, flags))| {
        [
            &kind.to_le_bytes()[..],
            &[0; 4],
            &sector.to_le_bytes(),
            &from.to_le_bytes(),
            &(count % 24).to_le_bytes(),
            &(flags % 3).to_le_bytes(),
        ]
        .concat()
    })
}

fn packet_header() -> impl Strategy<Value = Vec<u8>> {
    let port = || prop_oneof![0_u32..3, Just(77), Just(1 << 30), Just((1 << 30) + 1)];
    let fields =
        (port(), port(), prop_oneof![0_u32..200, any::<u32>()], 0_u16..9, any::<u32>(), any::<(u32, u32)>());
    let odd = prop_oneof![20 => Just((u64::from(streams::CID), 2, 1)), 1 => any::<(u64, u64, u16)>()];
    (fields, odd).prop_map(
        |((src_port, dst_port, len, op, flags, (buf_alloc, fwd_cnt)), (src_cid, dst_cid, kind))| {
            Header { src_cid, dst_cid, src_port, dst_port, len, kind, op, flags, buf_alloc, fwd_cnt }
                .bytes()
                .to_vec()
        },
    )
}

fn frame_header() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..4, prop::sample::select(vec![0_u8, 1, 4, 0x81, 3]), prop::collection::vec(any::<u8>(), 10))
        .prop_map(|(flags, gso, rest)| [&[flags, gso][..], &rest].concat())
}

/// Numbers of pages in the arena, of the host's own, of none; and statistics, which begin alike.
fn page_numbers() -> impl Strategy<Value = Vec<u8>> {
    let arena = u32::try_from(ARENA >> 12).unwrap();
    let number = prop_oneof![6 => arena..arena + 16, 2 => 0xEE_u32..0xF0, 1 => 0x100_u32..=u32::MAX];
    prop::collection::vec(number, 1..16)
        .prop_map(|numbers| numbers.into_iter().flat_map(u32::to_le_bytes).collect())
}

fn memory_request() -> impl Strategy<Value = Vec<u8>> {
    let block = prop_oneof![8 => (0_u64..9).prop_map(|block| memories::START + block * memories::BLOCK), 1 => any::<u64>()];
    let count = prop_oneof![8 => 0_u16..4, 1 => any::<u16>()];
    (0_u16..5, block, count).prop_map(|(kind, gpa, count)| memories::request(kind, gpa, count))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_disk_keeps_its_size_and_a_read_only_one_its_bytes(acts in prop::collection::vec(act(block_header()), 0..60), read_only: bool) {
        let (mut driver, mut file) = disks::disk(16, read_only);
        let before = disks::contents(&mut file);
        drive(&mut driver, acts, |_| {});
        let after = disks::contents(&mut file);
        prop_assert_eq!(after.len(), before.len());
        prop_assert!(!read_only || after == before);
    }

    #[test]
    fn streams_stay_bounded(acts in prop::collection::vec(act(packet_header()), 0..80)) {
        let mut driver: Driver<Vsock> = streams::driver();
        let mut ends = Vec::new();
        for token in 0..6 {
            let (test, device) = streams::pair();
            match token % 3 {
                0 => driver.front.park(token, 77, device),
                other => driver.front.connect(token, u32::try_from(other).unwrap(), device),
            }
            let _ = io::Write::write(&mut &test, &[9; 500]);
            ends.push(test);
        }
        drive(&mut driver, acts, |driver| {
            let (sockets, kept) = driver.front.load();
            assert!(sockets <= 6 && kept <= sockets * (64 << 10), "{sockets} sockets keep {kept} bytes");
        });
    }

    #[test]
    fn a_balloon_takes_what_is_named_and_not_the_hosts_own(acts in prop::collection::vec(act(page_numbers()), 0..60)) {
        let mut driver: Driver<Balloon> = balloons::balloon();
        driver.ram.put(KEPT.start, &[0x5A; 0x2000]).unwrap();
        // Any bytes may name a page of the driver's own, which is taken whole then.
        let is_whole = |page: &[u8]| page == [0xA5; 0x1000] || page == [0; 0x1000];
        drive_within(&mut driver, acts, |_| {}, is_whole);
        prop_assert!(driver.bytes(KEPT.start, 0x2000) == [0x5A; 0x2000]);
    }

    #[test]
    fn no_more_is_plugged_than_was_wanted(acts in prop::collection::vec(act(memory_request()), 0..60)) {
        let mut driver: Driver<Mem> = memories::memory(3);
        let handle = driver.front.handle();
        drive(&mut driver, acts, |driver| {
            let plugged = handle.status().plugged_bytes;
            assert!(plugged <= 3 * memories::BLOCK);
            let there = (0..memories::BLOCKS).filter(|block| driver.ram.is_plugged(memories::START + block * memories::BLOCK, 1));
            assert_eq!(there.count() as u64 * memories::BLOCK, plugged);
        });
    }

    #[test]
    fn a_card_takes_no_frame_that_was_not_judged(acts in prop::collection::vec(act(frame_header()), 0..60), features: u64) {
        let offered = warren_devices::virtio::net::FEATURES;
        let (mut driver, test): (Driver<Net>, _) = frames::card(features & offered, Limits::default());
        let features = driver.features;
        let mut frame = vec![0; 70_000];
        drive(&mut driver, acts, |driver| {
            let _ = test.send(&[9; 300]);
            driver.front.readable();
            while let Ok(len) = test.recv(&mut frame) {
                let header = frame[..12].try_into().unwrap();
                let len = u32::try_from(len).unwrap() - 12;
                assert_eq!(warren_devices::virtio::net::judge(header, len, features), Ok(header));
            }
        });
    }
}

/// Seconds in the quick form, minutes in the full one.
fn cases() -> u32 {
    if std::env::var_os("WARREN_SOAK").is_some() { 200_000 } else { 256 }
}
