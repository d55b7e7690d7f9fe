//! Memory that is plugged into stock guests and unplugged.

use super::super::support::linux::{Guest, Running};
use super::super::{GUEST, POWERED_OFF, soak};
use super::{MIB, ask, held, run_with, until};
use warren_vmm_protocol::linux::{DeviceSpec, MemoryStatus};
use warren_vmm_protocol::{ControlReply, ControlRequest};

/// Half as much again can be plugged, into zones that can be emptied.
fn pluggable(guest: &mut Guest) {
    guest.flags = vec!["--pluggable-mib", "256"];
    guest.others = vec![DeviceSpec::Memory { plugged_mib: 0 }];
    guest.command_line = format!("memhp_default_state=online_movable {}", guest.command_line);
}

fn memory(running: &Running) -> MemoryStatus {
    match ask(running, &ControlRequest::Memory) {
        ControlReply::Memory(status) => status,
        other => panic!("{other:?}"),
    }
}

/// Wants so many MiB, and waits until they are there, or gone.
fn plug(running: &Running, plugged_mib: u32) {
    assert_eq!(ask(running, &ControlRequest::SetMemory { plugged_mib }), ControlReply::Told);
    until(|| memory(running), |status| status.plugged_bytes == u64::from(plugged_mib) * MIB);
}

/// Memory comes, is used, and goes again, and the host has it; again after the driver came back.
fn plugs(kernel: &str) {
    let script = "
        total() { until [ $(mib MemTotal) $1 $2 ]; do :; done; echo total $1 $2; }
        wait
        total -gt 400; fill $(( $(mib MemAvailable) - 48 )); wait
        total -lt 300; fill 100
        cd /sys/bus/virtio/drivers/virtio_mem; device=$(b ls | b grep virtio)
        echo $device > unbind; echo $device > bind; cd /; wait
        total -gt 300; fill 250; wait";
    let ended = run_with(kernel, script, pluggable, |steps| {
        let running = steps.running;
        steps.arrive();
        let now = memory(running);
        assert_eq!((now.region_bytes, now.block_bytes, now.plugged_bytes), (256 * MIB, 2 * MIB, 0));
        for wrong in [1, 255, 258] {
            let reply = ask(running, &ControlRequest::SetMemory { plugged_mib: wrong });
            assert!(matches!(reply, ControlReply::NotTold { .. }), "{reply:?}");
        }
        plug(running, 256);
        steps.next();
        let full = held(running);
        assert!(full > 380, "{full} MiB are used");
        plug(running, 0);
        let left = held(running);
        assert!(left < 256 + 24 && full - left > 120, "of {full} MiB {left} are left");
        steps.next();
        plug(running, 128);
        steps.next();
        assert!(held(running) > 280, "{}", held(running));
        steps.go_on();
    });
    let Some(ended) = ended else { return };
    ended.with(POWERED_OFF, &["console: total -gt 400", "console: total -lt 300", "console: total -gt 300"]);
    ended.with(POWERED_OFF, &["console: filled 100", "console: filled 250"]);
    assert_eq!(ended.log.matches("console: filled ").count(), 3, "{}", ended.log);
}

#[test]
fn memory_is_plugged_into_a_stock_6_1_guest_and_unplugged() {
    plugs("6.1");
}

#[test]
fn memory_is_plugged_into_a_stock_6_12_guest_and_unplugged() {
    if soak() {
        plugs("6.12");
    }
}

/// Whoever touches what is not plugged comes to an end that has a name.
#[test]
fn memory_that_is_not_plugged_cannot_be_touched() {
    let script = "
        cd /sys/bus/virtio/drivers/virtio_mem; echo $(b ls | b grep virtio) > unbind
        wait
        b devmem 0x100000000; echo it was there";
    let ended = run_with("6.1", script, pluggable, |steps| {
        steps.arrive();
        steps.go_on();
    });
    let Some(ended) = ended else { return };
    ended.with(GUEST, &["end: ", "touched memory that is not plugged"]);
}
