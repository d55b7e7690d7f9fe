//! The balloon: pages that go, pages that stay, statistics that wait.

use super::super::balloon::{Balloon, Handle};
use super::*;
use warren_boot::linux::layout::KEPT;
use warren_devices::virtio::balloon::STATISTICS;

const REPORTING: usize = 3;
const MIB: u64 = 1 << 20;

/// A driver and what the main thread has of its device.
pub(super) fn balloon() -> Driver<Balloon> {
    let balloon = Balloon::new(true);
    Driver::new(balloon.identity(), balloon)
}

impl Driver<Balloon> {
    fn handle(&self) -> Handle {
        self.front.handle(Arc::clone(&self.device), 3 * MIB)
    }

    /// Lends pages; which of them are gone, by what stood there.
    fn lend(&mut self, pages: &[u32]) -> Vec<u32> {
        let known: Vec<u32> = pages.iter().copied().filter(|page| *page < 0x100).collect();
        for page in &known {
            self.ram.put(u64::from(*page) << 12, &[0x77; 4096]).unwrap();
        }
        let array: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.ram.put(0x4000, &array).unwrap();
        assert_eq!(self.ask(&[(0x4000, u32::try_from(array.len()).unwrap(), false)]), 0);
        known.into_iter().filter(|page| self.bytes(u64::from(*page) << 12, 4096) == [0; 4096]).collect()
    }

    fn statistic(&mut self, tag: u16, value: u64) {
        let bytes = [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        self.ram.put(0x5000, &bytes).unwrap();
        self.offer_at(STATISTICS, 0, &[(0x5000, 10, false)]);
        self.serve();
    }
}

#[test]
fn lent_pages_go_and_the_hosts_own_stay() {
    let mut driver = balloon();
    three_times(&mut driver, |driver| {
        let before = driver.handle().status().returned_bytes;
        assert_eq!(driver.lend(&[0x83, 0x81, 0x82, 0x81, 0x90]), [0x83, 0x81, 0x82, 0x81, 0x90]);
        assert_eq!(driver.handle().status().returned_bytes - before, 4 * 4096, "each once");
        let kept = u32::try_from(KEPT.start >> 12).unwrap();
        assert_eq!(driver.lend(&[kept - 1, kept, kept + 1, kept + 2]), [kept - 1, kept + 2]);
        assert_eq!(driver.lend(&[0x100, 0xFFFF_FFFF, 0x85]), [0x85], "the others are no memory");
    });
}

#[test]
fn reported_pages_go_when_they_are_whole() {
    let mut driver = balloon();
    three_times(&mut driver, |driver| {
        driver.ram.put(0x8_0000, &[0x77; 0x4000]).unwrap();
        driver.offer_at(REPORTING, 0, &[(0x8_0800, 0x1800, true), (0x8_3000, 0xFFF, true)]);
        driver.serve();
        assert_eq!(driver.used(REPORTING), driver.made[REPORTING]);
        assert_eq!(driver.bytes(0x8_1000, 0x1000), [0; 0x1000]);
        assert_eq!(driver.bytes(0x8_0000, 0x1000), [0x77; 0x1000]);
        assert_eq!(driver.bytes(0x8_2000, 0x2000), [0x77; 0x2000]);
    });
}

#[test]
fn statistics_go_round_once_for_each_that_wants_them() {
    let mut driver = balloon();
    three_times(&mut driver, |driver| {
        // The first are told unasked; nobody asked for others.
        let handle = driver.handle();
        let before = handle.status().told;
        driver.statistic(4, 11);
        assert_eq!(driver.used(STATISTICS), 1, "asked for above, so that more are told at once");
        driver.statistic(4, 12);
        driver.serve();
        assert_eq!(driver.used(STATISTICS), 1, "held until somebody asks");
        let status = handle.status();
        assert_eq!((status.guest.free, status.guest.total, status.told - before), (Some(12), None, 2));
        driver.serve();
        assert_eq!(driver.used(STATISTICS), 2);
        // A driver with two buffers gets the first back.
        driver.statistic(4, 13);
        driver.statistic(4, 14);
        assert_eq!((driver.used(STATISTICS), driver.get(STATUS)), (3, 15));
    });
}

#[test]
fn a_target_is_told_to_a_driver_that_is_there() {
    let mut driver = balloon();
    let handle = driver.handle();
    handle.set_target(2).unwrap();
    assert_eq!([0x60, 0x100, 0xFC].map(|at| driver.get(at)), [0, 512, 1], "nobody is there to be told");
    driver.bring_up();
    handle.set_target(3).unwrap();
    assert_eq!([0x60, 0x100, 0xFC].map(|at| driver.get(at)), [INTERRUPT_CONFIG, 768, 2]);
    driver.set(0x64, INTERRUPT_CONFIG);
    handle.set_target(3).unwrap();
    assert_eq!([0x60, 0xFC].map(|at| driver.get(at)), [0, 2], "nothing new");
    assert!(handle.set_target(4).is_err() && handle.set_target(u32::MAX).is_err());
    // What the driver says goes with it; the target is the host's.
    driver.set(0x104, 300);
    driver.set(0x100, 300);
    let said = |handle: &Handle| (handle.status().target_bytes, handle.status().actual_bytes);
    assert_eq!(said(&handle), (3 * MIB, 300 * 4096));
    driver.set(STATUS, 0);
    assert_eq!(said(&handle), (3 * MIB, 0));
}
