//! Sealing a chunk: convergent, so that equal plaintexts under one salt are one object, whoever they belong to.
//!
//! ```text
//! key  = blake3-keyed(salt, plaintext)
//! sealed = AES-256-GCM-SIV(key, nonce 0, plaintext)      one plaintext a key, so the nonce may be fixed
//! name = blake3(sealed)
//! ```
//! Opening goes the other way: the name is held against the bytes before a key touches them, then the seal.

use crate::{
    name::{ChunkKey, Name},
    pages::MAX_CHUNK_BYTES,
    salt::Salt,
};
use aes_gcm_siv::{
    Aes256GcmSiv, Key, KeyInit as _, Nonce,
    aead::{AeadInOut as _, Buffer},
};
use bytes::Bytes;

/// What the seal of a chunk binds beside its bytes.
const CHUNK: &[u8] = b"warren chunk 1";
/// What a seal adds to a plaintext.
pub const TAG_BYTES: usize = 16;

/// A chunk as it is stored, and what opens it.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What it is called.
    pub name: Name,
    /// What opens it.
    pub key: ChunkKey,
    /// What is stored.
    pub bytes: Bytes,
}

/// Why sealed bytes were not opened. Never the reader's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Whoever gave the bytes gave others than were asked for.
    #[error("the bytes are not those of their name")]
    NotItsName,
    /// The bytes are those of the name, and the key does not open them: the manifest that says so is wrong.
    #[error("the key does not open the chunk")]
    NotItsKey,
    /// It opens, and holds another number of bytes than its manifest says.
    #[error("the chunk holds another number of pages than its manifest says")]
    NotItsLength,
}

/// Seals a plaintext of at most [`MAX_CHUNK_BYTES`].
///
/// # Errors
/// Longer ones, which nothing in this crate makes.
pub fn seal(salt: &Salt, plaintext: &[u8]) -> Result<Sealed, TooLong> {
    if plaintext.len() > MAX_CHUNK_BYTES {
        return Err(TooLong);
    }
    let key = ChunkKey(*blake3::keyed_hash(&salt.0, plaintext).as_bytes());
    let mut bytes = Vec::with_capacity(plaintext.len().saturating_add(TAG_BYTES));
    bytes.extend_from_slice(plaintext);
    encrypt(&key.0, &[0; 12], CHUNK, &mut bytes).map_err(|_| TooLong)?;
    Ok(Sealed { name: Name::of(&bytes), key, bytes: bytes.into() })
}

/// A plaintext is longer than any chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chunk cannot be that long")]
pub struct TooLong;

/// Opens a chunk: exactly `length` bytes, those that were sealed.
pub fn open(name: &Name, key: &ChunkKey, length: usize, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    if !name.is_of(sealed) {
        return Err(OpenError::NotItsName);
    }
    let mut plain = sealed.to_vec();
    decrypt(&key.0, &[0; 12], CHUNK, &mut plain).map_err(|_| OpenError::NotItsKey)?;
    if plain.len() == length { Ok(plain) } else { Err(OpenError::NotItsLength) }
}

pub(crate) fn encrypt(
    key: &[u8; 32],
    nonce: &[u8; 12],
    bound: &[u8],
    buffer: &mut dyn Buffer,
) -> Result<(), aes_gcm_siv::Error> {
    Aes256GcmSiv::new(&Key::<Aes256GcmSiv>::from(*key)).encrypt_in_place(&Nonce::from(*nonce), bound, buffer)
}

pub(crate) fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; 12],
    bound: &[u8],
    buffer: &mut dyn Buffer,
) -> Result<(), aes_gcm_siv::Error> {
    Aes256GcmSiv::new(&Key::<Aes256GcmSiv>::from(*key)).decrypt_in_place(&Nonce::from(*nonce), bound, buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn salt(byte: u8) -> Salt {
        Salt::new([byte; 32])
    }

    #[test]
    fn equal_plaintexts_are_one_object_under_one_salt_alone() {
        let (one, same, other) = (
            seal(&salt(1), b"page").unwrap(),
            seal(&salt(1), b"page").unwrap(),
            seal(&salt(2), b"page").unwrap(),
        );
        assert_eq!((one.name, &one.bytes), (same.name, &same.bytes));
        assert_ne!(one.name, other.name);
        assert!(!one.bytes.windows(4).any(|part| part == b"page"));
    }

    #[test]
    fn what_is_not_as_it_was_said_is_refused() {
        let (one, other) = (seal(&salt(1), b"page").unwrap(), seal(&salt(1), b"egap").unwrap());
        assert_eq!(open(&one.name, &one.key, 4, &one.bytes).unwrap(), b"page");
        assert_eq!(open(&one.name, &one.key, 4, &other.bytes), Err(OpenError::NotItsName));
        assert_eq!(open(&one.name, &other.key, 4, &one.bytes), Err(OpenError::NotItsKey));
        assert_eq!(open(&one.name, &one.key, 5, &one.bytes), Err(OpenError::NotItsLength));
        assert_eq!(open(&Name::of(b""), &one.key, 0, b""), Err(OpenError::NotItsKey));
        assert!(seal(&salt(1), &vec![0; MAX_CHUNK_BYTES + 1]).is_err());
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_refused_by_the_name_and_by_the_seal(
            plain in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let sealed = seal(&salt(3), &plain).unwrap();
            let mut bytes = sealed.bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(open(&sealed.name, &sealed.key, plain.len(), &bytes), Err(OpenError::NotItsName));
            // A store that renames its lie as well: the key is of another plaintext.
            prop_assert_eq!(open(&Name::of(&bytes), &sealed.key, plain.len(), &bytes), Err(OpenError::NotItsKey));
        }
    }
}
