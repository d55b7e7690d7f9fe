//! Streams between this host and a stock guest: the probe inside (`guest-probe`) does as each stream's first byte says.

use super::POWERED_OFF;
use super::support;
use super::support::linux::{Guest, Running, guests};
use super::support::vmm::{receive, try_receive};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use warren_vmm_protocol::Role;
use warren_vmm_protocol::linux::{VsockRefusal, VsockReply};

/// Where the probe listens.
const PROBE: u32 = 1000;
/// More than all buffers on the way hold.
const MUCH: u64 = 3 << 20;

fn pattern(from: u64, to: u64) -> Vec<u8> {
    (from..to).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect()
}

/// Count and FNV-1a, as the probe answers them.
fn sum(bytes: &[u8]) -> Vec<u8> {
    let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
    let sum = bytes.iter().fold(0xCBF2_9CE4_8422_2325, fold);
    [(bytes.len() as u64).to_le_bytes(), sum.to_le_bytes()].concat()
}

/// A guest with the probe, up to its end.
pub(crate) fn with_probe(kernel: &str, script: &str, lines: &[&str], case: impl FnOnce(&Running)) {
    if !support::has_kvm() {
        return;
    }
    let Some(folder) = guests() else { return };
    let running = Guest::with_probe(&folder, kernel, script).start();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&running)));
    if let Err(panic) = done {
        println!("{}", running.kill().log);
        std::panic::resume_unwind(panic);
    }
    running
        .end()
        .with(POWERED_OFF, &["console: guest-probe: listening", "end: powered-off"])
        .with(POWERED_OFF, lines);
}

/// A stream to the probe. It may have to be asked for more than once: the probe is slower than the driver.
pub(crate) fn stream(running: &Running, request: &[u8]) -> UnixStream {
    loop {
        let mut stream = running.vmm.connect(Role::Vsock { port: PROBE });
        match receive(&mut stream) {
            VsockReply::Connected => {
                stream.write_all(request).unwrap();
                return stream;
            }
            VsockReply::Refused { why: VsockRefusal::NotListening } => {}
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn park(running: &Running, port: u32) -> UnixStream {
    let mut stream = running.vmm.connect(Role::VsockAccept { port });
    assert_eq!(receive::<VsockReply>(&mut stream), VsockReply::Parked);
    stream
}

fn request(what: u8, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![what];
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

fn rest(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn same(came: &[u8], expect: &[u8]) {
    let differs = came.iter().zip(expect).position(|(a, b)| a != b);
    assert!(came == expect, "{} bytes of {}, the first that differs: {differs:?}", came.len(), expect.len());
}

/// Bytes both ways on several streams at once, each way ended by itself.
fn echoes(running: &Running) {
    std::thread::scope(|scope| {
        for number in 0..6_u64 {
            scope.spawn(move || {
                let stream = stream(running, b"e");
                let bytes = pattern(number, number + 300_000);
                let mut writer = stream.try_clone().unwrap();
                let back = std::thread::scope(|scope| {
                    let sent = &bytes;
                    scope.spawn(move || {
                        writer.write_all(sent).unwrap();
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    rest(&stream)
                });
                same(&back, &bytes);
            });
        }
    });
}

/// A guest that reads nothing stops the host, and a host that reads nothing stops the guest; nothing is lost.
fn slow_readers(running: &Running) {
    let mut to_guest = stream(running, b"w");
    to_guest.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let bytes = pattern(0, MUCH);
    loop {
        match to_guest.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..bytes.len()).contains(&sent), "{sent} bytes went to a guest that reads none");
    let to_host = stream(running, &request(b't', &[MUCH]));
    let stuck = u64::from_le_bytes(rest(&stream(running, b"b")).try_into().unwrap());
    assert!((1..MUCH).contains(&stuck), "the guest sent {stuck} bytes to a host that reads none");
    // Others are not stopped by these two.
    echoes(running);
    drop(stream(running, b"g"));
    same(&rest(&to_host), &bytes);
    to_guest.set_nonblocking(false).unwrap();
    to_guest.write_all(&bytes[sent..]).unwrap();
    to_guest.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&to_guest), sum(&bytes));
}

/// The guest connects to the host, where somebody waits or not.
fn from_the_guest(running: &Running) {
    let mut parked: Vec<_> = (0..3).map(|_| park(running, 77)).collect();
    // Who goes away while parked is not given a stream.
    drop(parked.remove(0));
    let bytes = pattern(0, 200_000);
    for mut host in parked {
        let asked = stream(running, &request(b'c', &[77, 200_000]));
        assert_eq!(receive::<VsockReply>(&mut host), VsockReply::Connected);
        same(&rest(&host), &bytes);
        host.write_all(&bytes[..5000]).unwrap();
        drop(host);
        assert_eq!(rest(&asked), sum(&bytes[..5000]));
    }
    let refused = rest(&stream(running, &request(b'c', &[77, 10])));
    assert!(String::from_utf8_lossy(&refused).contains("reset"), "{:?}", String::from_utf8_lossy(&refused));
}

/// An end that goes away is noticed at the other.
fn far_ends_that_go(running: &Running) {
    let gone = stream(running, b"r");
    drop(gone);
    let error = u64::from_le_bytes(rest(&stream(running, b"b")).try_into().unwrap());
    assert!(
        [libc::EPIPE, libc::ECONNRESET, libc::ENOTCONN].map(|e| u64::from(e.unsigned_abs())).contains(&error),
        "{error}"
    );
    let mut nobody = running.vmm.connect(Role::Vsock { port: 9999 });
    let why = VsockRefusal::NotListening;
    assert_eq!(receive::<VsockReply>(&mut nobody), VsockReply::Refused { why });
    assert_eq!(try_receive::<VsockReply>(&mut nobody), None);
    let echo = stream(running, b"e");
    drop(stream(running, b"x"));
    assert!(rest(&echo).is_empty());
}

fn everything(running: &Running) {
    let source = stream(running, &request(b's', &[MUCH]));
    same(&rest(&source), &pattern(0, MUCH));
    echoes(running);
    slow_readers(running);
    from_the_guest(running);
    far_ends_that_go(running);
}

#[test]
fn streams_with_6_1() {
    with_probe("6.1", "/tmp/probe", &[], everything);
}

#[test]
fn streams_with_6_12_and_again_after_the_driver_came_back() {
    let script = "
        /tmp/probe
        cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport
        for device in virtio*; do echo $device > unbind; echo $device > bind; done
        echo bound again
        /tmp/probe 1000 78";
    with_probe("6.12", script, &[], |running| {
        // Who waits for the guest waits for its next driver as well.
        let mut listens_again = park(running, 78);
        everything(running);
        assert_eq!(receive::<VsockReply>(&mut listens_again), VsockReply::Connected);
        everything(running);
    });
}
