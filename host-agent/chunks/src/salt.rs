//! Salts: who shares chunks with whom, and for how long.
//!
//! A chunk's key is derived from its plaintext and a salt, so equal plaintexts give one stored chunk exactly where they
//! have one salt. Each kind of layer has its own; a new salt of a kind begins a new set of chunks, which bounds what a
//! lost or leaked one can cost. Manifests name the salt of each chunk, and old ones go on opening: a key is in the
//! manifest, a salt is needed to seal alone.

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroize as _;

/// What a layer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LayerKind {
    /// A distribution: shared by all.
    Os,
    /// A runtime, or the memory of one that has just begun.
    Runtime,
    /// A function's own.
    Function,
}

/// Which salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SaltId {
    /// Of which kind of layer.
    pub kind: LayerKind,
    /// The how many-th of it.
    pub epoch: u32,
}

/// A salt: secret, for whoever has it can ask a store whether it holds a plaintext they guess.
#[derive(Clone)]
pub struct Salt(pub(crate) [u8; 32]);

impl Salt {
    /// From 32 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Drop for Salt {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// The salt that new chunks of a kind are sealed with.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its name in manifests.
    pub id: SaltId,
    /// Itself.
    pub salt: Salt,
}

/// The newest salt of each kind, derived from one secret of the fleet: nothing but that secret and three numbers is kept.
#[derive(Clone)]
pub struct Salts {
    secret: Salt,
    epochs: [u32; 3],
}

impl Salts {
    /// Salts of a secret, each kind at its epoch (os, runtime, function).
    #[must_use]
    pub const fn new(secret: [u8; 32], epochs: [u32; 3]) -> Self {
        Self { secret: Salt(secret), epochs }
    }

    /// The newest of a kind.
    #[must_use]
    pub fn newest(&self, kind: LayerKind) -> Domain {
        let [os, runtime, function] = self.epochs;
        let epoch = match kind {
            LayerKind::Os => os,
            LayerKind::Runtime => runtime,
            LayerKind::Function => function,
        };
        let id = SaltId { kind, epoch };
        Domain { id, salt: self.salt(id) }
    }

    /// Any of them, older ones too.
    #[must_use]
    pub fn salt(&self, id: SaltId) -> Salt {
        let mut hasher = blake3::Hasher::new_derive_key("warren chunks 2026 salt of a layer kind");
        hasher.update(&self.secret.0);
        hasher.update(&[id.kind as u8]);
        hasher.update(&id.epoch.to_le_bytes());
        Salt(*hasher.finalize().as_bytes())
    }

    /// Begins the next salt of a kind.
    pub const fn rotate(&mut self, kind: LayerKind) {
        let [os, runtime, function] = &mut self.epochs;
        let epoch = match kind {
            LayerKind::Os => os,
            LayerKind::Runtime => runtime,
            LayerKind::Function => function,
        };
        *epoch = epoch.saturating_add(1);
    }
}

impl fmt::Debug for Salts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salts").field("epochs", &self.epochs).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_epochs_differ_and_old_ones_can_be_had() {
        let mut salts = Salts::new([1; 32], [0; 3]);
        let before = salts.newest(LayerKind::Runtime);
        assert_ne!(before.salt.0, salts.newest(LayerKind::Os).salt.0);
        salts.rotate(LayerKind::Runtime);
        let after = salts.newest(LayerKind::Runtime);
        assert_eq!((before.id.epoch, after.id.epoch), (0, 1));
        assert_ne!(before.salt.0, after.salt.0);
        assert_eq!(before.salt.0, salts.salt(before.id).0);
        assert_eq!(salts.newest(LayerKind::Os).id.epoch, 0);
    }
}
