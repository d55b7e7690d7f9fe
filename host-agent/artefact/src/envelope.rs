//! An artefact as one byte string, for stores and for the wire.
//!
//! ```text
//! 0   b"WRNARTF" version:u8
//! 8   u32 LE: bytes of signed metadata
//! 12  signed metadata (see [`crate::signing`])
//!     zeros up to the next multiple of 4096
//!     code, to the end
//! ```
//! The code begins on a page, so a file of this form can be mapped.

use crate::metadata::{FORMAT_VERSION, Metadata};
use crate::signing::{MAX_METADATA_BYTES, SigningKey, VerifyError, VerifyingKey, sign, verify};
use warren_abi::window;

#[expect(clippy::cast_possible_truncation, reason = "format versions are small and this is a constant")]
const MAGIC: [u8; 8] = [b'W', b'R', b'N', b'A', b'R', b'T', b'F', FORMAT_VERSION as u8];
const PAGE: usize = 4096;

/// Most bytes of code in an artefact: what the guest's code window holds.
pub const MAX_CODE_BYTES: u64 = window::CODE.max_len;
/// Most bytes of a whole envelope.
pub const MAX_ENVELOPE_BYTES: u64 = MAX_CODE_BYTES + (MAX_METADATA_BYTES + 2 * PAGE) as u64;

/// An artefact that was verified. Holding one proves that a trusted builder signed exactly this code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artefact {
    metadata: Metadata,
    envelope: Vec<u8>,
    code_offset: usize,
}

/// Why bytes are no artefact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// They do not have the form: damaged, cut short, or of another version.
    #[error("not an artefact of format {FORMAT_VERSION}: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// They have the form, but are not believed.
    #[error("artefact refused")]
    Refused(#[from] VerifyError),
}

/// Puts signed metadata and code together.
#[must_use]
pub fn seal(signed: &[u8], code: &[u8]) -> Vec<u8> {
    let offset = code_offset(signed.len());
    let mut bytes = Vec::with_capacity(offset + code.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&u32::try_from(signed.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(signed);
    bytes.resize(offset, 0);
    bytes.extend_from_slice(code);
    bytes
}

impl Artefact {
    /// Signs fresh code. Fails when `metadata` does not describe `code`.
    pub fn sign(metadata: &Metadata, code: &[u8], key: &SigningKey) -> Result<Self, EnvelopeError> {
        Self::open(seal(&sign(metadata, key), code), &[key.verifying_key()])
    }

    /// Opens an envelope: checks its form, then everything [`verify`] checks.
    pub fn open(envelope: Vec<u8>, trusted: &[VerifyingKey]) -> Result<Self, EnvelopeError> {
        let malformed = |what| EnvelopeError::Malformed { what };
        let rest = envelope.strip_prefix(&MAGIC).ok_or(malformed("unknown beginning"))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(malformed("cut short"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_METADATA_BYTES {
            return Err(malformed("metadata too long"));
        }
        let signed = rest.get(..length).ok_or(malformed("metadata cut short"))?;
        let code_offset = code_offset(length);
        let padding =
            envelope.get(MAGIC.len() + 4 + length..code_offset).ok_or(malformed("padding cut short"))?;
        // The padding is the one part no signature covers: it must say nothing.
        if padding.iter().any(|byte| *byte != 0) {
            return Err(malformed("padding is not zero"));
        }
        let code = envelope.get(code_offset..).ok_or(malformed("no code"))?;
        let metadata = verify(signed, code, trusted)?;
        Ok(Self { metadata, envelope, code_offset })
    }

    /// What is known of it.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The code: exactly the bytes Wasmtime's precompilation gave.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        self.envelope.get(self.code_offset..).unwrap_or_default()
    }

    /// The whole envelope, to pass on.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
}

const fn code_offset(signed_len: usize) -> usize {
    (MAGIC.len() + 4 + signed_len).next_multiple_of(PAGE)
}
