//! How a sandbox came to be: built from its parts, restored from a snapshot of one that was, or put back to that snapshot.

use super::Vmm;
use super::real::image;
use super::vmm::{load, receive, send, send_with, try_receive};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::unix::net::UnixStream;
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadSpec, RestoreSpec};

/// The parameter of every case about a guest's behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Built,
    Restored,
    Reset,
}

/// A guest that was written down.
pub struct Snapshot {
    pub state: Vec<u8>,
    pub memory: OwnedFd,
}

impl Life {
    /// A sandbox of these parts, initialised: the guest's own program with this function.
    pub fn give(self, spec: &LoadSpec, descriptors: &[&OwnedFd]) -> (Vmm, UnixStream) {
        let vmm = Vmm::spawn(image());
        let mut control = vmm.control();
        let reply = load(&mut control, spec, descriptors);
        assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
        if self == Self::Built {
            return (vmm, control);
        }
        let snapshot = Snapshot::take(&mut control);
        drop((vmm, control));
        let vmm = Vmm::spawn_with(image(), &["--restore"]);
        let mut control = vmm.control();
        let reply = snapshot.restore(&mut control, &snapshot.state, descriptors);
        assert!(matches!(reply, Some(ControlReply::Loaded { .. })), "{reply:?}");
        if self == Self::Reset {
            let reply = reset(&mut control);
            assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
        }
        (vmm, control)
    }
}

/// Asks for the guest behind this control connection as it was when it was brought back.
pub fn reset(control: &mut UnixStream) -> ControlReply {
    send(control, &ControlRequest::Reset);
    receive(control)
}

impl Snapshot {
    /// Of the guest behind this control connection, which goes on.
    pub fn take(control: &mut UnixStream) -> Self {
        Self::take_of(control, 1 << 30)
    }

    /// The same with so much room.
    pub fn take_of(control: &mut UnixStream, room: u64) -> Self {
        let memory = memfd_create("memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, room).unwrap();
        send_with(control, &ControlRequest::Snapshot, &[&memory]);
        let (memory_len, state) = match receive(control) {
            ControlReply::Snapshot { memory_len, state } => (memory_len, state),
            other => panic!("no snapshot: {other:?}"),
        };
        ftruncate(&memory, memory_len).unwrap();
        fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW).unwrap();
        Self { state, memory }
    }

    /// Asks for it in a VMM that was started to restore, with this state.
    pub fn restore(
        &self,
        control: &mut UnixStream,
        state: &[u8],
        artefacts: &[&OwnedFd],
    ) -> Option<ControlReply> {
        let spec = RestoreSpec { state: state.to_vec(), label: "test-function".into() };
        let descriptors: Vec<_> = std::iter::once(&self.memory).chain(artefacts.iter().copied()).collect();
        send_with(control, &ControlRequest::Restore(spec), &descriptors);
        try_receive(control)
    }
}
