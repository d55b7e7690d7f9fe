//! The unsafe calls of this crate.
#![allow(unsafe_code, reason = "two calls that cannot be made safely; this module holds nothing else")]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use warren_abi::isa::IsaSet;
use wasmtime::Config;

/// Takes over a descriptor this process was started with; each number may be taken once, before anything else is opened.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: (1) the borrow ends with this function, before anything could close the number; (2) F_GETFD on a number
    // that is not open only fails.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(probe.as_fd())?;
    // SAFETY: (1) the number was just seen open; (2) this is the start of the process, which opened nothing itself, so
    // nobody else owns it; (3) the caller takes each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets Cranelift use exactly `isa`.
pub(crate) fn enable_isa(config: &mut Config, isa: IsaSet) {
    for extension in isa.extensions() {
        // SAFETY: (1) the flag comes from warren-abi's constant table of `has_*` instruction sets, none of which
        // changes calling conventions or memory safety; (2) code is only run where the artefact's ISA set is covered by
        // the host's, checked again by Wasmtime's own host-feature detection when the code is loaded.
        unsafe { config.cranelift_flag_enable(extension.cranelift_flag) };
    }
}
