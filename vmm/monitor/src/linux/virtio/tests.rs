//! A driver in a few lines against whole devices: registers, rings, files. Each case runs three times: fresh, after a
//! reset, and after a reset in the middle of it.

use super::block::Block;
use super::rng::Rng;
use super::*;
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use std::io::{Read, Seek, Write};
use warren_devices::virtio::{F_EVENT_IDX, F_VERSION_1};

const STATUS: u64 = 0x70;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const SIZE: u16 = 8;

/// A driver of one device with one queue.
struct Driver {
    device: Device,
    backend: Box<dyn Backend>,
    ram: Ram,
    made: u16,
}

impl Driver {
    fn new(make: impl FnOnce() -> (Identity, Box<dyn Backend>)) -> Self {
        let ram = Ram::detached(0, 0x10_0000);
        let (identity, backend) = make();
        let bell = || EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let device = Device::new("test".into(), identity, bell(), vec![bell()], ram.clone());
        Self { device, backend, ram, made: 0 }
    }

    fn set(&self, offset: u64, value: u32) {
        self.device.write(offset, &value.to_le_bytes());
    }

    fn get(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.device.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn serve(&mut self) {
        self.device.serve(0, self.backend.as_mut());
    }

    fn bring_up(&mut self) {
        for area in [DESCRIPTORS, AVAILABLE, USED] {
            self.ram.put(area, &[0; 0x200]).unwrap();
        }
        self.made = 0;
        self.set(STATUS, 0);
        self.set(STATUS, 1);
        self.set(STATUS, 3);
        let features = F_VERSION_1 | F_EVENT_IDX;
        for half in [0, 1] {
            self.set(0x24, half);
            self.set(0x20, u32::try_from(features >> (32 * half) & 0xFFFF_FFFF).unwrap());
        }
        self.set(STATUS, 11);
        for (offset, value) in
            [(0x38, u64::from(SIZE)), (0x80, DESCRIPTORS), (0x90, AVAILABLE), (0xA0, USED), (0x44, 1)]
        {
            self.set(offset, u32::try_from(value).unwrap());
        }
        self.set(STATUS, 15);
        assert_eq!(self.get(STATUS), 15);
    }

    /// Makes a request available; pieces are address, length, and whether the device writes.
    fn offer(&mut self, pieces: &[(u64, u32, bool)]) {
        for (at, (gpa, len, write)) in (0_u16..).zip(pieces) {
            let last = usize::from(at) + 1 == pieces.len();
            let flags = if last { 0 } else { NEXT } | if *write { WRITE } else { 0 };
            let fields: [&[u8]; 4] =
                [&gpa.to_le_bytes(), &len.to_le_bytes(), &flags.to_le_bytes(), &(at + 1).to_le_bytes()];
            self.ram.put(DESCRIPTORS + u64::from(at) * 16, &fields.concat()).unwrap();
        }
        self.ram.put(AVAILABLE + 4 + u64::from(self.made % SIZE) * 2, &0_u16.to_le_bytes()).unwrap();
        // Told of the very next one (VIRTIO_F_EVENT_IDX).
        self.ram.put(AVAILABLE + 4 + u64::from(SIZE) * 2, &self.made.to_le_bytes()).unwrap();
        self.made += 1;
        self.ram.put(AVAILABLE + 2, &self.made.to_le_bytes()).unwrap();
    }

    /// Offers a request and lets the worker run: bytes that the device says it wrote.
    fn ask(&mut self, pieces: &[(u64, u32, bool)]) -> u32 {
        self.offer(pieces);
        self.serve();
        let mut index = [0; 2];
        self.ram.get(USED + 2, &mut index).unwrap();
        assert_eq!(u16::from_le_bytes(index), self.made, "the request came back");
        assert_eq!(self.get(0x60) & 1, 1, "and was told");
        self.set(0x64, 1);
        let mut len = [0; 4];
        self.ram.get(USED + 4 + u64::from((self.made - 1) % SIZE) * 8 + 4, &mut len).unwrap();
        u32::from_le_bytes(len)
    }

    /// A block request: its status.
    fn block(&mut self, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> u8 {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.ram.put(0x4000, &header).unwrap();
        self.ram.put(0x4100, &[0xFF]).unwrap();
        let pieces = [&[(0x4000, 16, false)][..], data, &[(0x4100, 1, true)]].concat();
        self.ask(&pieces);
        let mut status = [0];
        self.ram.get(0x4100, &mut status).unwrap();
        status[0]
    }

    fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.get(gpa, &mut bytes).unwrap();
        bytes
    }
}

/// A disk of `sectors`, each filled with its number.
fn disk(sectors: u8, read_only: bool) -> (Driver, std::fs::File) {
    let mut file = std::fs::File::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap());
    let bytes: Vec<u8> = (0..sectors).flat_map(|sector| [sector; 512]).collect();
    file.write_all(&bytes).unwrap();
    let other = file.try_clone().unwrap();
    let driver = Driver::new(|| {
        let block = Block::new("disk".into(), OwnedFd::from(file), bytes.len() as u64, read_only);
        (block.identity(), Box::new(block))
    });
    (driver, other)
}

fn contents(file: &mut std::fs::File) -> Vec<u8> {
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Fresh, after a reset, after a reset with a request on its way.
fn three_times(driver: &mut Driver, mut case: impl FnMut(&mut Driver)) {
    driver.bring_up();
    case(driver);
    driver.bring_up();
    case(driver);
    driver.offer(&[(0x4000, 16, false)]);
    driver.set(STATUS, 0);
    driver.serve();
    driver.bring_up();
    case(driver);
}

#[test]
fn a_disk_is_read_written_flushed_and_named() {
    let (mut driver, mut file) = disk(16, false);
    three_times(&mut driver, |driver| {
        assert_eq!(driver.block(0, 3, &[(0x5000, 256, true), (0x6000, 768, true)]), 0);
        assert_eq!((driver.bytes(0x5000, 256), driver.bytes(0x6000, 256)), (vec![3; 256], vec![3; 256]));
        assert_eq!(driver.bytes(0x6100, 512), vec![4; 512]);
        driver.ram.put(0x7000, &[0xAA; 1024]).unwrap();
        assert_eq!(driver.block(1, 10, &[(0x7000, 500, false), (0x7000, 524, false)]), 0);
        assert_eq!(driver.block(4, 0, &[]), 0);
        assert_eq!(driver.block(8, 0, &[(0x5000, 20, true)]), 0);
        assert_eq!(&driver.bytes(0x5000, 5), b"disk\0");
        assert_eq!(driver.block(99, 0, &[]), 2);
        assert_eq!(driver.block(0, 16, &[(0x5000, 512, true)]), 1);
    });
    let bytes = contents(&mut file);
    assert_eq!((bytes.len(), &bytes[5120..6144]), (16 * 512, &[0xAA; 1024][..]));
}

#[test]
fn extents_are_zeroed_and_forgotten() {
    let (mut driver, mut file) = disk(64, false);
    driver.bring_up();
    for (kind, sector, flags) in [(13, 8_u64, 0_u32), (13, 24, 1), (11, 40, 0)] {
        let extent = [&sector.to_le_bytes()[..], &8_u32.to_le_bytes(), &flags.to_le_bytes()].concat();
        driver.ram.put(0x7000, &extent).unwrap();
        assert_eq!(driver.block(kind, 0, &[(0x7000, 16, false)]), 0, "{kind}");
    }
    let bytes = contents(&mut file);
    for sector in [8, 24, 40_usize] {
        assert_eq!(bytes[sector * 512..(sector + 8) * 512], [0; 4096], "{sector}");
        assert_eq!(bytes[(sector + 8) * 512], u8::try_from(sector + 8).unwrap());
    }
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let (mut driver, mut file) = disk(16, true);
    let before = contents(&mut file);
    three_times(&mut driver, |driver| {
        assert_eq!(driver.block(1, 0, &[(0x7000, 512, false)]), 1);
        assert_eq!(driver.block(0, 1, &[(0x5000, 512, true)]), 0);
    });
    assert_eq!(contents(&mut file), before);
}

#[test]
fn a_disk_whose_file_shrinks_answers_errors() {
    let (mut driver, file) = disk(16, false);
    driver.bring_up();
    file.set_len(512).unwrap();
    assert_eq!(driver.block(0, 8, &[(0x5000, 512, true)]), 1);
    assert_eq!(driver.block(0, 0, &[(0x5000, 512, true)]), 0);
}

#[test]
fn entropy_fills_what_it_says() {
    let mut driver = Driver::new(|| (Rng::identity(), Box::new(Rng)));
    three_times(&mut driver, |driver| {
        driver.ram.put(0x5000, &[0; 64]).unwrap();
        assert_eq!(driver.ask(&[(0x5000, 32, true), (0x5020, 32, true)]), 64);
        assert_ne!(driver.bytes(0x5000, 32), vec![0; 32]);
        assert_ne!(driver.bytes(0x5000, 32), driver.bytes(0x5020, 32));
        assert_eq!(driver.ask(&[(0x8000, 0x8000, true)]), 4096);
    });
}

#[test]
fn a_broken_rule_stops_the_device_until_it_is_reset() {
    let (mut driver, _file) = disk(16, false);
    for pieces in
        [&[(0x4000, 16, false)][..], &[(0x4000, 15, false), (0x4100, 1, true)], &[(u64::MAX, 1, true)]]
    {
        driver.bring_up();
        driver.offer(pieces);
        driver.serve();
        assert_eq!(driver.get(STATUS), 15 | 64, "needs reset");
        assert_eq!(driver.get(0x60) & 2, 2, "and says so");
        driver.offer(&[(0x4000, 16, false), (0x4100, 1, true)]);
        driver.serve();
        assert_eq!(driver.bytes(USED + 2, 2), [0, 0], "it has stopped");
    }
    driver.bring_up();
    assert_eq!(driver.block(4, 0, &[]), 0);
}

#[test]
fn queues_outside_memory_stop_the_device_at_once() {
    let (mut driver, _file) = disk(16, false);
    driver.bring_up();
    driver.set(STATUS, 0);
    driver.set(STATUS, 1);
    driver.set(STATUS, 3);
    driver.set(0x24, 1);
    driver.set(0x20, 1);
    driver.set(STATUS, 11);
    for (offset, value) in [(0x38, 8), (0x84, 1), (0x90, 0x2000), (0xA0, 0x3000), (0x44, 1), (STATUS, 15)] {
        driver.set(offset, value);
    }
    assert_eq!(driver.get(STATUS), 15 | 64);
}
