//! What a user's programs and the prepared ones must agree on, and what may differ.
//!
//! Prepared are the jailer and what it starts: VMM, compiler, pager, guest. The user brings agent and control. They meet in
//! three places, each with a version: the jailer's messages, the VMM's messages, and compiled code. These must match;
//! jailer, VMM and agent check it again themselves at every connection. Anything else may be of another build.

use serde::{Deserialize, Serialize};
use std::{io::Read as _, path::Path};

/// The programs of a preparation: the jailer and those it starts.
pub(crate) const JAILED: [&str; 5] =
    ["warren-jailer", "warren-vmm", "warren-compile", "warren-pager", "warren-guest"];

/// The versions that must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contract {
    /// Messages between agent and jailer.
    pub(crate) jailer: u32,
    /// Messages between agent and VMM.
    pub(crate) vmm: u32,
    /// What the compiler makes and the guest loads.
    pub(crate) code: String,
}

impl Contract {
    /// Of this build.
    pub(crate) fn here() -> Self {
        Self {
            jailer: warren_sandbox_plan::request::JAILER_PROTOCOL_VERSION,
            vmm: warren_vmm_protocol::PROTOCOL_VERSION,
            code: warren_artefact::code_version(),
        }
    }

    /// What differs, in words; empty when they match.
    pub(crate) fn differences(&self, here: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, prepared: &str, here: &str| {
            if prepared != here {
                found.push(format!("{what} {prepared} there, {here} here"));
            }
        };
        compare("jailer protocol", &self.jailer.to_string(), &here.jailer.to_string());
        compare("VMM protocol", &self.vmm.to_string(), &here.vmm.to_string());
        compare("compiled code", &self.code, &here.code);
        found
    }
}

/// A build: 16 hexadecimal digits of what [`JAILED`] contain. `None` if one of them is not in the folder.
pub(crate) fn build_digest(folder: &Path) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    for name in JAILED {
        let mut bytes = Vec::new();
        std::fs::File::open(folder.join(name)).ok()?.read_to_end(&mut bytes).ok()?;
        add(&mut hasher, name, &bytes);
    }
    Some(shown(&hasher))
}

/// The same of files already read, in the order of [`JAILED`].
pub(crate) fn digest_of<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in files {
        add(&mut hasher, name, bytes);
    }
    shown(&hasher)
}

fn add(hasher: &mut blake3::Hasher, name: &str, bytes: &[u8]) {
    hasher.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

fn shown(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named() {
        let here = Contract::here();
        assert!(here.differences(&here).is_empty());
        let other = Contract { jailer: here.jailer + 1, ..here.clone() };
        assert_eq!(other.differences(&here).len(), 1);
        let other = Contract { vmm: here.vmm + 1, code: "another".into(), ..other };
        assert_eq!(other.differences(&here).len(), 3);
    }

    #[test]
    fn a_build_is_its_programs_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(build_digest(dir.path()), None);
        for name in JAILED {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let first = build_digest(dir.path()).unwrap();
        std::fs::write(dir.path().join("warren-agent"), "anything").unwrap();
        assert_eq!(build_digest(dir.path()), Some(first.clone()));
        assert_eq!(digest_of(JAILED.into_iter().map(|name| (name, name.as_bytes()))), first);
        std::fs::write(dir.path().join("warren-vmm"), "another").unwrap();
        assert_ne!(build_digest(dir.path()), Some(first));
    }
}
