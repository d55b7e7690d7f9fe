//! Messages between processes, and between a guest and its host.

use core::fmt::Debug;
use warren_sandbox_plan::packet;
use warren_state::linux::LinuxState;
use warren_state::linux::device::Devices;
use warren_state::wasm::WasmState;
use warren_vmm_protocol::frame;
use warren_vmm_protocol::guest::{GuestReply, GuestRequest};
use warren_vmm_protocol::{ControlReply, ControlRequest, Hello, InvokeReply, InvokeRequest};

/// What a message decodes to, encodes and decodes to the same again.
macro_rules! survives {
    ($bytes:expr, $($message:ty),+) => {$(
        if let Ok(message) = frame::decode::<$message>($bytes) {
            let again = frame::encode(&message).expect("it came in a frame");
            same(&frame::decode::<$message>(&again[frame::PREFIX..]).expect("our own"), &message);
        }
    )+};
}

fn same<T: Debug + PartialEq>(one: &T, other: &T) {
    assert_eq!(one, other);
}

/// What an agent says to a VMM.
pub(crate) fn control_request(bytes: &[u8]) {
    survives!(bytes, Hello, ControlRequest, InvokeRequest, GuestRequest);
}

/// What a VMM and a guest answer.
pub(crate) fn guest_reply(bytes: &[u8]) {
    survives!(bytes, ControlReply, InvokeReply, GuestReply);
}

/// A snapshot's state: what passes its own rules is sealed to the same bytes again.
pub(crate) fn snapshot_state(bytes: &[u8]) {
    let Some((memory_len, bytes)) = bytes.split_first_chunk() else { return };
    // A digest cannot be guessed: the body is looked at with and without.
    let _whole = warren_state::open::<WasmState>(bytes);
    let Ok(state) = postcard::from_bytes::<WasmState>(bytes) else { return };
    if state.check(u64::from_le_bytes(*memory_len)).is_ok() {
        let sealed = warren_state::seal(&state).expect("bounded by its rules");
        assert_eq!(warren_state::open::<WasmState>(&sealed), Ok(state));
    }
}

/// The same of a Linux guest: what passes is read again as it was, devices too.
pub(crate) fn linux_state(bytes: &[u8]) {
    let Some((memory_len, bytes)) = bytes.split_first_chunk() else { return };
    let _whole = warren_state::open::<LinuxState>(bytes);
    let Ok(state) = postcard::from_bytes::<LinuxState>(bytes) else { return };
    if let Ok(devices) = state.check(u64::from_le_bytes(*memory_len)) {
        let records = devices.write().expect("they were records");
        assert_eq!(Devices::read(&records), Ok(devices));
    }
}

/// What somebody asks the jailer for, with any number of descriptors.
pub(crate) fn jailer_request(bytes: &[u8]) {
    let Some((count, packet)) = bytes.split_first() else { return };
    let count = usize::from(*count);
    if let Ok(request) = packet::decode_request(packet, count) {
        let again = packet::encode(&request).expect("it came in a packet");
        assert_eq!(packet::decode_request(&again, count), Ok(request));
    }
    let _reply = packet::decode_reply(packet);
}
