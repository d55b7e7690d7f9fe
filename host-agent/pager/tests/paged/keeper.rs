//! A function that keeps four megabytes: its first event writes them to a file in `/tmp`, which is memory of its guest; later ones
//! answer parts of it.

use crate::kept::KEEPER;
pub(crate) use crate::kept::{BYTES, expected};
use crate::support::vmm::{call, load};
use crate::support::{Vmm, life::Snapshot, real, sealed, spec};
use rustix::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use warren_vmm_protocol::{ControlReply, Outcome};

/// Asks for a part and compares it.
pub(crate) fn check(invoke: &mut UnixStream, offset: u32, len: u32) {
    let back = call(invoke, &[offset.to_le_bytes(), len.to_le_bytes()].concat());
    assert_eq!(back.done.outcome, Outcome::Response, "{}", String::from_utf8_lossy(&back.log));
    assert!(back.payload == expected(offset, len), "{len} bytes at {offset} are others");
}

/// A snapshot of one that has written its file, and its code.
pub(crate) fn taken() -> (Snapshot, OwnedFd) {
    let code = real::compile(KEEPER);
    let mut spec = spec(code.len());
    spec.function.tmp_quota_bytes = 16 << 20;
    spec.memory_bytes = 64 << 20;
    spec.function.memory_limit_bytes = 48 << 20;
    let code = sealed(&code);
    let vmm = Vmm::spawn(real::image());
    let mut control = vmm.control();
    let reply = load(&mut control, &spec, &[&code]);
    assert!(matches!(reply, ControlReply::Loaded { .. }), "{reply:?}");
    let mut invoke = vmm.invoke();
    let wrote = call(&mut invoke, &[0; 8]);
    assert_eq!(wrote.done.outcome, Outcome::Response, "{}", String::from_utf8_lossy(&wrote.log));
    check(&mut invoke, 70_000, 9_000);
    (Snapshot::take(&mut control), code)
}
