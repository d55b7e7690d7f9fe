//! Fuzz targets of everything that reads outside bytes, by libFuzzer.
//!
//! One program for all: `WARREN_FUZZ_TARGET` names the target, the arguments are libFuzzer's. A target takes bytes of any origin
//! and must return; beyond that it asserts what its parser promises of what it lets through. `cargo xtask fuzz` knows how to
//! start it, where its corpora are, and how a finding is run again.
//!
//! To add one: a function in the module of its subject and a row in [`TARGETS`].
#![no_main]
#![forbid(unsafe_op_in_unsafe_fn)]

mod boot;
mod bundle;
mod grpc;
mod messages;
mod pager;
mod registers;
mod rings;
mod stores;
mod wasi;

use std::sync::LazyLock;

/// What takes bytes.
type Target = fn(&[u8]);

/// Every target by its name.
const TARGETS: &[(&str, Target)] = &[
    ("kernel", boot::kernel),
    ("guest-program", boot::guest_program),
    ("acpi", boot::acpi),
    ("command-line", boot::command_line),
    ("registers", registers::registers),
    ("queue-walk", rings::queue_walk),
    ("block-request", rings::block_request),
    ("net-header", rings::net_header),
    ("vsock-packet", rings::vsock_packet),
    ("balloon-request", rings::balloon_request),
    ("memory-request", rings::memory_request),
    ("zip", bundle::zip),
    ("sparse-image", bundle::sparse_image),
    ("control-request", messages::control_request),
    ("guest-reply", messages::guest_reply),
    ("snapshot-state", messages::snapshot_state),
    ("linux-state", messages::linux_state),
    ("pager-packet", pager::packet),
    ("pager-request", pager::request),
    ("pager-upstream", pager::upstream),
    ("manifest", stores::manifest),
    ("chunk", stores::chunk_bytes),
    ("compile-answer", stores::compile_answer),
    ("jailer-request", messages::jailer_request),
    ("grpc-frontend", grpc::frontend),
    ("grpc-fleet", grpc::fleet),
    ("grpc-worker", grpc::worker),
    ("wasi", wasi::wasi),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("WARREN_FUZZ_TARGET").unwrap_or_default();
    if let Some((_, target)) = TARGETS.iter().find(|(name, _)| *name == wanted) {
        return *target;
    }
    for (name, _) in TARGETS {
        println!("{name}");
    }
    std::process::exit(if wanted == "list" { 0 } else { 2 })
});

libfuzzer_sys::fuzz_target!(init: { LazyLock::force(&TARGET); }, |bytes: &[u8]| TARGET(bytes));

/// Takes fields off the front of an input; where it ends, zeroes follow.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        out[..head.len()].copy_from_slice(head);
        self.0 = rest;
        out
    }

    fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}
