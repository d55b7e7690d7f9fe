//! Machine code for the test guest's `X` command, and a sandbox that runs it.

use super::Vmm;
use super::vmm::call;
use std::os::unix::net::UnixStream;
use warren_abi::window::CODE;
use warren_vmm_protocol::Outcome;

/// Where the code starts in the descriptor.
const AT: usize = 0x100;

/// A code descriptor's contents: init is ready, then `code`.
pub fn descriptor(code: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; AT];
    bytes[0] = b'R';
    bytes.extend(code);
    bytes
}

/// The payload that runs it.
pub fn payload() -> Vec<u8> {
    let mut bytes = vec![b'X'];
    bytes.extend((CODE.base + AT as u64).to_le_bytes());
    bytes
}

/// `mov rax, value`
pub fn set(value: u64) -> Vec<u8> {
    [&[0x48, 0xB8][..], &value.to_le_bytes()].concat()
}

/// Answers the eight bytes at an address.
pub fn read(address: u64) -> Vec<u8> {
    [set(address), vec![0x48, 0x8B, 0x00, 0xC3]].concat()
}

/// Writes a byte to an address, answers what is there then.
pub fn write(address: u64) -> Vec<u8> {
    [set(address), vec![0xC6, 0x00, 0x5A, 0x48, 0x8B, 0x00, 0xC3]].concat()
}

/// Calls an address.
pub fn jump(address: u64) -> Vec<u8> {
    [set(address), vec![0xFF, 0xD0, 0xC3]].concat()
}

/// A sandbox that has the code, ready to run it.
pub fn sandbox(code: &[u8]) -> (Vmm, UnixStream, UnixStream) {
    let (vmm, control) = Vmm::loaded(&descriptor(code));
    let invoke = vmm.invoke();
    (vmm, control, invoke)
}

/// Runs the code: what it answers in rax.
pub fn answers(code: &[u8]) -> u64 {
    let (_vmm, _control, mut invoke) = sandbox(code);
    let back = call(&mut invoke, &payload());
    assert_eq!(back.done.outcome, Outcome::Response);
    u64::from_le_bytes(back.payload.try_into().unwrap())
}
