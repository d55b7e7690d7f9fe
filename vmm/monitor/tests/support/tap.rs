//! A network namespace of a test's own, with a tap device in it and a thread that lives there.
#![allow(unsafe_code, reason = "namespaces are made by plain calls")]

use rustix::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

/// The host's and the guest's addresses.
pub const HOST: &str = "10.77.0.1";
pub const GUEST: &str = "10.77.0.2";

/// A peer in a namespace of its own.
pub struct Peer<T> {
    /// For the VMM.
    pub tap: OwnedFd,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Peer<T> {
    /// Makes the namespace and runs `peer` in it. `module` is loaded where the kernel has no tap devices yet.
    pub fn start(module: &std::path::Path, peer: impl FnOnce() -> T + Send + 'static) -> Self {
        if !std::path::Path::new("/dev/net/tun").exists() {
            command("insmod", &[module.to_str().unwrap()]);
        }
        let (made, taps) = channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: plain numbers; a thread may have a network of its own.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            made.send(tap()).unwrap();
            peer()
        });
        Self { tap: first(&taps), thread }
    }

    /// What the peer found.
    pub fn end(self) -> T {
        drop(self.tap);
        self.thread.join().unwrap()
    }
}

fn first(taps: &Receiver<OwnedFd>) -> OwnedFd {
    taps.recv().expect("the peer made no tap device")
}

fn tap() -> OwnedFd {
    let tap = warren_vmm::sys::tap::make("tap0").unwrap();
    command("ip", &["addr", "add", &format!("{HOST}/24"), "dev", "tap0"]);
    command("ip", &["link", "set", "tap0", "up"]);
    tap
}

fn command(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
