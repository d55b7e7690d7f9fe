//! Memory that is plugged: what is there can be used, what is not cannot be reached by any device.

use super::super::mem::{Mem, identity};
use super::*;
use warren_devices::virtio::mem::Blocks;

pub(super) const START: u64 = 4 << 30;
pub(super) const BLOCK: u64 = 2 << 20;
pub(super) const BLOCKS: u64 = 8;
const ACK: u8 = 0;
const NACK: u8 = 1;
const ERROR: u8 = 3;

/// A driver of a device of whose blocks so many are wanted.
pub(super) fn memory(wanted: u64) -> Driver<Mem> {
    let ram = Ram::detached_with_blocks(0, 0x10_0000, (START, BLOCKS * BLOCK), BLOCK).unwrap();
    let blocks = Blocks::new(START, BLOCKS * BLOCK);
    let identity = identity(&blocks, wanted * BLOCK);
    Driver::over(ram, identity, |device| Mem::new(blocks, Arc::clone(device)))
}

pub(super) fn request(kind: u16, gpa: u64, count: u16) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 6], &gpa.to_le_bytes(), &count.to_le_bytes(), &[0; 6]].concat()
}

impl Driver<Mem> {
    /// The answer to a request and the state in it.
    fn request(&mut self, kind: u16, block: u64, count: u16) -> (u8, u8) {
        self.ram.put(0x4000, &request(kind, START + block * BLOCK, count)).unwrap();
        assert_eq!(self.ask(&[(0x4000, 24, false), (0x5000, 10, true)]), 10);
        let answer = self.bytes(0x5000, 10);
        (answer[0], answer[8])
    }

    fn plugged(&self) -> u64 {
        self.front.handle().status().plugged_bytes / BLOCK
    }
}

#[test]
fn blocks_come_go_and_are_empty_again() {
    let mut driver = memory(3);
    three_times(&mut driver, |driver| {
        // A reset unplugs nothing; Linux begins so.
        assert_eq!(driver.request(2, 0, 0), (ACK, 0));
        let generation = driver.get(0xFC);
        assert_eq!(driver.request(0, 1, 2), (ACK, 0));
        assert_eq!(
            (driver.plugged(), driver.get(0x100 + 40), driver.get(0xFC)),
            (2, 2 << 21, generation + 1)
        );
        assert_eq!((driver.request(3, 1, 2), driver.request(3, 0, 2)), ((ACK, 0), (ACK, 2)));
        assert_eq!(
            (driver.request(0, 4, 2).0, driver.request(0, 2, 1).0, driver.request(9, 2, 1).0),
            (NACK, ERROR, ERROR)
        );
        let last = START + 3 * BLOCK - 4096;
        driver.ram.put(last, &[0x77; 4096]).unwrap();
        assert_eq!(driver.request(1, 2, 1), (ACK, 0));
        assert_eq!(driver.request(0, 2, 1), (ACK, 0));
        assert_eq!(driver.bytes(last, 4096), [0; 4096]);
        assert_eq!(driver.get(0x60), 0, "nobody is told what he did himself");
        driver.front.handle().want(6).unwrap();
        assert_eq!(driver.get(0x60), 0, "nothing new");
    });
    let handle = driver.front.handle();
    handle.want(4).unwrap();
    assert_eq!((driver.get(0x60), driver.get(0x100 + 48)), (INTERRUPT_CONFIG, 4 << 20));
    assert!(handle.want(18).is_err() && handle.want(3).is_err());
}

#[test]
fn no_device_reaches_what_is_not_plugged() {
    let mut driver = memory(8);
    driver.bring_up();
    assert_eq!(driver.request(0, 1, 1), (ACK, 0));
    // In a block that is there, across its end, in one that is not.
    for (gpa, status) in [(2 * BLOCK - 10, 15), (2 * BLOCK - 9, 15 | 64), (3 * BLOCK, 15 | 64)] {
        driver.ram.put(0x4000, &request(3, START + BLOCK, 1)).unwrap();
        driver.offer(&[(0x4000, 24, false), (START + gpa, 10, true)]);
        driver.serve();
        assert_eq!(driver.get(STATUS), status, "{gpa:#x}");
        driver.bring_up();
    }
    // Nor do its rings lie there.
    for (gpa, status) in [(BLOCK, 15), (3 * BLOCK, 15 | 64)] {
        driver.set(STATUS, 0);
        for step in [1, 3] {
            driver.set(STATUS, step);
        }
        driver.set(0x24, 1);
        driver.set(0x20, 1);
        driver.set(STATUS, 11);
        for (offset, value) in [(0x38, 8), (0x84, 1), (0x90, 0x2000), (0xA0, 0x3000), (0x80, gpa), (0x44, 1)]
        {
            driver.set(offset, u32::try_from(value).unwrap());
        }
        driver.set(STATUS, 15);
        assert_eq!(driver.get(STATUS), status, "{gpa:#x}");
    }
}
