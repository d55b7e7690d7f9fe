//! Memory that comes and goes under stock guests: what they give back, the host has again.
//!
//! What a guest holds of the host is counted: its VMM's resident memory. Where the host has something to do, the script waits
//! and says so by a connection ([`Steps`]).

use super::support;
use super::support::linux::{Ended, Guest, Running, guests};
use super::support::vmm::{receive, send};
use super::vsock::{park, stream};
use super::{GUEST, POWERED_OFF, soak};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use warren_vmm_protocol::linux::{BalloonStatus, DeviceSpec, MemoryStatus, VsockReply};
use warren_vmm_protocol::{ControlReply, ControlRequest};

const MIB: u64 = 1 << 20;
/// A guest, its VMM and the lab are emulated: this is for what never comes.
const TRIES: u32 = 2400;
const PAUSE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_mins(2);

/// `fill N` touches N MiB of memory and frees them, `room` is what there is to fill, `wait` lets the host go first.
const TOOLS: &str = "
    fill() { b dd if=/dev/zero of=/dev/null bs=${1}M count=1 2>/dev/null && echo filled $1; }
    mib() { b awk \"/$1:/ { print int(\\$2 / 1024) }\" /proc/meminfo; }
    wait() { /tmp/probe 1000 77 >/dev/null; }
    room() { echo $(( $(mib MemAvailable) - 24 )); }";

/// Runs a guest with these devices to its end, `case` beside it.
fn run(
    kernel: &str,
    script: &str,
    devices: &[DeviceSpec],
    case: impl FnOnce(&mut Steps<'_>),
) -> Option<String> {
    let ended = run_with(kernel, script, |guest| guest.others = devices.to_vec(), case)?;
    ended.with(POWERED_OFF, &["end: powered-off"]);
    Some(ended.log)
}

/// The same with a guest that is changed first, to any end.
fn run_with(
    kernel: &str,
    script: &str,
    change: impl FnOnce(&mut Guest),
    case: impl FnOnce(&mut Steps<'_>),
) -> Option<Ended> {
    if !support::has_kvm() {
        return None;
    }
    let mut guest = Guest::with_probe(&guests()?, kernel, &format!("{TOOLS}\n{script}"));
    change(&mut guest);
    let running = guest.start();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut Steps::of(&running))));
    if let Err(panic) = done {
        println!("{}", running.kill().log);
        std::panic::resume_unwind(panic);
    }
    Some(running.end())
}

/// A guest whose script waits for the host now and then.
struct Steps<'a> {
    running: &'a Running,
    /// Where the script says that it waits next.
    parked: UnixStream,
}

impl<'a> Steps<'a> {
    fn of(running: &'a Running) -> Self {
        Self { running, parked: park(running, 77) }
    }

    /// Waits until the script waits.
    fn arrive(&mut self) {
        self.parked.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(receive::<VsockReply>(&mut self.parked), VsockReply::Connected);
    }

    /// Lets it go on, up to the next time.
    fn go_on(&mut self) {
        self.parked = park(self.running, 77);
        drop(stream(self.running, b"x"));
    }

    /// Lets it go on and waits until it waits again.
    fn next(&mut self) {
        self.go_on();
        self.arrive();
    }
}

fn ask(running: &Running, request: &ControlRequest) -> ControlReply {
    let mut control = running.control.try_clone().unwrap();
    send(&mut control, request);
    receive(&mut control)
}

/// MiB of the host that the guest and its VMM hold.
fn held(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.vmm.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Asks until it is so.
fn until<T>(ask: impl Fn() -> T, so: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
{
    for _ in 0..TRIES {
        let now = ask();
        if so(&now) {
            return now;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("it never came to that: {:?}", ask());
}

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
        assert!((112..=144).contains(&available.saturating_sub(after)), "{available} became {after}");
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

#[test]
fn a_machine_without_a_guest_says_so() {
    needs_kvm!();
    let (vmm, mut control) = super::empty();
    let requests = [
        ControlRequest::Balloon,
        ControlRequest::SetBalloon { target_mib: 1 },
        ControlRequest::Memory,
        ControlRequest::SetMemory { plugged_mib: 2 },
    ];
    for request in requests {
        send(&mut control, &request);
        assert!(matches!(receive(&mut control), ControlReply::NotTold { .. }));
    }
    send(&mut control, &ControlRequest::Shutdown);
    assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Stopping);
    vmm.ends(super::SHUTDOWN, "end: shutdown");
}
