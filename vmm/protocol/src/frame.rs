//! Framing: a little-endian `u32` length, then that many bytes of postcard.
//!
//! Pure: bytes in, bytes out. Readers check [`read_len`] before they allocate.

use crate::MAX_MESSAGE;
use alloc::vec::Vec;
use serde::{Serialize, de::DeserializeOwned};

/// Bytes of the length prefix.
pub const PREFIX: usize = 4;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length is 0 or above [`MAX_MESSAGE`].
    Length(u32),
    /// The bytes do not decode, or bytes are left over.
    Malformed,
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length(len) => write!(f, "message of {len} bytes, allowed are 1 to {MAX_MESSAGE}"),
            Self::Malformed => f.write_str("message does not decode"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Encodes a message with its prefix.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut out = alloc::vec![0; PREFIX];
    out = postcard::to_extend(message, out).map_err(|_| FrameError::Malformed)?;
    let len = out.len() - PREFIX;
    let prefix = u32::try_from(len).map_err(|_| FrameError::Length(u32::MAX))?;
    if len == 0 || len > MAX_MESSAGE {
        return Err(FrameError::Length(prefix));
    }
    if let Some(head) = out.first_chunk_mut::<PREFIX>() {
        *head = prefix.to_le_bytes();
    }
    Ok(out)
}

/// Reads the prefix: how many bytes to read next.
pub fn read_len(prefix: [u8; PREFIX]) -> Result<usize, FrameError> {
    let raw = u32::from_le_bytes(prefix);
    match usize::try_from(raw) {
        Ok(len) if (1..=MAX_MESSAGE).contains(&len) => Ok(len),
        _ => Err(FrameError::Length(raw)),
    }
}

/// Decodes a whole body; leftover bytes are an error.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ControlRequest, Hello, Role};

    #[test]
    fn round_trip_and_refusals() {
        let hello = Hello { version: 1, role: Role::Invoke };
        let bytes = encode(&hello).unwrap();
        let (prefix, body) = bytes.split_at(PREFIX);
        assert_eq!(read_len(prefix.try_into().unwrap()), Ok(body.len()));
        assert_eq!(decode::<Hello>(body), Ok(hello));
        assert_eq!(decode::<Hello>(&[body, &[0]].concat()), Err(FrameError::Malformed));
        // No request has that number.
        assert_eq!(decode::<ControlRequest>(&[0x7F]), Err(FrameError::Malformed));
        assert_eq!(read_len([0; 4]), Err(FrameError::Length(0)));
        assert_eq!(read_len([0xFF; 4]), Err(FrameError::Length(u32::MAX)));
    }
}
