//! The Linux machine: a stock distribution kernel, 1 to 32 vCPUs, virtio-mmio devices.
//!
//! ```text
//!           LoadLinux, RestoreLinux(Paged)         guest powers off, resets, faults
//!   Empty --------------------------> Running ---------------------------------------> Dead
//!     |    refused: answered, Dead       |  Shutdown
//!     |                                  |  Snapshot: at rest until Resume; Reset: what it was when it was restored
//!     +--- Shutdown ---------------------+------------------------------------------> Dead
//! ```
//! - **Empty**: VM, memory slots, interrupt controllers and vCPUs exist, nothing was read. This is what can be made in
//!   advance.
//! - **Running**: vCPU threads run the guest and touch registers only; a thread for each disk and the worker
//!   perform requests, the network thread moves the bytes of streams and frames; the main thread passes the console's lines on and answers on the control socket.
//! - **Dead**: the end has a name and an exit status ([`crate::end`]), the console's last lines are in the log.
//!
//! The jail is that of the Wasm machine with a table of its own ([`warren_sandbox_plan::linux`]): every descriptor
//! arrives, nothing is opened.
//!
//! Modules: [`run`] the program, [`service`] the main thread, [`door`] who is let in, [`load`] what is, [`machine`] building, [`furnish`] its devices, [`windows`] where they lie, [`filling`] kernel and initrd, [`snapshot`] writing down and bringing back, [`again`] putting back, [`paged`] memory that a pager brings,
//! [`rest`] and [`registers`] of vCPUs for that, [`vcpu`], [`disk`], [`worker`] and [`network`] the other threads, [`bus`] where exits go, [`interrupts`] their lines, [`console`] the serial port, [`events`] what a running guest is told, [`virtio`] devices,
//! [`msr`] the registers of the processor that the guest may touch (what it sees of it: [`crate::cpuid`]).

pub mod again;
pub mod bus;
pub mod console;
pub mod disk;
pub mod door;
pub mod events;
pub mod filling;
pub mod furnish;
pub mod interrupts;
pub mod load;
pub mod machine;
pub mod msr;
pub mod network;
pub mod paged;
pub mod registers;
pub mod rest;
pub mod run;
pub mod service;
pub mod snapshot;
pub mod vcpu;
pub mod virtio;
pub mod windows;
pub mod worker;
