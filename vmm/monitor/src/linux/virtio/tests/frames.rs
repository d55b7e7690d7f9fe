//! A network card whose tap is a socket that keeps frames apart.

use super::super::net::Net;
use super::*;
use rustix::io::ioctl_fionbio;
use std::os::unix::net::UnixDatagram;
use warren_devices::rate::{Limits, Rate};
use warren_devices::virtio::net::{
    F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_HOST_TSO4, F_MRG_RXBUF, HEADER_LEN, RX, TX,
};

const FRAME: u64 = 0x8_0000;
const BUFFERS: u64 = 0x9_0000;

pub(super) fn card(features: u64, receive: Limits) -> (Driver<Net>, UnixDatagram) {
    let (test, tap) = UnixDatagram::pair().unwrap();
    ioctl_fionbio(&tap, true).unwrap();
    ioctl_fionbio(&test, true).unwrap();
    let net = Net::new(tap.into(), [2, 0, 0, 0, 0, 1], receive, Limits::default());
    let mut driver = Driver::new(net.identity(), net);
    driver.features |= features;
    (driver, test)
}

impl Driver<Net> {
    /// A frame to the host.
    fn send(&mut self, header: [u8; 12], frame: &[u8]) {
        self.ram.put(FRAME, &header).unwrap();
        self.ram.put(FRAME + 12, frame).unwrap();
        let len = u32::try_from(frame.len()).unwrap();
        // The header ends in the middle of a piece.
        self.offer_at(
            TX,
            0,
            &[
                (FRAME, 5, false),
                (FRAME + 5, 7 + len / 2, false),
                (FRAME + 12 + u64::from(len / 2), len - len / 2, false),
            ],
        );
        self.serve();
        assert_eq!(self.used(TX), self.made[TX]);
    }

    /// A buffer of its own for each of some frames to come.
    fn buffers(&mut self, count: u16, len: u32) {
        for _ in 0..count {
            let at = self.made[RX] % SIZE;
            self.offer_at(RX, at, &[(BUFFERS + u64::from(at) * 0x2000, len, true)]);
        }
        self.serve();
    }

    fn frame_in(&self, number: u16) -> Vec<u8> {
        self.bytes(BUFFERS + u64::from(number % SIZE) * 0x2000, self.written(RX, number) as usize)
    }
}

fn received(test: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 70_000];
    let len = test.recv(&mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

#[test]
fn frames_go_out_behind_a_header_that_was_judged() {
    let (mut driver, test) = card(F_CSUM | F_HOST_TSO4, Limits::default());
    three_times(&mut driver, |driver| {
        let frame: Vec<u8> = (0..200).collect();
        driver.send([0; 12], &frame);
        assert_eq!(received(&test), Some([&[0; 12][..], &frame].concat()));
        let tcp = [1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0];
        driver.send(tcp, &frame);
        assert_eq!(received(&test), Some([&tcp[..], &frame].concat()));
        // Not agreed, beyond the frame, too short: dropped, and the card goes on.
        driver.send([1, 4, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0], &frame);
        driver.send([1, 0, 0, 0, 0, 0, 250, 0, 16, 0, 0, 0], &frame);
        driver.send([0; 12], &frame[..13]);
        assert_eq!(received(&test), None);
        driver.send([0; 12], &frame);
        assert!(received(&test).is_some());
    });
}

#[test]
fn frames_come_in_one_buffer_or_in_several() {
    let (mut driver, test) = card(0, Limits::default());
    three_times(&mut driver, |driver| {
        test.send(&[5; 100]).unwrap();
        driver.front.readable();
        driver.buffers(2, 1526);
        assert_eq!(driver.used(RX), 1);
        let frame = driver.frame_in(0);
        assert_eq!((frame.len(), &frame[10..12], frame[12]), (100, &[1, 0][..], 5));
    });
    let (mut driver, test) = card(F_GUEST_CSUM | F_GUEST_TSO4 | F_MRG_RXBUF, Limits::default());
    three_times(&mut driver, |driver| {
        let bytes: Vec<u8> = (0..9000_u32).map(|at| at.to_le_bytes()[0]).collect();
        test.send(&bytes).unwrap();
        driver.front.readable();
        driver.buffers(3, 0x1000);
        assert_eq!(driver.used(RX), 0, "the largest frame has no room yet");
        driver.buffers(5, 0x1000);
        assert_eq!(driver.used(RX), 3);
        let frame: Vec<u8> = (0..3).flat_map(|number| driver.frame_in(number)).collect();
        assert_eq!((frame.len(), &frame[10..12]), (9000, &[3, 0][..]));
        assert!(frame[12..] == bytes[12..]);
        // What the frame left is there for the next.
        test.send(&[6; 50]).unwrap();
        driver.front.readable();
        driver.buffers(3, 0x1000);
        assert_eq!((driver.used(RX), driver.frame_in(3).len()), (4, 50));
    });
}

#[test]
fn a_limit_holds_frames_back_and_says_until_when() {
    let operations = Some(Rate { burst: 2, per_second: 1 });
    let (mut driver, test) = card(0, Limits { bytes: None, operations });
    driver.bring_up();
    for _ in 0..5 {
        test.send(&[5; 100]).unwrap();
    }
    driver.front.readable();
    driver.buffers(8, 1526);
    assert_eq!(driver.used(RX), 2);
    let wake = driver.front.wake_ns().unwrap();
    assert!(wake > monotonic_ns());
}

#[test]
fn buffers_of_no_shape_stop_the_card() {
    for (features, len) in [(0, 1525), (F_MRG_RXBUF, HEADER_LEN - 1), (F_GUEST_CSUM | F_GUEST_TSO4, 65_000)] {
        let (mut driver, test) = card(features, Limits::default());
        driver.bring_up();
        test.send(&[5; 100]).unwrap();
        driver.offer_at(RX, 0, &[(BUFFERS, len, true)]);
        driver.serve();
        assert_eq!(driver.get(STATUS), 15 | 64, "{features:#x} {len}");
    }
}
