//! What host and guest say to each other on vsock port 1 of a Linux function's sandbox.
//!
//! ```text
//!  host                                        guest (warren-init, port [`PORT`])
//!   | GuestRequest::Configure ------------------->| disks, files, clock, extensions, runtime
//!   |<---------------------- GuestReply::Log * ---|
//!   |<--- GuestReply::Ready or ::InitFailed ------|  from here on the guest says InvokeReply only
//!   | GuestRequest::Invoke + raw payload -------->|  one at a time
//!   |<--------------------- InvokeReply::Log * ---|
//!   |<------- InvokeReply::Done + raw payload ----|
//!   | GuestRequest::Shutdown -------------------->| SHUTDOWN to extensions, at most [`SHUTDOWN_BUDGET_MS`]
//!   |<--------------------- InvokeReply::Log * ---| closes, powers off
//! ```
//! A guest that is to be written down is made for it ([`SandboxKind::Snapshot`]), and each that is brought back is told so before
//! anything of its function runs on:
//! ```text
//!   | ... Ready, as above                         |
//!   | GuestRequest::HoldStill ------------------->| programs are held, everything said has left
//!   |<------------------------ GuestReply::Still -|  the host writes it down, and ends this one
//!
//!  host, on a connection to what was brought back |  connections of the life before are over
//!   | GuestRequest::Restored -------------------->| another name, randomness, time: of its own from here on
//!   |<----------------- GuestReply::Acknowledged -|  only now programs run: hooks of the function that wait for it
//!   |<---------------------- GuestReply::Log * ---|
//!   |<--- GuestReply::Ready or ::InitFailed ------|  from here on InvokeReply, as above
//! ```
//! A guest that no function is in yet is written down the same way, for all functions that begin with it: what is brought back is
//! configured once it is one of its own. Its task disk is empty until then, and has the function's files in what is brought back:
//! ```text
//!   | GuestRequest::HoldStill ------------------->| in place of Configure
//!   |<------------------------ GuestReply::Still -|  the host writes it down, and ends this one
//!
//!  host, on a connection to what was brought back |
//!   | GuestRequest::Restored -------------------->|
//!   |<----------------- GuestReply::Acknowledged -|
//!   | GuestRequest::Configure ------------------->| and so on, as above
//! ```
//! Framing is [`crate::frame`]'s; an event's payload follows its request raw, as does an answer's. The events' messages are
//! those of the Wasm guest, so that the agent's way of invoking is one.
//!
//! - **Logs are whole lines**, each with its newline. What was written between two events comes first in the second.
//! - **A function's error brings its document**: after [`crate::Outcome::Function`] the payload is the JSON object
//!   (`errorType`, `errorMessage`, `stackTrace`) that the runtime posted, or one made for it; `detail` is
//!   `errorType: errorMessage`, cut at [`DETAIL_MAX`].
//! - **After [`crate::Outcome::TimedOut`] the guest ends**: its extensions are told, then it powers off. The host need not wait.
//! - **After `Still`** a connection that is not the one it was said on belongs to another life, or may: nothing but `Restored` and
//!   `Shutdown` is taken on it, so that no copy runs an event with the randomness of another. `Restored` is for a guest that
//!   said `Still`; its generation, once acknowledged, is acknowledged again and does nothing more.
//! - **`Done::exits` is 0**: the guest cannot know.
//!
//! # The context of an event
//! `InvokeRequest::context` is a JSON object. What the guest reads of it, all optional: `request_id` (otherwise the event's
//! id up to a `/`), `deadline_unix_ms` (the host's clock; with the timeout it also says what time it is), `invoked_arn`,
//! `trace_id`, `client_context` and `identity` (strings, handed on as they are).
//!
//! # What each side may believe
//! The guest believes the host's numbers and still takes no message that breaks a bound: a bound is part of a type here, so
//! what breaks it does not decode. The host believes nothing but bounds.

mod config;
mod text;

pub use config::{GuestConfig, LogFormat, Mib, Millis, Network, Restored, SandboxKind};
pub use text::{Environment, Refused, Text};

use crate::InvokeRequest;
use alloc::{boxed::Box, vec::Vec};
use serde::{Deserialize, Serialize};

/// The version of these messages; part of [`GuestConfig`] and [`Restored`].
pub const GUEST_VERSION: u32 = 3;
/// The vsock port that the guest listens on.
pub const PORT: u32 = 1;
/// What an orderly shutdown may take before the guest ends whatever runs.
pub const SHUTDOWN_BUDGET_MS: u32 = 2000;
/// What a function's hooks may take after a restore, as on Lambda.
pub const RESTORE_LIMIT_MS: u32 = 10_000;
/// Most bytes of one log message.
pub const LOG_MAX: usize = 64 << 10;
/// Most bytes of an error's text.
pub const DETAIL_MAX: usize = 16 << 10;

/// Host to guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestRequest {
    /// Become this function's sandbox. Once, and first.
    Configure(Box<GuestConfig>),
    /// Run an event; its payload follows.
    Invoke(InvokeRequest),
    /// End in order.
    Shutdown,
    /// Hold still, to be written down: for a guest that is ready and has no event, or is not configured yet.
    HoldStill,
    /// It was brought back from a snapshot, and is another one from here on.
    Restored(Box<Restored>),
}

/// Guest to host, until it is ready, and about snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestReply {
    /// Lines that runtime and extensions wrote during init, or after a restore.
    Log(LogBytes),
    /// Everything asked for the next event, or waits to be written down.
    Ready {
        /// From `Configure` or `Restored` to here.
        init_us: u64,
    },
    /// Init failed. If [`InitFailure::may_be_tried_again`], the guest stays: an event that comes nevertheless starts over
    /// inside its own time, as Lambda does. Otherwise it powers off.
    InitFailed {
        /// From `Configure` or `Restored` to here.
        init_us: u64,
        /// Whose fault and how.
        error: InitError,
    },
    /// Answer to `HoldStill`: nothing is on its way, and nothing will be until `Restored` or, on this connection, an event.
    Still {
        /// Whether programs are held, too. A kernel that cannot hold them is not to be written down.
        held: bool,
    },
    /// Answer to `Restored`: the kernel's random numbers, the clock and the name are this one's own. Nothing of the function has
    /// run since it was brought back. One that was not configured waits for `Configure` now, any other says `Ready`.
    Acknowledged,
}

/// A failed init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitError {
    /// Which way.
    pub failure: InitFailure,
    /// As Lambda names it: `Runtime.ExitError`, `Sandbox.Timedout`, or what the runtime itself said.
    pub error_type: Text<256>,
    /// What people read.
    pub message: Text<DETAIL_MAX>,
}

/// The ways init fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitFailure {
    /// It was not done in time.
    TimedOut,
    /// The runtime said so (`/runtime/init/error`): the function's fault.
    Runtime,
    /// The runtime ended, or could not be started: the function's fault.
    Exited,
    /// An extension said so, ended, or could not be started: the function's fault.
    Extension,
    /// The archive of its files was refused: the function's fault.
    Task,
    /// The guest itself could not be set up: the host's fault.
    Guest,
    /// What the function runs after a restore failed, ended, or took too long: the function's fault.
    Restore,
}

impl InitFailure {
    /// Whether the guest is there for another try.
    #[must_use]
    pub const fn may_be_tried_again(self) -> bool {
        matches!(self, Self::TimedOut | Self::Runtime | Self::Exited | Self::Extension)
    }
}

/// At most [`LOG_MAX`] bytes of log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct LogBytes(Vec<u8>);

impl LogBytes {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for LogBytes {
    type Error = Refused;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Refused> {
        if bytes.len() > LOG_MAX { Err(Refused::TooLong { most: LOG_MAX }) } else { Ok(Self(bytes)) }
    }
}

impl From<LogBytes> for Vec<u8> {
    fn from(log: LogBytes) -> Self {
        log.0
    }
}

#[cfg(test)]
mod tests;
