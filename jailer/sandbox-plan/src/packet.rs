//! The bytes of the jailer's messages: one packet, one message, nothing after it.
//!
//! A packet comes from outside: [`decode_request`] is the one door. Holding the [`Request`] it returns proves that the
//! names in it are valid and that as many descriptors came along as it needs; it proves nothing about those
//! descriptors or the limits asked for.

use crate::request::{MAX_PACKET, Program, Reply, Request};
use alloc::vec::Vec;
use serde::{Serialize, de::DeserializeOwned};

/// Why a packet was refused; always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// Longer than [`MAX_PACKET`].
    TooLong,
    /// No message of this protocol.
    Malformed,
    /// Bytes after the message.
    Trailing,
    /// Not as many descriptors as the message needs.
    Descriptors {
        /// What the message needs.
        expected: usize,
        /// What came.
        got: usize,
    },
}

impl core::fmt::Display for PacketError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong => write!(f, "packet longer than {MAX_PACKET} bytes"),
            Self::Malformed => f.write_str("not a message of this protocol"),
            Self::Trailing => f.write_str("bytes after the message"),
            Self::Descriptors { expected, got } => write!(f, "{got} descriptors came, {expected} are needed"),
        }
    }
}

impl core::error::Error for PacketError {}

/// How many descriptors a request carries.
#[must_use]
pub const fn descriptors_of(request: &Request) -> usize {
    match request {
        Request::Spawn(spawn) => match spawn.program {
            Program::Vmm
            | Program::Restore
            | Program::PagedRestore
            | Program::Linux(_)
            | Program::PagedLinux(_) => 2,
            Program::Compile(_) => 3,
            Program::Pager(_) => 6,
        },
        Request::Hello { .. }
        | Request::Kill { .. }
        | Request::List
        | Request::ListAfter { .. }
        | Request::Network
        | Request::Log { .. } => 0,
    }
}

/// Turns a packet that came with `descriptors` descriptors into a request.
pub fn decode_request(packet: &[u8], descriptors: usize) -> Result<Request, PacketError> {
    let request: Request = decode(packet)?;
    let expected = descriptors_of(&request);
    if expected == descriptors {
        Ok(request)
    } else {
        Err(PacketError::Descriptors { expected, got: descriptors })
    }
}

/// Turns a packet of the jailer into a reply.
pub fn decode_reply(packet: &[u8]) -> Result<Reply, PacketError> {
    decode(packet)
}

/// The bytes of a message. `None` if it does not fit a packet.
pub fn encode<T: Serialize>(message: &T) -> Option<Vec<u8>> {
    postcard::to_allocvec(message).ok().filter(|bytes| bytes.len() <= MAX_PACKET)
}

fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, PacketError> {
    if packet.len() > MAX_PACKET {
        return Err(PacketError::TooLong);
    }
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(PacketError::Trailing),
        Err(_) => Err(PacketError::Malformed),
    }
}

#[cfg(test)]
mod tests;
