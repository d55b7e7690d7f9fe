//! The messages between the agent and one `warren-vmm`.
//!
//! The VMM inherits a *listening* Unix stream socket, so it outlives the agent: a restarted agent connects again.
//! Each connection starts with one [`Hello`] that names its [`Role`]:
//! - `Control`: [`ControlRequest`] / [`ControlReply`], one at a time; file descriptors ride on `Load`.
//! - `Invoke`: [`InvokeRequest`] followed by its raw payload; answered by any number of [`InvokeReply::Log`] and one
//!   [`InvokeReply::Done`] followed by its raw payload. The vCPU thread itself reads and writes this connection, so
//!   that a warm invocation crosses no thread.
//! - `Vsock`, `VsockAccept`: a stream to or from a Linux guest. The VMM answers with [`linux::VsockReply`]; after
//!   `Connected` the connection carries the stream's bytes and nothing else. Who connects sends nothing before.
//!
//! A newer connection of one of the first two roles replaces the older one; streams stand side by side.
//!
//! A VMM whose memory a pager brings talks to it over a socket of its own ([`pager`]).
//!
//! Framing is in [`frame`]: a little-endian `u32` length, then postcard. Raw payloads follow their message without a
//! frame; their length stands in the message.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod frame;
pub mod guest;
pub mod linux;
pub mod pager;
pub mod rates;

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};
pub use warren_abi::{
    boot::{FunctionSpec, World},
    isa::IsaSet,
    outcome::FunctionError,
};

/// The version of this protocol; checked in [`Hello`].
pub const PROTOCOL_VERSION: u32 = 11;

/// Most bytes of a framed message (raw payloads are apart and bounded by the mailbox).
pub const MAX_MESSAGE: usize = 256 << 10;

/// The first message on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the caller.
    pub version: u32,
    /// What this connection is for.
    pub role: Role,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Requests and replies about the sandbox.
    Control,
    /// Invocations.
    Invoke,
    /// A stream from the host to a port of the Linux guest: one [`linux::VsockReply`], then its bytes.
    Vsock {
        /// The guest's port.
        port: u32,
    },
    /// The next stream that the Linux guest opens to a port of the host: [`linux::VsockReply::Parked`], then when it
    /// is there `Connected`, then its bytes.
    VsockAccept {
        /// The host's port.
        port: u32,
    },
}

/// Agent to VMM on a control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Put a function into the empty VM and run its init. Carries one file descriptor (the verified artefact's code)
    /// or two (the `/var/task` archive after it). Both must be sealed against writes and shrinking, or the VMM refuses.
    Load(LoadSpec),
    /// Ask for [`Status`].
    Status,
    /// Stop now, whatever runs; the VMM answers `Stopping` and exits.
    Shutdown,
    /// Put a Linux guest into the empty VM and start it. Carries as many descriptors as
    /// [`linux::LinuxSpec::descriptors`] says. The VMM must be one for Linux guests.
    LoadLinux(linux::LinuxSpec),
    /// Press a Linux guest's power button: a guest whose kernel has the driver ends in order. Answered by `Told`.
    PowerButton,
    /// Tell a Linux guest that it is a copy from here on, so that its kernel's random numbers differ from the other's.
    /// Answered by `Told`.
    NewGeneration {
        /// Of no other guest, and of no other generation of this one.
        id: [u8; 16],
    },
    /// Write the Wasm guest down as soon as it is idle. Carries one descriptor, a memfd of as many zeroes as the guest has
    /// memory (it stays sparse), that takes its pages. The guest goes on afterwards. A Linux guest is written down where it
    /// stands, and stays at rest until [`Self::Resume`]: its disks can be copied meanwhile.
    Snapshot,
    /// Bring a guest back in a VMM that was started to restore. Carries two descriptors (the snapshot's memory, the code) or
    /// three (the `/var/task` archive after them), sealed like those of `Load`. Answered like `Load`.
    Restore(RestoreSpec),
    /// Say how much memory a Linux guest is to lend by its balloon. Answered by `Told`; how far it is, [`Self::Balloon`] says.
    SetBalloon {
        /// MiB, at most what the guest has.
        target_mib: u32,
    },
    /// Ask what a Linux guest lends, and what it last said of its memory. The guest is asked to say it anew.
    Balloon,
    /// Say how much memory is to be plugged beside what a Linux guest was started with. Answered by `Told`; how far it is,
    /// [`Self::Memory`] says.
    SetMemory {
        /// MiB: a multiple of the region's blocks, at most the region.
        plugged_mib: u32,
    },
    /// Ask how much is plugged.
    Memory,
    /// Bring a Linux guest back in a VMM for Linux guests that has none. Answered like `LoadLinux`.
    RestoreLinux(linux::LinuxRestore),
    /// Let a Linux guest go on that was written down. Answered by `Told`.
    Resume,
    /// Bring a Wasm guest back in a VMM that was started to, its memory page by page by a pager. Carries as many descriptors as
    /// `Restore`; instead of the memory the first is the VMM's end of a SOCK_SEQPACKET pair whose other end the pager has
    /// ([`pager`]). Answered like `Load`.
    RestorePaged(RestoreSpec),
    /// Bring a Linux guest back in a VMM for Linux guests that was started for it, its memory page by page by a pager. Carries as
    /// many descriptors as `RestoreLinux`; instead of the memory the first is the VMM's end of such a pair. Answered like
    /// `LoadLinux`.
    RestoreLinuxPaged(linux::LinuxRestore),
    /// Put a guest that was brought back by `Restore` or `RestoreLinux` back to its snapshot once more: in the same VM, as another
    /// generation, with nothing left of what it did since. Answered as its bringing back was, or by `NotTold` if that cannot be; the
    /// guest goes on then. A Wasm guest as soon as it is idle; a request that has half arrived on the invoke connection goes with that
    /// connection. A Linux guest at once, and its streams end; one with a disk that keeps what is written to it is not put back.
    Reset,
}

/// A snapshot, without what its descriptors carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSpec {
    /// What [`ControlReply::Snapshot`] gave.
    pub state: Vec<u8>,
    /// A label for logs: ASCII `[a-z0-9-]`.
    pub label: String,
}

/// Everything a VM needs to become a function's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// What the guest is told.
    pub function: FunctionSpec,
    /// Memory of the function: what its heap window holds.
    pub memory_bytes: u64,
    /// The instruction sets the code was compiled for.
    pub isa: IsaSet,
    /// Bytes of code in the first descriptor.
    pub code_len: u64,
    /// Bytes of the archive in the second descriptor; 0 means there is none.
    pub task_len: u64,
    /// How long init may take.
    pub init_timeout_ms: u32,
    /// A label for logs: ASCII `[a-z0-9-]`.
    pub label: String,
}

/// VMM to agent on a control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlReply {
    /// The function is initialised and waits for events.
    Loaded {
        /// From the request's arrival to `Ready`.
        init_us: u64,
        /// Of which building the VM's contents, before the guest ran.
        build_us: u64,
        /// What the function logged during init.
        log: Vec<u8>,
    },
    /// Loading failed; the VMM exits after saying so. (Only a second `Load` does no harm: it is refused, and the
    /// function that is there goes on.)
    LoadFailed {
        /// Whose fault and how.
        reason: LoadError,
        /// What the function logged during init.
        log: Vec<u8>,
    },
    /// Answer to `Status`.
    Status(Status),
    /// Answer to `Shutdown`.
    Stopping,
    /// Answer to `Snapshot`: the memory is in its file, which is the caller's to cut to its length and to seal.
    Snapshot {
        /// Bytes of memory in the file.
        memory_len: u64,
        /// The rest, an envelope of `warren-state`.
        state: Vec<u8>,
    },
    /// Answer to `Snapshot`: there is none. The guest goes on.
    NoSnapshot {
        /// Why.
        reason: String,
    },
    /// Answer to `LoadLinux`: memory is filled and the vCPUs run. How the guest ends, the VMM's exit status says.
    Started {
        /// From the request's arrival to the first vCPU's start.
        build_us: u64,
    },
    /// The guest was told. Whether it listens, it alone knows.
    Told,
    /// There is no guest that could be told, or it has no such device.
    NotTold {
        /// Why.
        why: String,
    },
    /// Answer to `Balloon`.
    Balloon(linux::BalloonStatus),
    /// Answer to `Memory`.
    Memory(linux::MemoryStatus),
}

/// Why a load failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadError {
    /// The request does not fit this VM (already loaded, too large, wrong ISA, unsealed descriptor): the caller's fault.
    Refused(String),
    /// The function's own fault.
    Function {
        /// Which kind.
        error: FunctionError,
        /// Its text.
        detail: String,
    },
    /// Init ran past its time.
    TimedOut,
    /// The guest broke the contract or died.
    Guest(String),
    /// The host failed the VMM.
    Host(String),
    /// The pager went before it was told what to bring: what was to be restored may be good, and another pager brings it.
    Pager(String),
}

/// A VM's state, as in the drawing at the top of the monitor's `vcpu` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmState {
    /// Process up, VM made, nothing loaded: a zygote.
    Empty,
    /// Init runs.
    Initialising,
    /// Waits for an event.
    Idle,
    /// Runs an event.
    Busy,
    /// About to exit.
    Dead,
}

/// A snapshot of the VM's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where it is.
    pub state: VmState,
    /// The label of the load.
    pub label: String,
    /// Events finished.
    pub invocations: u64,
    /// Id of the event that runs, if one does.
    pub running: Option<String>,
    /// Exits of the vCPU so far.
    pub exits: u64,
}

/// Agent to VMM on an invoke connection; `payload_len` raw bytes follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokeRequest {
    /// The request id.
    pub id: String,
    /// Time the handler has, from when the guest gets the event.
    pub timeout_ms: u32,
    /// JSON context handed to the function, at most [`warren_abi::mailbox::CONTEXT_MAX`] bytes.
    pub context: Vec<u8>,
    /// Raw bytes that follow, at most [`warren_abi::mailbox::PAYLOAD_MAX`].
    pub payload_len: u32,
}

/// VMM to agent on an invoke connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvokeReply {
    /// Bytes the function logged, in order.
    Log(Vec<u8>),
    /// The end of the event; `payload_len` raw bytes follow.
    Done(Done),
}

/// How an event ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Success, or whose fault.
    pub outcome: Outcome,
    /// From handing the event over to the doorbell.
    pub handler_us: u64,
    /// Highest memory in use as the guest said, cut at the VM's size.
    pub memory_peak_bytes: u64,
    /// Raw response bytes that follow.
    pub payload_len: u32,
    /// Exits of the vCPU that this event took.
    pub exits: u64,
}

/// Success, or whose fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A response follows.
    Response,
    /// The function failed; the sandbox goes on.
    Function {
        /// Which kind.
        error: FunctionError,
        /// Exit code for [`FunctionError::Exit`].
        exit_code: u32,
        /// Its text.
        detail: String,
    },
    /// The deadline passed; the VMM exits after this message.
    TimedOut,
    /// The guest broke the contract, faulted or died; the VMM exits after this message.
    Guest(String),
    /// Shutdown was asked for while the event ran.
    Stopped,
}
