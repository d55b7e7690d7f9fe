//! Streams: packets on the rings on one side, a socket on the other.

use super::super::vsock::{Happened, Token, Vsock};
use super::*;
use rustix::fd::AsFd;
use rustix::io::ioctl_fionbio;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use warren_devices::virtio::vsock::packet::{
    OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RST, OP_RW, OP_SHUTDOWN, SHUTDOWN_BOTH, SHUTDOWN_SEND,
    TYPE_STREAM,
};
use warren_devices::virtio::vsock::{EVENTS, HEADER_LEN, Header, RX, TX};
use warren_vmm_protocol::frame;
use warren_vmm_protocol::linux::{VsockRefusal, VsockReply};

pub(super) const CID: u32 = 9;
const PACKET: u64 = 0x8_0000;
const BUFFER: u64 = 0x9_0000;
const BUFFER_LEN: u32 = 1000;

/// Both ends of a socket: the test's, and the device's.
pub(super) fn pair() -> (UnixStream, UnixStream) {
    let (test, device) = UnixStream::pair().unwrap();
    for end in [&test, &device] {
        ioctl_fionbio(end.as_fd(), true).unwrap();
    }
    (test, device)
}

pub(super) fn driver() -> Driver<Vsock> {
    let vsock = Vsock::new(CID);
    Driver::new(vsock.identity(), vsock)
}

impl Driver<Vsock> {
    /// A packet to the host.
    fn send(&mut self, host: u32, guest: u32, op: u16, flags: u32, bytes: &[u8]) {
        let header = Header {
            src_cid: CID.into(),
            dst_cid: 2,
            src_port: guest,
            dst_port: host,
            len: u32::try_from(bytes.len()).unwrap(),
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc: 4096,
            fwd_cnt: 0,
        };
        self.ram.put(PACKET, &header.bytes()).unwrap();
        self.ram.put(PACKET + 0x100, bytes).unwrap();
        // The header in two pieces, the bytes in another.
        let mut pieces = vec![(PACKET, 20, false), (PACKET + 20, HEADER_LEN - 20, false)];
        pieces.extend((!bytes.is_empty()).then_some((PACKET + 0x100, header.len, false)));
        self.offer_at(TX, 0, &pieces);
        self.serve();
        assert_eq!(self.used(TX), self.made[TX]);
    }

    /// Gives one buffer: the packet that came in it, if one did.
    fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        // One buffer waits at most.
        if self.seen[RX] == self.made[RX] {
            self.offer_at(RX, 0, &[(BUFFER, 30, true), (BUFFER + 30, BUFFER_LEN - 30, true)]);
        }
        self.serve();
        if self.used(RX) == self.seen[RX] {
            return None;
        }
        self.seen[RX] += 1;
        let header = Header::read(&self.bytes(BUFFER, HEADER_LEN as usize).try_into().unwrap());
        assert_eq!((header.src_cid, header.dst_cid, header.kind), (2, CID.into(), TYPE_STREAM));
        assert_eq!(self.written(RX, self.made[RX] - 1), HEADER_LEN + header.len);
        Some((header, self.bytes(BUFFER + u64::from(HEADER_LEN), header.len as usize)))
    }

    fn expect(&mut self, op: u16) -> Header {
        let (header, _) = self.receive().expect("a packet");
        assert_eq!(header.op, op, "{header:?}");
        header
    }

    fn happened(&mut self, token: Token, readable: bool, hung_up: bool) {
        self.front.happened(token, Happened { readable, writable: true, hung_up });
        self.serve();
    }

    /// A stream that the host asked for, open.
    fn open(&mut self, token: Token) -> (UnixStream, u32) {
        let (mut test, device) = pair();
        self.front.connect(token, 80, device);
        let request = self.expect(OP_REQUEST);
        assert_eq!(request.dst_port, 80);
        self.send(request.src_port, 80, OP_RESPONSE, 0, &[]);
        assert_eq!(reply(&mut test), Some(VsockReply::Connected));
        (test, request.src_port)
    }
}

fn reply(stream: &mut UnixStream) -> Option<VsockReply> {
    let mut prefix = [0; frame::PREFIX];
    stream.read_exact(&mut prefix).ok()?;
    let mut body = vec![0; frame::read_len(prefix).unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(frame::decode(&body).unwrap())
}

/// Everything that came, and whether it ended.
fn came(stream: &mut UnixStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => (bytes, false),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let mut token = 0;
    three_times(&mut driver(), |driver| {
        token += 1;
        let (mut test, host) = driver.open(token);
        driver.send(host, 80, OP_RW, 0, b"from the guest");
        assert_eq!(came(&mut test), (b"from the guest".to_vec(), false));
        test.write_all(&[7; 2000]).unwrap();
        driver.happened(token, true, false);
        let room = (BUFFER_LEN - HEADER_LEN) as usize;
        assert_eq!(driver.receive().unwrap().1, vec![7; room]);
        assert_eq!(driver.receive().unwrap().1, vec![7; room]);
        assert_eq!(driver.receive().unwrap().1, vec![7; 2000 - 2 * room]);
        assert_eq!(driver.receive(), None);
        driver.send(host, 80, OP_SHUTDOWN, SHUTDOWN_SEND, &[]);
        assert_eq!(came(&mut test), (vec![], true));
        test.write_all(b"more").unwrap();
        test.shutdown(Shutdown::Write).unwrap();
        driver.happened(token, true, false);
        assert_eq!(driver.receive().unwrap().1, b"more");
        assert_eq!(driver.expect(OP_SHUTDOWN).flags, SHUTDOWN_SEND);
        driver.send(host, 80, OP_SHUTDOWN, SHUTDOWN_BOTH, &[]);
        driver.expect(OP_RST);
        assert_eq!(driver.receive(), None);
    });
}

#[test]
fn what_the_socket_does_not_take_is_kept_and_no_more() {
    let mut driver = driver();
    driver.bring_up();
    let (mut test, host) = driver.open(1);
    // Until the socket is full and the room behind it as well: the connection is broken by one byte more.
    let piece = vec![3; 32_000];
    let mut sent = 0;
    loop {
        driver.send(host, 80, OP_RW, 0, &piece);
        match driver.receive() {
            None | Some((Header { op: OP_CREDIT_UPDATE, .. }, _)) => sent += piece.len(),
            Some((Header { op: OP_RST, .. }, _)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(sent > 64_000, "{sent}");
    let (bytes, ended) = came(&mut test);
    assert!(ended && bytes.len() < sent && bytes.iter().all(|byte| *byte == 3));

    // A slow reader gets everything.
    let (mut test, host) = driver.open(2);
    let (mut sent, mut got) = (0, 0);
    while sent < 300_000 {
        driver.send(host, 80, OP_RW, 0, &piece[..10_000]);
        sent += 10_000;
        while driver.receive().is_some() {}
        if sent % 50_000 == 0 {
            got += came(&mut test).0.len();
            driver.happened(2, false, false);
        }
    }
    got += came(&mut test).0.len();
    driver.happened(2, false, false);
    assert_eq!(got + came(&mut test).0.len(), sent);
}

#[test]
fn refusals_and_ends_are_told() {
    let mut driver = driver();
    driver.bring_up();
    // Asked for, refused.
    let (mut test, device) = pair();
    driver.front.connect(1, 80, device);
    let request = driver.expect(OP_REQUEST);
    driver.send(request.src_port, 80, OP_RST, 0, &[]);
    let why = VsockRefusal::NotListening;
    assert_eq!(reply(&mut test), Some(VsockReply::Refused { why }));
    assert_eq!(came(&mut test), (vec![], true));
    // The host goes.
    let (test, host) = driver.open(2);
    drop(test);
    driver.happened(2, true, true);
    let mut flags = 0;
    while let Some((header, _)) = driver.receive() {
        assert_eq!(header.op, OP_SHUTDOWN);
        flags |= header.flags;
    }
    assert_eq!(flags, SHUTDOWN_BOTH);
    driver.send(host, 80, OP_RST, 0, &[]);
    // The guest goes.
    let (mut test, host) = driver.open(3);
    driver.send(host, 80, OP_RST, 0, &[]);
    assert_eq!(came(&mut test), (vec![], true));
    // The driver goes; who still waits is asked for again.
    let (mut test, _) = driver.open(4);
    let (mut waits, device) = pair();
    driver.front.connect(5, 81, device);
    driver.expect(OP_REQUEST);
    driver.bring_up();
    driver.serve();
    assert_eq!(came(&mut test), (vec![], true));
    let request = driver.expect(OP_REQUEST);
    driver.send(request.src_port, 81, OP_RESPONSE, 0, &[]);
    assert_eq!(reply(&mut waits), Some(VsockReply::Connected));
}

#[test]
fn the_guest_connects_where_somebody_is_parked() {
    let mut driver = driver();
    three_times(&mut driver, |driver| {
        driver.send(77, 5, OP_REQUEST, 0, &[]);
        driver.expect(OP_RST);
        let (mut first, device) = pair();
        driver.front.park(1, 77, device);
        let (second, device) = pair();
        driver.front.park(2, 77, device);
        assert_eq!(reply(&mut first), Some(VsockReply::Parked));
        drop(second);
        driver.happened(2, true, true);
        driver.send(77, 5, OP_REQUEST, 0, &[]);
        driver.expect(OP_RESPONSE);
        assert_eq!(reply(&mut first), Some(VsockReply::Connected));
        driver.send(77, 6, OP_REQUEST, 0, &[]);
        driver.expect(OP_RST);
    });
}

#[test]
fn a_lost_transport_is_told_by_an_event() {
    let mut driver = driver();
    driver.bring_up();
    let (mut test, _) = driver.open(1);
    driver.ram.put(0x7000, &[0xFF; 8]).unwrap();
    driver.offer_at(EVENTS, 0, &[(0x7000, 8, true)]);
    driver.serve();
    assert_eq!(driver.used(EVENTS), 0);
    driver.front.interrupt();
    driver.serve();
    assert_eq!((driver.used(EVENTS), driver.written(EVENTS, 0)), (1, 4));
    assert_eq!(driver.bytes(0x7000, 5), [0, 0, 0, 0, 0xFF]);
    assert_eq!(came(&mut test), (vec![], true));
    // No packet goes either way before the driver has heard of it, which it says by giving the buffer back.
    let (_host, device) = pair();
    driver.front.connect(9, 80, device);
    assert!(driver.receive().is_none());
    driver.offer_at(EVENTS, 0, &[(0x7000, 8, true)]);
    driver.expect(OP_REQUEST);
}

#[test]
fn buffers_and_packets_of_no_shape_stop_the_device() {
    for (queue, pieces) in [(TX, &[(PACKET, 43, false)][..]), (RX, &[(BUFFER, 44, true)])] {
        let mut driver = driver();
        driver.bring_up();
        driver.front.connect(1, 80, pair().1);
        driver.offer_at(queue, 0, pieces);
        driver.serve();
        assert_eq!(driver.get(STATUS), 15 | 64, "{queue}");
    }
}
