//! WASI preview 1 for one sandbox, answered entirely from memory.
//!
//! A [`Wasi`] is the world one function sees: its arguments and environment, the event on stdin, the response on
//! stdout, logs on stderr, `/var/task` (an archive, read-only) and `/tmp` (read-write, with a quota). It answers all
//! 46 functions of the interface; those without meaning in a sandbox (sockets, signals) answer an error number.
//!
//! It deliberately does *not* know Wasmtime, addresses of windows, or ports: linear memory comes in as a slice
//! ([`Memory`]), everything outside as the small trait [`Host`].
//!
//! Principles:
//! - Every pointer, length, count, cookie and descriptor is chosen by the function: each is checked, none sizes an
//!   allocation, and no answer panics.
//! - What a function keeps in `/tmp` is charged with its bookkeeping, so that entries are bounded as bytes are.
//! - A descriptor that lacks a right, or is of the wrong kind, says EBADF for data and ENOTCAPABLE for the rest.
//!
//! Modules: [`abi`] numbers and layouts, [`errno`] error numbers, [`memory`] checked access to linear memory,
//! [`fs`] the file system, [`time`] clocks over a counter, [`random`] seeded bytes, `table` open descriptors, `calls` the
//! functions by theme.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod abi;
mod calls;
pub mod errno;
pub mod fs;
mod host;
pub mod memory;
pub mod random;
mod table;
pub mod time;

pub use calls::path::Open;
pub use errno::Errno;
pub use fs::Fs;
pub use host::{Halt, Host, ResponseTooLarge, Stop};
pub use memory::Memory;

use alloc::{string::String, vec::Vec};
use table::Table;

/// What a call gives: success, an error number for the function, or the end of the instance.
pub type Answer = Result<(), Stop>;

/// One sandbox's WASI world. Files live as long as it does; descriptors as long as an event.
#[derive(Debug)]
pub struct Wasi<H> {
    /// Everything outside: clocks, randomness, stdin, stdout, stderr.
    pub host: H,
    fs: Fs,
    table: Table,
    args: Vec<String>,
    /// `KEY=value`; no key holds a `=`.
    env: Vec<String>,
}

impl<H: Host> Wasi<H> {
    /// A world with these arguments, environment and files, and only stdio and the preopens open.
    pub fn new(host: H, fs: Fs, args: Vec<String>, env: &[(String, String)]) -> Self {
        let env = env.iter().map(|(key, value)| alloc::format!("{key}={value}")).collect();
        Self { host, table: Table::new(), fs, args, env }
    }

    /// Closes what the last instance left open; files in `/tmp` stay.
    pub fn begin_event(&mut self) {
        for node in self.table.reset() {
            self.fs.release(node);
        }
    }

    /// The environment, in order.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> {
        self.env.iter().filter_map(|text| text.split_once('=')).map(|(key, value)| (key.into(), value.into()))
    }

    /// The file system, for other worlds that share it.
    pub const fn fs(&mut self) -> &mut Fs {
        &mut self.fs
    }
}
