//! The jail as data, shared by the jailer and the program it jails, and the messages by which one is asked for.
//!
//! A jail has two parts. Part one is a [`plan::Plan`]: the ordered steps the jailer takes before exec. Part two is
//! what the jailed program does to itself after exec, before it reads from any descriptor. Both are plain data, so
//! that they can be printed, compared and tested without privilege; the jailer walks exactly the value that is shown.
//!
//! What this crate does not do: no system call, no file, no clock.
//!
//! Modules: [`name`] validated identifiers, [`request`] the typed messages on the jailer's socket, [`packet`] their
//! bytes, [`facts`] what a plan needs to know of the host, [`plan`] part one, [`cgroup`] and [`rlimit`] its tables,
//! [`text`] how it is printed; [`network`] the addresses of
//! sandboxes; [`monitor`], [`linux`], [`compiler`] and [`pager`] part two of the programs, [`filter`] what the kernel gets of it,
//! [`second`] how it is printed.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cgroup;
pub mod compiler;
pub mod facts;
pub mod filter;
pub mod linux;
pub mod monitor;
pub mod name;
pub mod network;
pub mod packet;
pub mod pager;
pub mod plan;
pub mod request;
pub mod rlimit;
pub mod second;
pub mod text;
