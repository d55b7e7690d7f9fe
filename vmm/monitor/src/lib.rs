//! The monitor: one microVM, one vCPU, one function.
//!
//! It opens nothing: every resource arrives as a descriptor. It knows neither gRPC, functions' names nor other
//! sandboxes, and has no configuration but a few flags.
//!
//! Principles:
//! - The guest is the attacker. What it wrote is copied once and validated; nothing holds a reference into its memory.
//! - A warm event is one exit and no thread crossing: the vCPU thread reads and writes the invoke connection itself.
//! - The main thread never blocks outside its event loop, so a deadline is always kept.
//! - Every end has a name and an exit status ([`end`]).
//!
//! Modules: [`run`] the program, [`seal`] part two of its jail, [`service`] the main thread, [`vcpu`] the vCPU thread and the drawing of its states, [`waiting`] what it waits for,
//! [`progress`] what both know, [`orders`] what they tell each other, [`connection`] and [`link`] the two kinds of
//! connection, [`load`] the door for requests, [`machine`] building a VM, [`cpu`] registers and exits, [`cpuid`] what
//! the guest sees of the processor, [`program`] the guest's ELF file in memory, [`mailbox`] events and replies, [`seeds`] their random bytes, [`ram`]
//! guest memory, [`paging`] memory that a pager brings, [`sys`] everything unsafe, [`mod@log`] lines for the operator;
//! and [`probe`], what a host can do. [`linux`] is the other machine: a stock kernel with virtio devices.

pub mod bare;
pub mod connection;
pub mod cpu;
pub mod cpuid;
pub mod end;
pub mod link;
pub mod linux;
pub mod load;
pub mod log;
pub mod machine;
pub mod mailbox;
pub mod orders;
pub mod paging;
pub mod probe;
pub mod program;
pub mod progress;
pub mod ram;
pub mod run;
pub mod seal;
pub mod seeds;
pub mod service;
pub mod snapshot;
pub mod sys;
pub mod vcpu;
pub mod waiting;
