//! The boot page: what the guest program is told before it runs, read-only to it.
//!
//! A fixed [`BootHeader`] at [`crate::window::BOOT`]`.base`, followed by a postcard-encoded [`FunctionSpec`].

use crate::isa::IsaSet;
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of the boot page.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"WARRENBP");

/// The fixed head of the boot page. Little-endian, no padding. Lengths are bytes mapped in their window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BootHeader {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub abi_version: u32,
    /// Bytes of the postcard [`FunctionSpec`] right after this header.
    pub spec_len: u32,
    /// [`IsaSet`] the code was compiled for and the host has.
    pub isa: u64,
    /// Bytes of precompiled code mapped in [`crate::window::CODE`].
    pub code_len: u64,
    /// Bytes of the archive mapped in [`crate::window::TASK`]; 0 if the function has no files.
    pub task_len: u64,
    /// Bytes mapped in [`crate::window::HEAP`].
    pub heap_len: u64,
    /// Bytes mapped in [`crate::window::STACK`].
    pub stack_len: u64,
    /// Time-stamp counter ticks per second as the guest sees them.
    pub tsc_hz: u64,
}

/// Which contract the function's module follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum World {
    /// A WASI preview 1 command: event on stdin, response on stdout, a new instance for every invocation.
    WasiPreview1,
    /// A `warren:function` component: `init` once, `handle` many times.
    Component,
}

/// What the guest must know of its function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionSpec {
    /// The module's contract.
    pub world: World,
    /// `argv`, the program name first.
    pub args: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Most bytes that files under `/tmp` may hold.
    pub tmp_quota_bytes: u64,
    /// Most bytes that the function's linear memories and tables may grow to.
    pub memory_limit_bytes: u64,
}

impl BootHeader {
    /// The ISA list as a set.
    #[must_use]
    pub const fn isa_set(&self) -> IsaSet {
        IsaSet(self.isa)
    }
}
