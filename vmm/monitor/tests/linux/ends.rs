//! Every end that a guest can come to has a name: stock kernels, and kernels of a few instructions that no stock one is.

use super::support::linux::Guest;
use super::support::vmm::{memfd, receive, send, send_with, status};
use super::{GUEST, POWERED_OFF, RESET, SHUTDOWN, empty, linux_spec, run, soak};
use warren_vmm_protocol::{ControlReply, ControlRequest, VmState};

/// The quick form boots one kernel, the full form both.
fn kernels() -> &'static [&'static str] {
    if soak() { &["6.1", "6.12"] } else { &["6.1"] }
}

/// Guests that end as their script says.
fn ends(script: &str, command_line: &str, code: i32, lines: &[&str]) {
    for kernel in kernels() {
        // The last word on how to reboot counts, so the usual one goes.
        let change = |guest: &mut Guest| {
            guest.command_line = command_line.to_owned() + &guest.command_line.replace("reboot=k ", "");
        };
        if let Some(ended) = run(kernel, script, change) {
            ended.with(code, lines);
        }
    }
}

#[test]
fn a_reboot_by_the_keyboard_controller_is_a_reset() {
    ends("b reboot -f", "reboot=k ", RESET, &["end: reset"]);
}

#[test]
fn a_reboot_by_acpi_is_a_reset() {
    if soak() {
        ends("b reboot -f", "reboot=a ", RESET, &["end: reset"]);
    }
}

/// A kernel that reboots by a triple fault, as one does that has no other way left.
#[test]
fn a_reboot_by_a_triple_fault_is_a_fault_of_the_guest() {
    if soak() {
        ends("b reboot -f", "reboot=t ", GUEST, &["end: guest: triple fault"]);
    }
}

#[test]
fn a_power_off_is_one() {
    if soak() {
        ends("b poweroff -f", "", POWERED_OFF, &["end: powered-off"]);
    }
}

#[test]
fn a_panic_ends_in_a_reset_with_its_last_lines() {
    let script = "echo c > /proc/sysrq-trigger";
    ends(
        script,
        "reboot=k ",
        RESET,
        &["end: reset", "last: ", "Kernel panic - not syncing: sysrq triggered crash"],
    );
}

#[test]
fn a_program_that_is_not_there_is_said_and_ends_in_power_off() {
    if !soak() {
        return;
    }
    for kernel in kernels() {
        let change =
            |guest: &mut Guest| guest.command_line = guest.command_line.replace("/bin/sh", "/no/such");
        if let Some(ended) = run(kernel, "", change) {
            ended.with(POWERED_OFF, &["warren-init: start /no/such: No such file"]);
        }
    }
}

/// An ELF kernel of these instructions, in 64-bit mode with the first GiBs mapped to themselves.
fn kernel(code: &[u8]) -> Vec<u8> {
    const AT: u64 = 0x100_0000;
    let len = code.len() as u64;
    let fields: [(usize, u64); 11] = [
        (0, 0x0001_0102_464C_457F),
        (16, 2 | 62 << 16 | 1 << 32),
        (24, AT),
        (32, 64),
        (52, 64 | 56 << 16 | 1 << 32),
        (64, 1 | 7 << 32),
        (72, 0x1000),
        (80, AT),
        (88, AT),
        (96, len),
        (104, len),
    ];
    let mut file = vec![0; 0x1000];
    for (at, value) in fields {
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    file.extend(code);
    file
}

/// Starts such a kernel.
fn start(code: &[u8]) -> (super::Vmm, std::os::unix::net::UnixStream) {
    let (vmm, mut control) = empty();
    send_with(&mut control, &ControlRequest::LoadLinux(linux_spec()), &[&memfd(&kernel(code))]);
    let reply: ControlReply = receive(&mut control);
    assert!(matches!(reply, ControlReply::Started { .. }), "{reply:?}");
    (vmm, control)
}

/// A guest that no exit tells anything of: the VMM still answers, and ends when it is told to. (When that is, is the
/// agent's: it told the guest a deadline.)
fn stays(code: &[u8]) {
    let (vmm, mut control) = start(code);
    assert_eq!(status(&mut control).state, VmState::Busy);
    send(&mut control, &ControlRequest::Shutdown);
    assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Stopping);
    vmm.ends(SHUTDOWN, "end: shutdown");
}

#[test]
fn a_guest_that_spins_with_interrupts_off_can_be_ended() {
    needs_kvm!();
    stays(&[0xFA, 0xEB, 0xFE]); // cli; jmp
}

#[test]
fn a_guest_that_halts_with_interrupts_off_can_be_ended() {
    needs_kvm!();
    stays(&[0xFA, 0xF4, 0xEB, 0xFD]); // cli; hlt; jmp
}

#[test]
fn a_triple_fault_is_one() {
    needs_kvm!();
    let (vmm, _control) = start(&[0x0F, 0x0B]); // ud2, and nobody to handle it
    vmm.ends(GUEST, "end: guest: triple fault");
}

#[test]
fn a_flooded_serial_port_is_bounded_and_said() {
    needs_kvm!();
    // Twice what may wait and burst: lines of one byte, then power-off.
    let lines = 10_000_u32.to_le_bytes();
    let code = [
        &[0x66, 0xBA, 0xF8, 0x03, 0xB9][..], // mov dx, 0x3f8; mov ecx, lines
        &lines,
        &[0xB0, b'x', 0xEE, 0xB0, b'\n', 0xEE], // mov al, 'x'; out; mov al, newline; out
        &[0xFF, 0xC9, 0x75, 0xF6],              // dec ecx; jnz back
        &[0x66, 0xBA, 0x00, 0x06, 0xB0, 0x34, 0xEE, 0xEB, 0xFE], // sleep control: off
    ]
    .concat();
    let (vmm, _control) = start(&code);
    let (code, log) = vmm.wait();
    assert_eq!(code, POWERED_OFF, "{log}");
    let shown = log.matches("console: x\n").count();
    assert!(log.contains("end: powered-off") && shown > 0, "{log}");
    let dropped: u32 = log
        .lines()
        .filter_map(|line| {
            line.split_once("console: (")?.1.split_once(" lines dropped")?.0.parse::<u32>().ok()
        })
        .sum();
    assert_eq!(usize::try_from(dropped).unwrap() + shown, 10_000, "every line is shown or counted");
}
