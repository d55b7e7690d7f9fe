//! The balloon of stock guests: memory that they lend, and memory that they report as free.

use super::super::soak;
use super::super::support::linux::Running;
use super::{MIB, ask, held, run, until};
use warren_vmm_protocol::linux::{BalloonStatus, DeviceSpec};
use warren_vmm_protocol::{ControlReply, ControlRequest};

fn balloon(running: &Running) -> BalloonStatus {
    match ask(running, &ControlRequest::Balloon) {
        ControlReply::Balloon(status) => status,
        other => panic!("{other:?}"),
    }
}

/// Asks the guest to lend so many MiB, and waits until it does.
fn lend(running: &Running, target_mib: u32) -> BalloonStatus {
    assert_eq!(ask(running, &ControlRequest::SetBalloon { target_mib }), ControlReply::Told);
    until(|| balloon(running), |status| status.actual_bytes == u64::from(target_mib) * MIB)
}

/// Statistics told after now.
fn statistics(running: &Running) -> BalloonStatus {
    let before = balloon(running).told;
    until(|| balloon(running), |status| status.told > before + 1)
}

/// A target takes what is free, gives the host as much, and gives it back; again after the driver came back; and a program that
/// needs more than is left gets it.
fn lends(kernel: &str) {
    let script = "
        fill $(room); wait
        echo lent $(mib MemAvailable); wait
        fill $(room); wait
        fill 80; wait
        cd /sys/bus/virtio/drivers/virtio_balloon; device=$(b ls | b grep virtio)
        echo $device > unbind; echo $device > bind; cd /; wait
        echo back $(mib MemAvailable)";
    let device = DeviceSpec::Balloon { reports_free: false };
    let log = run(kernel, script, &[device], |steps| {
        let running = steps.running;
        steps.arrive();
        let full = held(running);
        let before = statistics(running).guest;
        let [total, free, available] =
            [before.total, before.free, before.available].map(|told| told.unwrap() / MIB);
        assert!((150..256).contains(&total) && free <= total && available <= total, "{before:?}");
        assert!(before.minor_faults.unwrap() > 0, "{before:?}");

        let status = lend(running, 128);
        let lent = held(running);
        assert!((120..=136).contains(&(full - lent)), "of {full} MiB {lent} are left");
        assert_eq!((status.target_bytes, status.returned_bytes), (128 * MIB, 128 * MIB));
        let after = statistics(running).guest.available.unwrap() / MIB;
        // The guest's own estimate, of which its caches are a part.
        assert!((104..=152).contains(&available.saturating_sub(after)), "{available} became {after}");
        steps.next();

        // Back, and all of it can be used.
        lend(running, 0);
        steps.next();
        assert!(held(running) > full - 24, "{} of {full} MiB", held(running));

        // Little is left, and a program needs more.
        let available = statistics(running).guest.available.unwrap() / MIB;
        let target = u32::try_from(available - 40).unwrap();
        lend(running, target);
        steps.next();
        let taken = until(|| balloon(running), |status| status.actual_bytes < status.target_bytes);
        assert!(taken.target_bytes - taken.actual_bytes >= 8 * MIB, "{taken:?}");

        // The driver goes and comes: nothing is lent in between, and what is asked for afterwards is lent.
        let told = balloon(running).told;
        assert_eq!(ask(running, &ControlRequest::SetBalloon { target_mib: 64 }), ControlReply::Told);
        steps.next();
        let again = lend(running, 64);
        assert!(again.told > told, "{again:?}");
        let too_much = ask(running, &ControlRequest::SetBalloon { target_mib: 257 });
        assert!(matches!(too_much, ControlReply::NotTold { .. }), "{too_much:?}");
        steps.go_on();
    });
    let Some(log) = log else { return };
    assert_eq!(log.matches("console: filled ").count(), 3, "{log}");
    assert!(log.contains("console: filled 80\n") && log.contains("console: back "), "{log}");
}

#[test]
fn a_stock_6_1_guest_lends_memory_and_gets_it_back() {
    lends("6.1");
}

#[test]
fn a_stock_6_12_guest_lends_memory_and_gets_it_back() {
    if soak() {
        lends("6.12");
    }
}

/// What a guest frees, the host has, without anybody asking; again after the driver came back.
fn reports(kernel: &str) {
    let script = "
        fill $(room); wait
        cd /sys/bus/virtio/drivers/virtio_balloon; device=$(b ls | b grep virtio)
        echo $device > unbind; fill $(room); wait
        echo $device > bind; cd /; wait";
    let device = DeviceSpec::Balloon { reports_free: true };
    run(kernel, script, &[device], |steps| {
        let running = steps.running;
        steps.arrive();
        // 160 MiB and more were touched.
        until(|| held(running), |held| *held < 100);
        steps.next();
        let full = held(running);
        assert!(full > 180, "without a driver, {full} MiB");
        steps.next();
        until(|| held(running), |held| *held < 100);
        assert_eq!(balloon(running).actual_bytes, 0, "nothing was asked for");
        steps.go_on();
    });
}

#[test]
fn a_stock_6_1_guest_gives_back_what_it_frees() {
    reports("6.1");
}

#[test]
fn a_stock_6_12_guest_gives_back_what_it_frees() {
    if soak() {
        reports("6.12");
    }
}
