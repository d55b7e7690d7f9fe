//! Kernels that reach for memory before it is filled: of a few instructions, on any host with a /dev/kvm.

use super::support::vmm::{receive, send, send_with, status};
use super::{GUEST, LOAD_FAILED, POWERED_OFF, SHUTDOWN, Vmm, linux_spec, sealed};
use std::os::unix::net::UnixStream;
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError, VmState};

/// Where the code is.
const CODE: u64 = 0x100_0000;
/// Where the kernel's data is: in another huge page than the code.
const DATA: u64 = 0x140_0000;
/// Where the initrd is.
const INITRD: u64 = (64 << 20) - 0x1000;
/// What the data begins with, and the initrd is: the command that powers off.
const OFF: u8 = 0x34;
/// Powers off if that is in `al`, or else dies.
const END: [u8; 11] = [0x3C, OFF, 0x75, 0x05, 0x66, 0xBA, 0x00, 0x06, 0xEE, 0x0F, 0x0B];

/// An ELF kernel of these instructions and data.
fn kernel(code: &[u8], data: &[u8]) -> Vec<u8> {
    let head: [(usize, u64); 5] = [
        (0, 0x0001_0102_464C_457F),
        (16, 2 | 62 << 16 | 1 << 32),
        (24, CODE),
        (32, 64),
        (52, 64 | 56 << 16 | 2 << 32),
    ];
    let mut file = vec![0; 0x2000];
    let mut put = |at: usize, value: u64| file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    for (at, value) in head {
        put(at, value);
    }
    for (at, offset, gpa, len) in [(64, 0x1000, CODE, code.len()), (120, 0x2000, DATA, data.len())] {
        let fields = [1 | 7 << 32, offset, gpa, gpa, len as u64, len as u64];
        for (field, value) in fields.into_iter().enumerate() {
            put(at + 8 * field, value);
        }
    }
    file[0x1000..0x1000 + code.len()].copy_from_slice(code);
    file.extend(data);
    file
}

/// Gives such a kernel and an initrd to a machine of huge pages.
fn load(kernel: &[u8], initrd: &[u8]) -> (Vmm, UnixStream, ControlReply) {
    let vmm = Vmm::launch("linux", &["--memory-mib", "64", "--huge-pages"], None);
    let mut control = vmm.control();
    let mut spec = linux_spec();
    spec.initrd = true;
    send_with(&mut control, &ControlRequest::LoadLinux(spec), &[&sealed(kernel), &sealed(initrd)]);
    let reply = receive(&mut control);
    (vmm, control, reply)
}

/// Runs these instructions, and [`END`].
fn ends(code: &[u8], status: i32, line: &str) {
    let (vmm, _control, reply) = load(&kernel(&[code, &END].concat(), &[OFF, 7]), &[OFF]);
    assert!(matches!(reply, ControlReply::Started { .. }), "{reply:?}");
    vmm.ends(status, line);
}

/// `mov al, [at]`.
fn read(at: u64) -> Vec<u8> {
    [&[0x8A, 0x04, 0x25][..], &u32::try_from(at).unwrap().to_le_bytes()].concat()
}

/// `mov byte [at], value`.
fn write(at: u64, value: u8) -> Vec<u8> {
    [&[0xC6, 0x04, 0x25][..], &u32::try_from(at).unwrap().to_le_bytes(), &[value]].concat()
}

#[test]
fn what_is_read_at_once_is_there() {
    needs_kvm!();
    ends(&read(DATA), POWERED_OFF, "end: powered-off");
    ends(&read(INITRD), POWERED_OFF, "end: powered-off");
    ends(&read(DATA + 1), GUEST, "end: guest: triple fault");
    ends(&read(DATA + 2), GUEST, "end: guest: triple fault");
}

#[test]
fn what_is_read_after_an_exit_is_there() {
    needs_kvm!();
    // A port that nobody has: mov dx, 0x999; out dx, al.
    let code = [&[0x66, 0xBA, 0x99, 0x09, 0xEE][..], &read(DATA)].concat();
    ends(&code, POWERED_OFF, "end: powered-off");
}

#[test]
fn what_is_written_at_once_stays_and_what_is_beside_it_is_there() {
    needs_kvm!();
    ends(&[write(DATA + 1, OFF), read(DATA + 1)].concat(), POWERED_OFF, "end: powered-off");
    ends(&[write(DATA + 1, 1), read(DATA)].concat(), POWERED_OFF, "end: powered-off");
}

#[test]
fn a_guest_that_reaches_for_nothing_can_be_ended() {
    needs_kvm!();
    let (vmm, mut control, reply) = load(&kernel(&[0xFA, 0xEB, 0xFE], &[OFF]), &[OFF]); // cli; jmp
    assert!(matches!(reply, ControlReply::Started { .. }), "{reply:?}");
    assert_eq!(status(&mut control).state, VmState::Busy);
    send(&mut control, &ControlRequest::Shutdown);
    assert_eq!(receive::<ControlReply>(&mut control), ControlReply::Stopping);
    vmm.ends(SHUTDOWN, "end: shutdown");
}

#[test]
fn a_kernel_that_was_cut_before_it_was_sealed_is_refused() {
    needs_kvm!();
    let whole = kernel(&END, &[OFF; 9]);
    let (vmm, _control, reply) = load(&whole[..whole.len() - 1], &[OFF]);
    assert!(matches!(&reply, ControlReply::LoadFailed { reason: LoadError::Refused(_), .. }), "{reply:?}");
    vmm.ends(LOAD_FAILED, "load failed");
}
