use super::*;
use proptest::prelude::*;

const BASE: u64 = 0x1000;
const LEN: u64 = 0x2000;
const CONFIG: QueueConfig =
    QueueConfig { size: 8, ready: true, descriptors: 0x1000, driver: 0x1100, device: 0x1200 };
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

type Descriptor = (u64, u32, u16, u16);

/// Memory with a table of descriptors and one head made available.
fn ring(table: &[Descriptor], head: u16) -> Ram {
    let ram = Ram::detached(BASE, LEN).unwrap();
    put_table(&ram, CONFIG.descriptors, table);
    ram.put(CONFIG.driver + 2, &1_u16.to_le_bytes()).unwrap();
    ram.put(CONFIG.driver + 4, &head.to_le_bytes()).unwrap();
    ram
}

fn put_table(ram: &Ram, at: u64, table: &[Descriptor]) {
    for (index, (gpa, len, flags, next)) in (0..).zip(table) {
        let fields: [&[u8]; 4] =
            [&gpa.to_le_bytes(), &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        ram.put(at + index * 16, &fields.concat()).unwrap();
    }
}

fn next(ram: &Ram) -> Result<Option<(u16, Chain)>, WalkError> {
    Walk::new(&CONFIG, 0, ram).unwrap().unwrap().next(ram)
}

fn refused(table: &[Descriptor], head: u16, said: &str) {
    let text = next(&ring(table, head)).unwrap_err().to_string();
    assert!(text.contains(said), "{text:?} lacks {said:?}: {table:x?}");
}

#[test]
fn a_request_is_what_its_descriptors_say() {
    let ram = ring(&[(0, 0, 0, 0), (0x1800, 16, NEXT, 3), (0, 0, 0, 0), (0x1900, 512, WRITE, 0)], 1);
    let (head, chain) = next(&ram).unwrap().unwrap();
    assert_eq!((head, chain.readable_len(), chain.writable_len()), (1, 16, 512));
    let ram = ring(&[(0x1400, 32, INDIRECT, 0)], 0);
    put_table(&ram, 0x1400, &[(0x1800, 16, NEXT, 1), (0x1900, 1, WRITE, 0)]);
    let (_, chain) = next(&ram).unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (16, 1));
}

#[test]
fn rings_out_of_rule_are_refused_by_name() {
    refused(&[(0x1800, 16, NEXT, 0)], 0, "without an end");
    refused(&[(0x1800, 16, NEXT, 1), (0x1800, 16, NEXT, 0)], 0, "without an end");
    refused(&[(0x1800, 16, NEXT, 8)], 0, "without an end");
    refused(&[(0x1800, 16, NEXT, u16::MAX)], 0, "without an end");
    refused(&[(0x1800, 16, 0, 0)], 8, "beyond the table");
    refused(&[(0x1800, 16, 0, 0)], u16::MAX, "beyond the table");
    refused(&[(0x2FF0, 17, 0, 0)], 0, "not memory");
    refused(&[(u64::MAX, 2, 0, 0)], 0, "not memory");
    refused(&[(u64::MAX - 15, 16, WRITE, 0)], 0, "not memory");
    refused(&[(0x1800, u32::MAX, 0, 0)], 0, "not memory");
    refused(&[(0x1800, 1, NEXT | WRITE, 1), (0x1800, 1, 0, 0)], 0, "behind a writable one");
    // A table that is not memory, of a length that is none, empty, and in a table.
    refused(&[(0x9000, 32, INDIRECT, 0)], 0, "without an end");
    refused(&[(0x1400, 17, INDIRECT, 0)], 0, "without an end");
    refused(&[(0x1400, 0, INDIRECT, 0)], 0, "without an end");
    let ram = ring(&[(0x1400, 16, INDIRECT, 0)], 0);
    put_table(&ram, 0x1400, &[(0x1400, 16, INDIRECT, 0)]);
    assert!(matches!(next(&ram), Err(WalkError::Endless)));
    // More in a table than in the queue.
    let ram = ring(&[(0x1400, 16 * 9, INDIRECT, 0)], 0);
    put_table(&ram, 0x1400, &[(0x1800, 1, NEXT, 0); 9].map(|_| (0x1800, 1, NEXT, 1)));
    assert!(matches!(next(&ram), Err(WalkError::Endless)));
}

#[test]
fn an_available_index_that_jumps_is_refused() {
    let ram = ring(&[(0x1800, 16, 0, 0)], 0);
    ram.put(CONFIG.driver + 2, &9_u16.to_le_bytes()).unwrap();
    assert!(matches!(next(&ram), Err(WalkError::Jump { from: 0, to: 9, size: 8 })));
    ram.put(CONFIG.driver + 2, &u16::MAX.to_le_bytes()).unwrap();
    assert!(matches!(next(&ram), Err(WalkError::Jump { .. })));
}

#[test]
fn queues_that_are_not_memory_are_refused() {
    let ram = Ram::detached(BASE, LEN).unwrap();
    for (descriptors, driver, device) in [
        (0, 0x1100, 0x1200),
        (0x1000, 0x2FF0, 0x1200),
        (0x1000, 0x1100, 0x2FF0),
        (u64::MAX - 0xFF, 0x1100, 0x1200),
    ] {
        let config = QueueConfig { descriptors, driver, device, ..CONFIG };
        assert!(Walk::new(&config, 0, &ram).is_err(), "{config:x?}");
    }
    assert!(Walk::new(&QueueConfig { ready: false, ..CONFIG }, 0, &ram).unwrap().is_none());
}

#[test]
fn finished_requests_are_in_the_used_ring() {
    let ram = ring(&[(0x1800, 16, 0, 0)], 0);
    let mut walk = Walk::new(&CONFIG, 0, &ram).unwrap().unwrap();
    let (head, _) = walk.next(&ram).unwrap().unwrap();
    walk.finish(&ram, head, 7).unwrap();
    assert_eq!([(); 2].map(|()| walk.wants_interrupt(&ram).unwrap()), [true, false], "once");
    let mut used = [0; 12];
    ram.get(CONFIG.device, &mut used).unwrap();
    assert_eq!(used, [0, 0, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0]);
    assert!(walk.next(&ram).unwrap().is_none());
}

proptest! {
    /// Whatever stands in memory: walking ends, and what comes out is memory, in order and no longer than the queue.
    #[test]
    fn any_memory_is_walked_to_an_end(
        table in prop::collection::vec((0_u64..0x3200, 0_u32..0x900, 0_u16..8, 0_u16..9), 8),
        indirect in prop::collection::vec((0_u64..0x3200, 0_u32..0x900, 0_u16..8, 0_u16..9), 12),
        heads in prop::collection::vec(0_u16..10, 8),
        available in 0_u16..12,
        events: bool,
    ) {
        let ram = ring(&table, 0);
        put_table(&ram, 0x1400, &indirect);
        for (at, head) in (0..).zip(&heads) {
            ram.put(CONFIG.driver + 4 + at * 2, &head.to_le_bytes()).unwrap();
        }
        ram.put(CONFIG.driver + 2, &available.to_le_bytes()).unwrap();
        let features = if events { F_EVENT_IDX } else { 0 };
        let mut walk = Walk::new(&CONFIG, features, &ram).unwrap().unwrap();
        let mut count = 0;
        while let Ok(Some((head, chain))) = walk.next(&ram) {
            count += 1;
            prop_assert!(count <= available && head < CONFIG.size);
            let ranges = [chain.readable(), chain.writable()].concat();
            prop_assert!(ranges.len() <= usize::from(CONFIG.size));
            for range in ranges {
                prop_assert!(range.len > 0 && range.gpa >= BASE && range.gpa + u64::from(range.len) <= BASE + LEN);
            }
            walk.finish(&ram, head, 0).unwrap();
        }
    }
}
