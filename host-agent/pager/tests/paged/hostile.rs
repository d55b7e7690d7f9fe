//! The test in the place of a VMM that its guest has taken over, against a real pager, which goes on serving others and keeps
//! nothing of it.

use crate::harness::{Harness, pair};
use crate::keeper::{check, taken};
use rustix::fd::{AsFd, OwnedFd};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use warren_chunks::Name;
use warren_pager::{Manner, packet};
use warren_vmm::ram::Ram;
use warren_vmm::sys::userfault::Userfault;
use warren_vmm_protocol::pager::{Offer, PACKET_MAX, PAGER_VERSION, Region, encode};

const MIB: u64 = 1 << 20;

fn userfault() -> Userfault {
    let device = File::options().read(true).write(true).open("/dev/userfaultfd").unwrap();
    Userfault::new(device.as_fd()).unwrap()
}

fn offer(regions: &[(u64, u64, u64)]) -> Vec<u8> {
    let region = |&(image, host, len): &(u64, u64, u64)| Region { image, host, len };
    encode(&Offer { version: PAGER_VERSION, regions: regions.iter().map(region).collect() }).unwrap()
}

/// What the pager says of a VMM that sends these and then reads.
fn said(harness: &Harness, name: Name, packets: &[(&[u8], &[&OwnedFd])]) -> String {
    let (ours, theirs) = pair();
    let id = harness.serve(name, Manner::SERVE, &ours);
    drop(ours);
    for (bytes, descriptors) in packets {
        let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        // It may have hung up already.
        let _ = packet::send(&theirs, bytes, &borrowed);
    }
    if packets.is_empty() {
        drop(theirs);
        return harness.over(id);
    }
    let why = harness.over(id);
    // Its last word, and then the end: never nothing.
    while !matches!(packet::receive(&theirs, PACKET_MAX), Ok(None)) {}
    why
}

/// Threads and descriptors of the pager.
fn held(harness: &Harness) -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", harness.pager.id())).unwrap().count();
    (count("task"), count("fd"))
}

#[test]
fn nothing_of_a_hostile_vmm_stays() {
    needs!();
    let (harness, (snapshot, code)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let (pipe, _write) = rustix::pipe::pipe().unwrap();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let (real, ram) = (userfault(), Ram::detached(0, 8 * MIB).unwrap());
    let host = ram.page(&real, 0, 2 * MIB).unwrap();
    let real = real.as_fd().try_clone_to_owned().unwrap();
    let stream = OwnedFd::from(stream);
    let long = vec![0; PACKET_MAX + 1];
    let good = offer(&[(0, host, MIB)]);
    let (huge, over) = (offer(&[(0, host, !4095)]), offer(&[(0, host, MIB), (MIB, host, MIB)]));
    let old = encode(&Offer { version: 0, regions: Vec::new() }).unwrap();
    let both: &[(&[u8], &[&OwnedFd])] = &[(&good, &[&real]), (b"more", &[])];
    let mut before = None;
    for round in 0..20 {
        for (packets, words) in [
            (&[][..], "hung up"),
            (&[(&b"\xFF\xFF\xFF"[..], &[&real][..])], "breaks the protocol"),
            (&[(&good[..], &[])], "breaks the protocol"),
            (&[(&good, &[&real, &real])], "breaks the protocol"),
            (&[(&long, &[&real])], "larger than any"),
            (&[(&good, &[&real, &real, &real, &real])], "breaks the protocol"),
            (&[(&old, &[&real])], "version 0"),
            (&[(&huge, &[&real])], "outside of the image"),
            (&[(&over, &[&real])], "over each other"),
            (&[(&good, &[&memory])], "no userfaultfd"),
            (&[(&good, &[&pipe])], "no userfaultfd"),
            (&[(&good, &[&stream])], "no userfaultfd"),
            (both, "breaks the protocol"),
        ] {
            let why = said(&harness, name, packets);
            assert!(why.contains(words), "{why:?} lacks {words:?}");
        }
        // Threads end after they said why; what the runtime and the store need is there after the first round.
        if round == 0 {
            before = Some(settled(&harness, None));
        }
    }
    assert_eq!(settled(&harness, before), before.unwrap(), "threads and descriptors");
    let (vmm, _) = harness.restored(name, Manner::SERVE, &snapshot, &code);
    check(&mut vmm.invoke(), 0, 100_000);
}

/// Threads and descriptors once they are as many as expected, or stay as they are.
fn settled(harness: &Harness, expected: Option<(usize, usize)>) -> (usize, usize) {
    let mut seen = held(harness);
    for _ in 0..200 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let now = held(harness);
        if Some(now) == expected || (expected.is_none() && now == seen && now.0 < 8) {
            return now;
        }
        seen = now;
    }
    seen
}

#[test]
fn a_fault_that_was_not_offered_ends_it() {
    needs!();
    let (harness, (snapshot, _)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let userfault = userfault();
    let ram = Ram::detached(0, 8 * MIB).unwrap();
    let host = ram.page(&userfault, 0, 2 * MIB).unwrap();
    let (ours, theirs) = pair();
    let id = harness.serve(name, Manner::SERVE, &ours);
    drop(ours);
    // Two were registered, one is offered.
    packet::send(&theirs, &offer(&[(0, host, MIB)]), &[userfault.as_fd()]).unwrap();
    ram.get(0, &mut [0; 16]).unwrap();
    let other = ram.clone();
    // This one waits for ever, as a thread of such a VMM would; the process ends with the test.
    std::thread::spawn(move || other.get(MIB + 5, &mut [0; 16]));
    assert_eq!(harness.over(id), "a fault outside of the memory that was offered");
}

#[test]
fn whatever_it_offers_it_gets_its_own_image() {
    needs!();
    let (harness, (snapshot, _)) = (Harness::start(), taken());
    let name = harness.publish(&snapshot);
    let (userfault, ram) = (userfault(), Ram::detached(0, 8 * MIB).unwrap());
    let host = ram.page(&userfault, 0, MIB).unwrap();
    let (ours, theirs) = pair();
    harness.serve(name, Manner::RECORD, &ours);
    drop(ours);
    // The image's first page at the second place, and the other way round.
    let swapped = offer(&[(4096, host, 4096), (0, host + 4096, 4096)]);
    packet::send(&theirs, &swapped, &[userfault.as_fd()]).unwrap();
    let (mut first, mut second) = ([0; 4096], [0; 4096]);
    ram.get(0, &mut first).unwrap();
    ram.get(4096, &mut second).unwrap();
    let image = |page: u32| harness.page(name, page);
    assert!(first[..] == image(1)[..] && second[..] == image(0)[..]);
}
