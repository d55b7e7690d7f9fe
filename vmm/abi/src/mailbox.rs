//! The mailbox: one fixed region in which the monitor puts events and the guest puts replies and logs.
//!
//! ```text
//! +0x0000  EventHeader      written by the monitor before it lets the guest run
//! +0x1000  ReplyHeader      written by the guest before it rings the doorbell
//! +0x2000  reply detail     UTF-8 text of an error (written by the guest)
//! +0x1_0000  log area       bytes of stdout/stderr not yet taken (written by the guest)
//! +0x10_0000  event area    context, then payload
//! +0x80_0000  reply area    response payload
//! ```
//! The log area is shared memory, so what a function logged before it was stopped is not lost: the guest appends,
//! then stores `log_len`; the monitor drains it at every exit and at the end, and sets `log_len` to 0 while the
//! vCPU is held.

use crate::outcome::FunctionError;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of [`EventHeader`] in the mailbox window.
pub const EVENT_HEADER_OFFSET: u64 = 0;
/// Offset of [`ReplyHeader`].
pub const REPLY_HEADER_OFFSET: u64 = 0x1000;
/// Offset of the reply's error text.
pub const DETAIL_OFFSET: u64 = 0x2000;
/// Most bytes of error text.
pub const DETAIL_MAX: u64 = 0x4000;
/// Offset of the log area.
pub const LOG_OFFSET: u64 = 0x1_0000;
/// Bytes of log area; a full one is flushed with [`ReplyKind::LogFlush`].
pub const LOG_MAX: u64 = 0x4_0000;
/// Offset of the event area (context, then payload).
pub const EVENT_OFFSET: u64 = 0x10_0000;
/// Most bytes of context (JSON: request id, deadline, function name, ...).
pub const CONTEXT_MAX: u64 = 0x1_0000;
/// Most bytes of payload, each way: 6 MiB.
pub const PAYLOAD_MAX: u64 = 6 << 20;
/// Offset of the reply area.
pub const REPLY_OFFSET: u64 = 0x80_0000;
/// Bytes of the whole mailbox.
pub const MAILBOX_LEN: u64 = REPLY_OFFSET + PAYLOAD_MAX;

/// What the monitor hands the guest. Little-endian, no padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct EventHeader {
    /// Counts events from 1. While init runs it is 0, and clocks, deadline and seed are valid already.
    pub sequence: u64,
    /// Raised by the monitor whenever the guest's past must be forgotten (restore, clone): the guest drops all
    /// random state and takes `seed` alone.
    pub generation: u64,
    /// Nanoseconds since the Unix epoch, at the moment the event was handed over.
    pub wall_ns: u64,
    /// Monotonic nanoseconds at the same moment.
    pub monotonic_ns: u64,
    /// Monotonic nanoseconds at which the sandbox will be stopped.
    pub deadline_ns: u64,
    /// Bytes of context at [`EVENT_OFFSET`].
    pub context_len: u32,
    /// Bytes of payload right after the context.
    pub payload_len: u32,
    /// Fresh random bytes, mixed into the guest's generator at every event.
    pub seed: [u8; 32],
}

/// What the guest says when it rings. Untrusted: copy once, then [`Reply::validate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReplyHeader {
    /// A [`ReplyKind`] as a number.
    pub kind: u32,
    /// A [`FunctionError`] as a number when `kind` is [`ReplyKind::Error`], else 0.
    pub error: u32,
    /// Exit code, when `error` is [`FunctionError::Exit`]; with [`ReplyKind::Ready`] 1 if the function drew random bytes in init,
    /// else 0.
    pub exit_code: u32,
    /// Bytes of text at [`DETAIL_OFFSET`].
    pub detail_len: u32,
    /// Bytes of response at [`REPLY_OFFSET`].
    pub payload_len: u32,
    /// Bytes waiting at [`LOG_OFFSET`].
    pub log_len: u32,
    /// Highest bytes of memory in use during this event: linear memories, tables, heap, files in `/tmp`.
    pub memory_peak_bytes: u64,
}

/// Why the guest rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ReplyKind {
    /// The guest is set up (`init` done) and waits for its first event.
    Ready = 1,
    /// A response is in the reply area.
    Response = 2,
    /// The function failed; `error` says how. After [`FunctionError::Init`] kinds at start-up the guest is unusable.
    Error = 3,
    /// The log area wants draining; the same event goes on afterwards.
    LogFlush = 4,
    /// The guest program itself panicked; the text is at [`DETAIL_OFFSET`]. The sandbox must be destroyed.
    Panic = 5,
}

/// A validated reply: every length lies inside its area. Proves nothing about the bytes themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What happened.
    pub body: ReplyBody,
    /// Bytes to drain from the log area, at most [`LOG_MAX`].
    pub log_len: u32,
    /// As the guest says; an upper bound must be applied by whoever bills.
    pub memory_peak_bytes: u64,
}

/// The validated variants of [`ReplyKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// See [`ReplyKind::Ready`].
    Ready {
        /// Whether the function drew random bytes in init: clones of it would all have the same.
        drew: bool,
    },
    /// See [`ReplyKind::Response`]; at most [`PAYLOAD_MAX`] bytes.
    Response {
        /// Bytes in the reply area.
        payload_len: u32,
    },
    /// See [`ReplyKind::Error`]; at most [`DETAIL_MAX`] bytes of text.
    Error {
        /// Which failure.
        error: FunctionError,
        /// The exit code for [`FunctionError::Exit`].
        exit_code: u32,
        /// Bytes of text.
        detail_len: u32,
    },
    /// See [`ReplyKind::LogFlush`].
    LogFlush,
    /// See [`ReplyKind::Panic`].
    Panic {
        /// Bytes of text.
        detail_len: u32,
    },
}

/// How a reply header breaks the contract; the sandbox is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// `kind` is no [`ReplyKind`].
    Kind(u32),
    /// `error` is no [`FunctionError`].
    Error(u32),
    /// `payload_len` exceeds [`PAYLOAD_MAX`].
    Payload(u32),
    /// `detail_len` exceeds [`DETAIL_MAX`].
    Detail(u32),
    /// `log_len` exceeds [`LOG_MAX`].
    Log(u32),
}

impl Reply {
    /// Turns the guest's words into bounded ones, or says which rule they break.
    pub fn validate(raw: &ReplyHeader) -> Result<Self, ReplyFault> {
        if u64::from(raw.log_len) > LOG_MAX {
            return Err(ReplyFault::Log(raw.log_len));
        }
        if u64::from(raw.detail_len) > DETAIL_MAX {
            return Err(ReplyFault::Detail(raw.detail_len));
        }
        if u64::from(raw.payload_len) > PAYLOAD_MAX {
            return Err(ReplyFault::Payload(raw.payload_len));
        }
        let body = match raw.kind {
            kind if kind == ReplyKind::Ready as u32 => ReplyBody::Ready { drew: raw.exit_code != 0 },
            kind if kind == ReplyKind::Response as u32 => {
                ReplyBody::Response { payload_len: raw.payload_len }
            }
            kind if kind == ReplyKind::Error as u32 => ReplyBody::Error {
                error: FunctionError::from_u32(raw.error).ok_or(ReplyFault::Error(raw.error))?,
                exit_code: raw.exit_code,
                detail_len: raw.detail_len,
            },
            kind if kind == ReplyKind::LogFlush as u32 => ReplyBody::LogFlush,
            kind if kind == ReplyKind::Panic as u32 => ReplyBody::Panic { detail_len: raw.detail_len },
            kind => return Err(ReplyFault::Kind(kind)),
        };
        Ok(Self { body, log_len: raw.log_len, memory_peak_bytes: raw.memory_peak_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut ReplyHeader), expect: Result<ReplyBody, ReplyFault>) {
        let mut raw = ReplyHeader { kind: ReplyKind::Response as u32, ..ReplyHeader::default() };
        change(&mut raw);
        assert_eq!(Reply::validate(&raw).map(|reply| reply.body), expect, "{raw:?}");
    }

    #[test]
    fn validation_table() {
        let six_mib = 6 << 20;
        check(|_| (), Ok(ReplyBody::Response { payload_len: 0 }));
        check(|r| r.payload_len = six_mib, Ok(ReplyBody::Response { payload_len: six_mib }));
        check(|r| r.payload_len = six_mib + 1, Err(ReplyFault::Payload(six_mib + 1)));
        check(|r| r.log_len = u32::MAX, Err(ReplyFault::Log(u32::MAX)));
        check(|r| r.detail_len = 0x4001, Err(ReplyFault::Detail(0x4001)));
        check(|r| r.kind = 1, Ok(ReplyBody::Ready { drew: false }));
        check(|r| (r.kind, r.exit_code) = (1, 1), Ok(ReplyBody::Ready { drew: true }));
        check(|r| r.kind = 0, Err(ReplyFault::Kind(0)));
        check(|r| r.kind = 6, Err(ReplyFault::Kind(6)));
        check(|r| r.kind = ReplyKind::Error as u32, Err(ReplyFault::Error(0)));
        check(
            |r| (r.kind, r.error, r.exit_code) = (ReplyKind::Error as u32, 4, 7),
            Ok(ReplyBody::Error { error: FunctionError::Exit, exit_code: 7, detail_len: 0 }),
        );
    }

    #[test]
    fn areas_do_not_overlap() {
        const { assert!(DETAIL_OFFSET + DETAIL_MAX <= LOG_OFFSET) };
        const { assert!(LOG_OFFSET + LOG_MAX <= EVENT_OFFSET) };
        const { assert!(EVENT_OFFSET + CONTEXT_MAX + PAYLOAD_MAX <= REPLY_OFFSET) };
        const { assert!(MAILBOX_LEN <= crate::window::MAILBOX.max_len) };
    }
}
