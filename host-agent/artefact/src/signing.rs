//! Who vouches for an artefact: ed25519 over its metadata.
//!
//! A signed metadata string is `b"WRNMETA" version:u8 | postcard metadata | 64 bytes of signature`. The signature
//! covers everything before it, so nothing is decoded that nobody signed.

use crate::digest::Digest;
use crate::metadata::{FORMAT_VERSION, Metadata};
use core::fmt;
use ed25519_dalek::Signer as _;
use serde::{Serialize, de::DeserializeOwned};

/// Most bytes of signed metadata that are looked at.
pub const MAX_METADATA_BYTES: usize = 64 << 10;

#[expect(clippy::cast_possible_truncation, reason = "format versions are small and this is a constant")]
const HEADER: [u8; 8] = [b'W', b'R', b'N', b'M', b'E', b'T', b'A', FORMAT_VERSION as u8];
pub(crate) const SIGNATURE_BYTES: usize = ed25519_dalek::SIGNATURE_LENGTH;

/// The builder's secret key; its memory is overwritten when it is dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key with this secret.
    #[must_use]
    pub fn from_secret(secret: &zeroize::Zeroizing<[u8; 32]>) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(secret))
    }

    /// The half that others get.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {:?})", self.verifying_key())
    }
}

/// A builder's public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

/// These 32 bytes are no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ed25519 public key: 32 bytes encoding a point of the curve are needed")]
pub struct BadPublicKey;

impl VerifyingKey {
    /// Reads a public key; keys of small order (for which signatures can be made up) are refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadPublicKey> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| BadPublicKey)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| BadPublicKey)?;
        if key.is_weak() { Err(BadPublicKey) } else { Ok(Self(key)) }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.to_bytes()).fmt(f)
    }
}

/// Why an artefact is not believed. None of these is a function author's fault: the artefact was damaged on disk or
/// on the way, comes from another release, or is a forgery. Compiling again is the answer to all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It does not begin as metadata of this format does, or is too short or too long to be any.
    #[error("not signed metadata of format {FORMAT_VERSION}")]
    Unrecognised,
    /// No trusted key made this signature over this metadata.
    #[error("the metadata is not signed by a trusted builder")]
    Untrusted,
    /// Signed by a trusted key, yet not decodable: written by another release under the same format number.
    #[error("signed metadata does not decode")]
    Undecodable(#[source] postcard::Error),
    /// The code has another length than was signed.
    #[error("code is {found} bytes, {signed} were signed")]
    CodeLength {
        /// Bytes there are.
        found: u64,
        /// Bytes the metadata names.
        signed: u64,
    },
    /// The code has another digest than was signed.
    #[error("code does not have the digest that was signed")]
    CodeDigest,
}

/// Signs metadata; the bytes are what [`verify`] takes.
///
/// # Panics
/// Never: metadata is plain data that always encodes.
#[must_use]
pub fn sign(metadata: &Metadata, key: &SigningKey) -> Vec<u8> {
    sign_value(HEADER, metadata, key)
}

/// The same for any plain data, behind a header that nothing else is signed under.
pub(crate) fn sign_value<T: Serialize>(header: [u8; 8], value: &T, key: &SigningKey) -> Vec<u8> {
    // `to_extend` into a Vec fails only for types whose length is unknown while encoding; plain data has none.
    let mut bytes = postcard::to_extend(value, header.to_vec()).unwrap_or_default();
    let signature = key.0.sign(&bytes);
    bytes.extend_from_slice(&signature.to_bytes());
    bytes
}

/// Checks the signature, then decodes the metadata, then checks length and digest of the code, in this order.
pub fn verify(signed: &[u8], code: &[u8], trusted: &[VerifyingKey]) -> Result<Metadata, VerifyError> {
    let metadata = verify_metadata(signed, trusted)?;
    let found = code.len() as u64;
    if found != metadata.code_len {
        return Err(VerifyError::CodeLength { found, signed: metadata.code_len });
    }
    if Digest::of(code) != metadata.code {
        return Err(VerifyError::CodeDigest);
    }
    Ok(metadata)
}

/// The first half of [`verify`], for callers that do not have the code at hand. What it returns says nothing yet about
/// any code.
pub fn verify_metadata(signed: &[u8], trusted: &[VerifyingKey]) -> Result<Metadata, VerifyError> {
    verify_value(HEADER, signed, trusted)
}

/// The same for what [`sign_value`] signed under this header.
pub(crate) fn verify_value<T: DeserializeOwned>(
    header: [u8; 8],
    signed: &[u8],
    trusted: &[VerifyingKey],
) -> Result<T, VerifyError> {
    if signed.len() > MAX_METADATA_BYTES {
        return Err(VerifyError::Unrecognised);
    }
    let (body, signature) = signed.split_last_chunk::<SIGNATURE_BYTES>().ok_or(VerifyError::Unrecognised)?;
    let encoded = body.strip_prefix(&header).ok_or(VerifyError::Unrecognised)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    // Strict verification: one signature has one encoding, so a changed byte never verifies by luck of the format.
    if !trusted.iter().any(|key| key.0.verify_strict(body, &signature).is_ok()) {
        return Err(VerifyError::Untrusted);
    }
    let (value, rest) = postcard::take_from_bytes(encoded).map_err(VerifyError::Undecodable)?;
    if rest.is_empty() { Ok(value) } else { Err(VerifyError::Unrecognised) }
}
