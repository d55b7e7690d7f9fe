//! The jail as data, shared by the jailer and the program it jails, and the messages by which one is asked for.
//!
//! Modules: [`request`] the typed messages on the jailer's socket, [`name`] validated identifiers.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod name;
pub mod request;
