//! As many devices as a guest may have, each with a line of its own; many of them busy at once.

use super::support::linux::{Guest, contents, guests};
use super::support::tap::Peer;
use super::support::vmm::{memfd, receive};
use super::{POWERED_OFF, support};
use rustix::fd::OwnedFd;
use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;
use warren_boot::linux::layout::VIRTIO_MAX;
use warren_vmm_protocol::Role;
use warren_vmm_protocol::linux::{DeviceSpec, Limits, VsockReply};

const DISK: usize = 64 << 10;
/// When a guest that boots with so many devices, emulated, is given up.
const PATIENCE: Duration = Duration::from_mins(5);

/// What stands on a disk before.
fn content(disk: usize) -> Vec<u8> {
    (0..DISK)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 7).wrapping_add(disk * 31).to_le_bytes()[0])
        .collect()
}

/// Half of the disks are copied to the other half, eight at a time, beside entropy and a stream; then all are compared.
fn with_disks(kernel: &str, count: usize, cpus: u8) {
    if !support::has_kvm() {
        return;
    }
    let Some(folder) = guests() else { return };
    let script = "
        set -- $(b ls /sys/block | b grep ^vd | b awk '{ print length($1), $1 }' | b sort | b awk '{ print $2 }')
        shift 3
        echo disks $#
        pairs=$(($# / 2))
        at=1
        while [ $at -le $pairs ]; do
            eval from=\\${$at} to=\\${$((pairs + at))}
            b dd if=/dev/$from of=/dev/$to bs=4096 conv=fsync 2>/dev/null &
            [ $((at % 8)) -ne 0 ] || wait
            at=$((at + 1))
        done
        wait
        echo entropy $(b head -c 64 /dev/hwrng | b wc -c)
        echo card $(b cat /sys/class/net/eth0/address)
        echo lines $(b grep -c virtio /proc/interrupts) of $(b ls /sys/bus/virtio/devices | b wc -l)
        /tmp/probe 1000 78";
    let mut guest = Guest::with_probe(&folder, kernel, script);
    let pairs = count / 2;
    guest.disks.extend((0..pairs).map(|disk| (memfd(&content(disk)), true)));
    let targets: Vec<OwnedFd> = (0..pairs).map(|_| memfd(&vec![0x55; DISK])).collect();
    guest.disks.extend(targets.iter().map(|disk| (disk.try_clone().unwrap(), false)));
    let (over, waits) = channel::<()>();
    let peer = Peer::start(&folder.join("tun.ko"), move || {
        let _ = waits.recv();
    });
    let limits = Limits::default();
    let card = DeviceSpec::Net { mac: [2, 0, 0, 0, 0, 9], receive: limits, send: limits };
    guest.card = Some((peer.tap.try_clone().unwrap(), card));
    guest.shape(None, cpus, 256);
    let running = guest.start();
    // The stream device works beside all the others: the guest calls when it has done everything, and is told to end.
    let mut stream = running.vmm.connect(Role::VsockAccept { port: 78 });
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let called = receive::<VsockReply>(&mut stream) == VsockReply::Parked
        && receive::<VsockReply>(&mut stream) == VsockReply::Connected;
    let mut stream = running.vmm.connect(Role::Vsock { port: 1000 });
    let _ = receive::<VsockReply>(&mut stream);
    stream.write_all(b"x").unwrap();
    let ended = running.end();
    drop(over);
    peer.end();
    let all = guest.disks.len() + 3;
    let lines = [
        format!("console: disks {}", pairs * 2),
        "console: entropy 64".into(),
        "console: card 02:00:00:00:00:09".into(),
        format!("console: lines {all} of {all}"),
    ];
    ended.with(POWERED_OFF, &lines.each_ref().map(String::as_str));
    assert!(called, "the guest did not call");
    for (disk, target) in targets.iter().enumerate() {
        assert!(contents(target) == content(disk), "disk {disk} of {pairs}");
    }
}

#[test]
fn forty_disks_and_all_other_devices() {
    with_disks("6.1", 40, 1);
}

#[test]
fn as_many_devices_as_there_may_be() {
    if super::soak() {
        // Beside root, script, probe, entropy, stream and card.
        with_disks("6.12", VIRTIO_MAX - 6, 4);
    }
}
