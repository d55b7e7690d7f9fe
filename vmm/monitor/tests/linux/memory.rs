//! Memory that comes and goes under stock guests: what they give back, the host has again.
//!
//! What a guest holds of the host is counted: its VMM's resident memory. Where the host has something to do, the script waits
//! and says so by a connection ([`Steps`]).

mod balloon;
mod huge;
mod plugged;

use super::POWERED_OFF;
use super::support;
use super::support::linux::{Ended, Guest, Running, guests};
use super::support::vmm::{receive, send};
use super::vsock::{park, stream};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use warren_vmm_protocol::linux::{DeviceSpec, VsockReply};
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
