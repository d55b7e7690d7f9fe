//! Names and keys: the two halves of knowing a chunk.
//!
//! A name says where sealed bytes lie and is no secret; a key opens them and travels only in sealed manifests.

use std::fmt;
use zeroize::Zeroize as _;

/// BLAKE3 of a sealed object's bytes: what it is stored, asked for and verified by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub [u8; 32]);

impl Name {
    /// The name of these sealed bytes.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        Self(*blake3::hash(sealed).as_bytes())
    }

    /// Reads 64 hex digits, lower case alone: one name has one spelling.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }

    /// Whether these are the bytes it names.
    #[must_use]
    pub fn is_of(&self, sealed: &[u8]) -> bool {
        Self::of(sealed) == *self
    }

    /// Two hex digits: the folder it lies in.
    #[must_use]
    pub fn shard(&self) -> String {
        format!("{:02x}", self.0[0])
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What opens one chunk. Derived from the plaintext, so equal plaintexts under one salt have equal keys.
#[derive(Clone, PartialEq, Eq)]
pub struct ChunkKey(pub(crate) [u8; 32]);

impl Drop for ChunkKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkKey(..)")
    }
}

/// A tenant's key, which manifests are sealed under. Where it comes from is the caller's affair.
#[derive(Clone)]
pub struct TenantKey([u8; 32]);

impl TenantKey {
    /// From 32 secret bytes.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The secret itself, for the process that opens manifests for this one.
    #[must_use]
    pub const fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    /// Another key for one purpose: what is learned of one purpose says nothing of another.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }

    /// Which key this is, told to nobody who does not have it: a wrong key is an error of its own.
    #[must_use]
    pub fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(self.derive("warren chunks 2026 tenant key id")) {
            *to = from;
        }
        id
    }
}

impl Drop for TenantKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        let name = Name::of(b"bytes");
        assert_eq!(Name::from_hex(&name.to_string()), Some(name));
        assert_eq!(Name::from_hex(&name.to_string().to_uppercase()), None);
        assert_eq!(Name::from_hex("00"), None);
        assert!(name.is_of(b"bytes") && !name.is_of(b"other"));
    }

    #[test]
    fn keys_are_not_printed() {
        let (chunk, tenant) = (ChunkKey([7; 32]), TenantKey::new([7; 32]));
        assert_eq!(format!("{chunk:?} {tenant:?}"), "ChunkKey(..) TenantKey(..)");
    }
}
