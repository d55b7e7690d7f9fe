//! What a running guest is told: its power button, another generation.

use super::empty;
use super::support::vmm::{receive, send, status};
use super::vsock::{stream, with_probe};
use warren_vmm_protocol::{ControlReply, ControlRequest};

/// Presses the button and begins a generation while the probe holds the guest, then lets the script go on.
fn told(kernel: &str, script: &str, lines: &[&str]) {
    let script = format!("/tmp/probe 1000\n{script}");
    with_probe(kernel, &script, lines, |running| {
        let probe = stream(running, b"e");
        let mut control = running.control.try_clone().unwrap();
        for request in
            [ControlRequest::PowerButton, ControlRequest::NewGeneration { id: *b"another, and new" }]
        {
            send(&mut control, &request);
            assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Told);
        }
        drop(probe);
        drop(stream(running, b"x"));
    });
}

/// Until both interrupts came; how often each did.
const INTERRUPTS: &str = "
    until [ $(b grep -c 'ACPI:Ged' /proc/interrupts) = 2 ]; do :; done
    came() { b awk '/ACPI:Ged/ && $2 > 0 { print $2 }' /proc/interrupts; }
    until [ $(came | b wc -l) = 2 ]; do :; done
    echo told $(came)";

#[test]
fn a_stock_6_12_kernel_takes_another_generation() {
    let script = format!(
        "{INTERRUPTS}
        until b dmesg | b grep -q 'virtual machine fork'; do :; done
        b dmesg | b grep -o 'crng reseeded.*'"
    );
    // Two programs write to one console: what both say at once is on one line.
    let lines = ["told 1 1", "console: crng reseeded due to virtual machine fork"];
    told("6.12", &script, &lines);
}

#[test]
fn a_stock_6_1_kernel_hears_events_without_their_drivers() {
    if super::soak() {
        told("6.1", INTERRUPTS, &["told 1 1"]);
    }
}

#[test]
fn nobody_is_there_to_be_told() {
    needs_kvm!();
    let (vmm, mut control) = empty();
    let _ = status(&mut control);
    send(&mut control, &ControlRequest::PowerButton);
    assert!(matches!(receive(&mut control), ControlReply::NotTold { .. }));
    send(&mut control, &ControlRequest::Shutdown);
    assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Stopping);
    vmm.ends(super::SHUTDOWN, "end: shutdown");
}
