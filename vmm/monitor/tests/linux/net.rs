//! A stock guest's network card: its peer is a thread in a network namespace of its own.

use super::support::linux::{Bring, Guest, guests};
use super::support::tap::{GUEST, HOST, Peer};
use super::{POWERED_OFF, soak, support};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use warren_vmm_protocol::linux::{DeviceSpec, Limits, Rate};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const MUCH: usize = 2 << 20;

fn pattern() -> Vec<u8> {
    (0..MUCH as u64).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect()
}

/// Takes what the guest sends, checks it, and gives it back; so many times.
fn peer(times: usize) {
    let listener = TcpListener::bind((HOST, 5001)).unwrap();
    for _ in 0..times {
        let (mut stream, from) = listener.accept().unwrap();
        assert_eq!(from.ip().to_string(), GUEST);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert!(bytes == pattern(), "{} bytes came", bytes.len());
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// What a guest does with its card; `ethN` may have another name after its driver came back.
const USE: &str = "
    use_card() {
        card=$(b ls /sys/class/net | b grep -v lo)
        echo card $card $(b cat /sys/class/net/$card/address)
        b ip addr add 10.77.0.2/24 dev $card; b ip link set $card up
        b ping -q -c 3 -s 1400 10.77.0.1 | b grep -q '3 packets received' && echo pinged
        /tmp/probe tcp 10.77.0.1:5001 /dev/vdd /tmp/back
        b cmp /tmp/back /dev/vdd && echo the same came back
        echo frames $(b cat /sys/class/net/$card/statistics/rx_packets) $(b cat /sys/class/net/$card/statistics/tx_packets)
    }";

fn limits(bytes: Option<u64>) -> Limits {
    Limits { bytes: bytes.map(|per_second| Rate { burst: 65536, per_second }), operations: None }
}

/// Runs a script; the log.
fn with_card(kernel: &str, script: &str, times: usize, send: Limits) -> Option<String> {
    with_card_from(None, kernel, script, times, send)
}

/// The same, written down at a point and brought back, in which way.
fn with_card_from(
    point: Option<(&'static str, Bring)>,
    kernel: &str,
    script: &str,
    times: usize,
    send: Limits,
) -> Option<String> {
    if !support::has_kvm() {
        return None;
    }
    let folder = guests()?;
    let peer = Peer::start(&folder.join("tun.ko"), move || peer(times));
    let mut guest = Guest::with_probe(&folder, kernel, &format!("{USE}\n{script}"));
    guest.disks.push((support::vmm::memfd(&pattern()), true));
    let device = DeviceSpec::Net { mac: MAC, receive: limits(None), send };
    if let Some((point, bring)) = point {
        (guest.point, guest.bring) = (Some(point), bring);
    }
    guest.card = Some((peer.tap.try_clone().unwrap(), device));
    let ended = guest.run();
    ended.with(POWERED_OFF, &["console: pinged", "console: the same came back", "end: powered-off"]);
    assert!(ended.log.contains("02:00:00:00:00:07"), "{}", ended.log);
    peer.end();
    Some(ended.log)
}

#[test]
fn a_card_of_6_1_pings_and_moves_large_segments() {
    let Some(log) = with_card("6.1", "use_card", 1, limits(None)) else { return };
    let frames = log.split_once("console: frames ").unwrap().1.lines().next().unwrap();
    // Segments larger than the wire's, both ways: those alone would be more, without a single acknowledgement. How much
    // fewer there are depends on how fast the machine is.
    for count in frames.split(' ') {
        let count: usize = count.parse().unwrap();
        assert!(count < MUCH / 1448, "{frames} frames for {MUCH} bytes each way");
    }
}

/// Its driver is there when the guest is written down: it neither sees nor asks for anything anew, also in a machine that waited.
#[test]
fn a_card_goes_on_in_a_second_life() {
    if soak() {
        for kernel in ["6.1", "6.12"] {
            for bring in [Guest::restore, Guest::adopt] {
                with_card_from(Some(("console: card ", bring)), kernel, "use_card", 1, limits(None));
            }
        }
    }
}

#[test]
fn a_card_of_6_12_works_again_after_its_driver_came_back() {
    let script = "
        use_card
        cd /sys/bus/virtio/drivers/virtio_net
        for device in virtio*; do echo $device > unbind; echo $device > bind; done
        echo bound again
        use_card";
    let Some(log) = with_card("6.12", script, 2, limits(None)) else { return };
    assert_eq!(log.matches("the same came back").count(), 2, "{log}");
}

/// The guest's clock is the same as the limit's: 2 MiB at 2 MiB a second with 64 KiB at once take most of a second.
#[test]
fn a_limit_is_kept_and_loses_nothing() {
    let script = "
        before=$(b awk '{ print int($1 * 100) }' /proc/uptime)
        use_card
        after=$(b awk '{ print int($1 * 100) }' /proc/uptime)
        echo took $((after - before))";
    let Some(log) = with_card("6.1", script, 1, limits(Some(MUCH as u64))) else { return };
    let took: u64 = log.split_once("console: took ").unwrap().1.lines().next().unwrap().parse().unwrap();
    assert!(took >= 90, "{took} hundredths of a second for {MUCH} bytes");
}
