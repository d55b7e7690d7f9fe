//! Disks and entropy.

use super::super::block::Block;
use super::super::overlay::Under;
use super::super::rng::Rng;
use super::*;
use crate::linux::load::Base;
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use warren_devices::rate::{Limits, Rate};

impl Driver<Block> {
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
}

/// A disk of `sectors`, each filled with its number.
pub(super) fn disk(sectors: u8, read_only: bool) -> (Driver<Block>, std::fs::File) {
    limited_disk(sectors, read_only, Limits::default())
}

fn limited_disk(sectors: u8, read_only: bool, limits: Limits) -> (Driver<Block>, std::fs::File) {
    let mut file = std::fs::File::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap());
    let bytes: Vec<u8> = (0..sectors).flat_map(|sector| [sector; 512]).collect();
    file.write_all(&bytes).unwrap();
    let other = file.try_clone().unwrap();
    let block = Block::new("disk".into(), OwnedFd::from(file), bytes.len() as u64, read_only, limits);
    (Driver::new(block.identity(), block), other)
}

pub(super) fn contents(file: &mut std::fs::File) -> Vec<u8> {
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
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

/// What is read is the base until it is written, forgotten or zeroed; the base stays as it is, and the file counts only where it was
/// written.
#[test]
fn a_disk_over_a_base_reads_what_was_written_last() {
    let (base, mut file) = (disk(64, false).1, disk(64, false).1);
    file.write_all_at(&vec![0xEE; 64 * 512], 0).unwrap();
    let under = Under::new(Base::File(base.try_clone().unwrap().into()), 64 * 512).unwrap();
    let other = file.try_clone().unwrap();
    let block = Block::new("disk".into(), other.into(), 64 * 512, false, Limits::default()).over(Some(under));
    let mut driver = Driver::new(block.identity(), block);
    driver.bring_up();
    let first = driver.written_down();
    let mut model: Vec<u8> = (0..64).flat_map(|sector| [sector; 512]).collect();
    for (kind, sector, flags) in [(13, 8_u64, 0_u32), (13, 24, 1), (11, 40, 0)] {
        let extent = [&sector.to_le_bytes()[..], &8_u32.to_le_bytes(), &flags.to_le_bytes()].concat();
        driver.ram.put(0x7000, &extent).unwrap();
        assert_eq!(driver.block(kind, 0, &[(0x7000, 16, false)]), 0, "{kind}");
        let at = usize::try_from(sector).unwrap() * 512;
        model[at..at + 4096].fill(0);
    }
    for sector in [0_u64, 9, 39, 63] {
        driver.ram.put(0x7000, &[0xAA; 512]).unwrap();
        assert_eq!(driver.block(1, sector, &[(0x7000, 200, false), (0x7100, 312, false)]), 0);
        let at = usize::try_from(sector).unwrap() * 512;
        model[at..at + 200].fill(0xAA);
        // What stood behind the first piece in memory.
        let second = driver.bytes(0x7100, 312);
        model[at + 200..at + 512].copy_from_slice(&second);
    }
    // In pieces of the guest's that end where no sector does.
    assert_eq!(driver.block(0, 0, &[(0x8000, 777, true), (0x9000, 8192 - 777, true)]), 0);
    assert_eq!([driver.bytes(0x8000, 777), driver.bytes(0x9000, 8192 - 777)].concat(), model[..8192]);
    for sector in 0..64_u64 {
        assert_eq!(driver.block(0, sector, &[(0x8000, 512, true)]), 0);
        let at = usize::try_from(sector).unwrap() * 512;
        assert_eq!(driver.bytes(0x8000, 512), model[at..at + 512], "{sector}");
    }
    let (mut base, untouched) = (base, contents(&mut disk(64, false).1));
    assert_eq!(contents(&mut base), untouched);
    assert_eq!(contents(&mut file)[512], 0xEE, "what was never written is not looked at");
    // Put back: what was written since is nowhere, and it is a disk as before.
    for byte in [1, 2] {
        driver.put_back(&first);
        assert_eq!(contents(&mut file), vec![0; 64 * 512]);
        assert_eq!(driver.block(0, 0, &[(0x8000, 64 * 512, true)]), 0);
        assert_eq!(driver.bytes(0x8000, 64 * 512), untouched);
        driver.ram.put(0x7000, &[byte; 512]).unwrap();
        assert_eq!(driver.block(1, 5, &[(0x7000, 512, false)]), 0);
        assert_eq!(driver.block(0, 5, &[(0x8000, 512, true)]), 0);
        assert_eq!(driver.bytes(0x8000, 512), [byte; 512]);
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
    let mut driver = Driver::new(Rng::identity(), Rng);
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

#[test]
fn a_limit_holds_requests_back_and_says_until_when() {
    let bytes = Some(Rate { burst: 1024, per_second: 1 });
    let (mut driver, _file) = limited_disk(16, false, Limits { bytes, operations: None });
    driver.bring_up();
    assert_eq!(driver.block(0, 0, &[(0x5000, 1024, true)]), 0);
    driver.offer(&[(0x4000, 16, false), (0x5000, 512, true), (0x4100, 1, true)]);
    let wake = driver.device.serve(0, &mut driver.front).unwrap();
    assert!(driver.used(0) == 1 && wake > monotonic_ns());
    // Held back is not lost: a reset takes it, like any other.
    driver.bring_up();
    assert_eq!(driver.device.serve(0, &mut driver.front), Some(wake), "a reset is no way around a limit");
}

/// A disk that held nothing may hold something in another life, and its driver hears of it; any other is what it was.
#[test]
fn an_empty_disk_may_be_filled_in_another_life() {
    const CONFIG: u64 = 0x100;
    let size = |device: &Device| {
        let (mut sectors, mut generation) = ([0; 8], [0; 4]);
        device.read(CONFIG, &mut sectors);
        device.read(0xFC, &mut generation);
        (u64::from_le_bytes(sectors), u32::from_le_bytes(generation))
    };
    let life = |driver: &Driver<Block>, sectors: u8| {
        let (next, _file) = disk(sectors, true);
        let (lines, count) = counted(1);
        let bells = vec![EventFd::new(libc::EFD_NONBLOCK).unwrap()];
        let identity = next.identity.clone();
        let device = Device::new("next".into(), identity, lines.line(0), bells, driver.ram.clone());
        (device.resume(&driver.device.state()), device, next, count)
    };
    let (mut driver, _file) = disk(0, true);
    for is_live in [false, true] {
        if is_live {
            driver.bring_up();
            assert_eq!(driver.block(0, 0, &[(0x5000, 512, true)]), 1, "there is nothing on it");
        }
        let before = size(&driver.device);
        assert!(driver.device.come_to_rest(u64::MAX));
        let (resumed, device, next, count) = life(&driver, 16);
        resumed.unwrap();
        assert_eq!(size(&device), (16, before.1 + 1));
        assert_eq!(count.0.load(Ordering::SeqCst), 0, "before its vCPUs have their registers");
        device.tell_news();
        device.tell_news();
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            usize::from(is_live),
            "told once, of a driver that is there"
        );
        if is_live {
            (driver.device, driver.front) = (Arc::new(device), next.front);
            assert_eq!(driver.get(0x60), 2, "its configuration is another");
            driver.set(0x64, 2);
            assert_eq!(driver.block(0, 3, &[(0x5000, 512, true)]), 0);
            assert_eq!(driver.bytes(0x5000, 512), vec![3; 512]);
        }
        driver.device.go_on();
    }
    // It has shown its guest something by now.
    assert!(driver.device.come_to_rest(u64::MAX));
    for sectors in [0, 8, 17] {
        assert!(matches!(life(&driver, sectors).0, Err(state::ResumeError::Configuration)));
    }
    let (resumed, device, ..) = life(&driver, 16);
    resumed.unwrap();
    assert_eq!(size(&device).0, 16);
}
