//! What names an artefact and what is known of one.

use crate::digest::Digest;
use crate::settings::SETTINGS_VERSION;
use core::fmt;
use serde::{Deserialize, Serialize};
use warren_abi::isa::IsaSet;

/// Version of [`Metadata`] and of the envelope around it; another version is refused, not guessed at.
pub const FORMAT_VERSION: u32 = 1;

/// What compiled code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// Runs in the Wasm guest.
    Function,
    /// Runs in the policy engine.
    Policy,
}

impl Purpose {
    /// The word on the command line and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Policy => "policy",
        }
    }

    /// The purpose with this [`Purpose::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Function, Self::Policy].into_iter().find(|purpose| purpose.name() == name)
    }
}

/// The contract a module was found to fulfil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum World {
    /// A core module of WASI preview 1: `_start`, event on stdin, response on stdout.
    Preview1,
    /// A component of `warren:function`: `init` once, `handle` for each event.
    Function,
    /// A policy component exporting `packer`.
    Packing,
    /// A policy component exporting `placer`.
    Placement,
    /// A policy component exporting `router`.
    Routing,
}

/// The linear memories a module declares, added up over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryDemand {
    /// Bytes there from the first instruction on.
    pub initial_bytes: u64,
    /// Most bytes it may ever have; `None` when a memory declares no maximum.
    pub max_bytes: Option<u64>,
}

/// Everything known of an artefact beside its code. Only what [`crate::verify`] returned deserves belief.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// What it was compiled for.
    pub purpose: Purpose,
    /// What it fulfils.
    pub world: World,
    /// Digest of the module it was compiled from.
    pub source: Digest,
    /// Digest of the code.
    pub code: Digest,
    /// Bytes of code.
    pub code_len: u64,
    /// The instruction sets its code may use.
    pub isa: IsaSet,
    /// The Wasmtime release that compiled it.
    pub wasmtime: String,
    /// [`SETTINGS_VERSION`] when it was compiled.
    pub settings: u32,
    /// What its memories ask for.
    pub memory: MemoryDemand,
    /// What it imports, `module.name`, sorted, shortened to a summary.
    pub imports: Vec<String>,
    /// Seconds since the Unix epoch when it was compiled.
    pub created_unix_s: u64,
}

impl Metadata {
    /// The key this artefact belongs under.
    #[must_use]
    pub fn key(&self) -> ArtefactKey {
        ArtefactKey::derive(self.source, self.purpose, self.isa, &self.wasmtime, self.settings)
    }
}

/// Everything a compiler, an agent and a guest must agree on before one's code is the other's, in words.
#[must_use]
pub fn code_version() -> String {
    let (abi, wasmtime) = (warren_abi::ABI_VERSION, warren_abi::WASMTIME_VERSION);
    format!("artefact {FORMAT_VERSION}, settings {SETTINGS_VERSION}, guest ABI {abi}, Wasmtime {wasmtime}")
}

/// The name of an artefact: equal keys are equal code, up to the compiler's own determinism.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArtefactKey([u8; 32]);

impl ArtefactKey {
    /// The key under which this build of Warren looks for the artefact of a module.
    #[must_use]
    pub fn new(source: Digest, purpose: Purpose, isa: IsaSet) -> Self {
        Self::derive(source, purpose, isa, warren_abi::WASMTIME_VERSION, SETTINGS_VERSION)
    }

    fn derive(source: Digest, purpose: Purpose, isa: IsaSet, wasmtime: &str, settings: u32) -> Self {
        // Every field but the last has a fixed length, so no two field lists give the same bytes.
        let mut hasher = blake3::Hasher::new_derive_key("warren-artefact 2026 key of an artefact");
        hasher.update(&source.0);
        hasher.update(&[match purpose {
            Purpose::Function => 0,
            Purpose::Policy => 1,
        }]);
        hasher.update(&isa.0.to_le_bytes());
        hasher.update(&settings.to_le_bytes());
        hasher.update(&warren_abi::ABI_VERSION.to_le_bytes());
        hasher.update(wasmtime.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for ArtefactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

impl fmt::Debug for ArtefactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_in_the_key() {
        let source = Digest::of(b"module");
        let base = ArtefactKey::derive(source, Purpose::Function, IsaSet::BASELINE, "48.0.8", 1);
        let others = [
            ArtefactKey::derive(Digest::of(b"other"), Purpose::Function, IsaSet::BASELINE, "48.0.8", 1),
            ArtefactKey::derive(source, Purpose::Policy, IsaSet::BASELINE, "48.0.8", 1),
            ArtefactKey::derive(source, Purpose::Function, IsaSet(0x7FF), "48.0.8", 1),
            ArtefactKey::derive(source, Purpose::Function, IsaSet::BASELINE, "48.0.9", 1),
            ArtefactKey::derive(source, Purpose::Function, IsaSet::BASELINE, "48.0.8", 2),
        ];
        for other in others {
            assert_ne!(base, other);
        }
        assert_eq!(base, ArtefactKey::derive(source, Purpose::Function, IsaSet::BASELINE, "48.0.8", 1));
    }
}
