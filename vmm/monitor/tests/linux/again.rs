//! Guests put back to their snapshot in the machine they are in: nothing of what they did since is left, and each life draws its own.

use super::support;
use super::support::life::reset;
use super::support::linux::{Guest, Running, guests};
use super::support::vmm::memfd;
use super::vsock::stream;
use super::{MIB, POWERED_OFF, soak};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use warren_vmm_protocol::ControlReply;
use warren_vmm_protocol::linux::{Base, DeviceSpec, Limits};

/// What a guest does in each life, whose name a disk of the host's says. What it finds, it leaves otherwise.
const LIVES: &str = "
    /tmp/probe 1000 &
    says() { b dd if=/dev/vdd bs=512 count=1 iflag=direct 2>/dev/null | b head -c 4; }
    kept=before
    echo waiting for go
    until life=$(says); [ \"${life#go}\" != \"$life\" ]; do :; done
    drawing
    echo drawn $(b head -c 16 $source | b hexdump -v -e '1/1 \"%02x\"') over
    echo $life finds $kept $(b cat /tmp/mark 2>/dev/null || echo nothing) $(b dd if=/dev/vde bs=512 count=1 iflag=direct 2>/dev/null | b head -c 4)
    kept=after; echo dirty > /tmp/mark
    echo late | b dd of=/dev/vde bs=512 conv=sync,fsync 2>/dev/null
    echo $life wrote $(b dd if=/dev/vde bs=512 count=1 iflag=direct 2>/dev/null | b head -c 4)
    b sleep 0.1
    echo $life has $(b nproc) and a timer, and $(b head -c 64 /dev/hwrng | b wc -c) of entropy
    until [ \"$(says)\" = over ]; do b sleep 0.1; done";

/// A kernel with the driver reseeds when it hears of its generation. Of one without only the device draws anew, behind what its driver had
/// drawn ahead (init sees to it there).
const DRAWING: [(&str, &str); 2] = [
    ("6.1", "source=/dev/hwrng; b head -c 512 /dev/hwrng > /dev/null"),
    ("6.12", "source=/dev/urandom; until b dmesg | b grep -q 'virtual machine fork'; do :; done"),
];

/// It is refused, and the guest goes on.
pub(crate) fn not_put_back(control: &mut UnixStream, words: &str) {
    match reset(control) {
        ControlReply::NotTold { why } => assert!(why.contains(words), "{why:?} lacks {words:?}"),
        other => panic!("{words}: {other:?}"),
    }
}

/// A guest lives, is put back, and lives again, so many times.
fn lives((kernel, drawing): (&str, &str), cpus: u8, count: usize) {
    if !support::has_kvm() {
        return;
    }
    let Some(folder) = guests() else { return };
    let mut guest = Guest::with_probe(&folder, kernel, &format!("drawing() {{ {drawing}\n }}\n{LIVES}"));
    let host = std::fs::File::from(memfd(&vec![b' '; MIB]));
    guest.disks.push((host.try_clone().unwrap().into(), true));
    let mut base = vec![0; MIB];
    base[..4].copy_from_slice(b"base");
    guest.disks.push((memfd(&base), false));
    guest.shape(None, cpus, 128);
    let mut running = guest.start();
    assert!(running.vmm.until("console: waiting for go") && running.vmm.until("guest-probe: listening"));
    let snapshot = running.snapshot();
    drop(running.kill());

    host.write_all_at(b"go00", 0).unwrap();
    let (vmm, mut control) = guest.zygote();
    let own = memfd(&vec![0; MIB]);
    let (mut devices, mut disks) = guest.parts();
    devices[4] = DeviceSpec::OverlaidBlock { base: Base::File, limits: Limits::default() };
    disks.insert(4, &own);
    let reply = Guest::ask_restore_with(&mut control, &snapshot, &snapshot.state, devices, &disks);
    let mut running = Running::started(vmm, control, reply.as_ref());
    for life in 0..count {
        if life > 0 {
            host.write_all_at(format!("go{life:02}").as_bytes(), 0).unwrap();
            put_back(&mut running);
        }
        assert!(running.vmm.until(&format!("console: go{life:02} has")), "life {life}");
    }
    host.write_all_at(b"over", 0).unwrap();
    let ended = running.end();
    for life in 0..count {
        ended.with(
            POWERED_OFF,
            &[
                &format!("console: go{life:02} finds before nothing base"),
                &format!("console: go{life:02} wrote late"),
                &format!("console: go{life:02} has {cpus} and a timer, and 64 of entropy"),
            ],
        );
    }
    let drawn = |text: &str| text.split_once(" over").map(|(drawn, _)| drawn.to_owned());
    let drawn: Vec<_> = ended.log.split("console: drawn ").skip(1).filter_map(drawn).collect();
    assert_eq!((drawn.len(), drawn.iter().collect::<BTreeSet<_>>().len()), (count, count), "{drawn:?}");
}

/// A stream of the life before is over then, and a new one comes.
fn put_back(running: &mut Running) {
    let mut old = echoes(running);
    let reply = reset(&mut running.control);
    assert!(matches!(reply, ControlReply::Started { .. }), "{reply:?}");
    assert!(matches!(old.read(&mut [0]), Ok(0) | Err(_)), "a stream of the life before goes on");
    drop(echoes(running));
}

fn echoes(running: &Running) -> UnixStream {
    let mut stream = stream(running, b"e");
    stream.write_all(b"in this life").unwrap();
    let mut back = [0; 12];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"in this life");
    stream
}

#[test]
fn a_6_1_guest_lives_again_and_again() {
    lives(DRAWING[0], 1, if soak() { 50 } else { 4 });
}

#[test]
fn a_6_12_guest_on_two_vcpus_lives_again_and_again() {
    lives(DRAWING[1], 2, if soak() { 50 } else { 4 });
}
