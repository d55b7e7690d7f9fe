//! What a guest sees of its processor, as one name: hosts that give the same can bring back each other's guests.
//!
//! It is of exactly what is compared when a guest is brought back: template and leaves, by what they say and not by which release's
//! table said it. What else a processor may lack (the frequency of its counter, where KVM cannot scale) is found out then.

use super::{Leaf, LinuxState};

/// blake3 of a template's name and of the leaves that it gives on a host.
#[must_use]
pub fn seen(template: &str, leaves: &[Leaf]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("warren-state 2026 what a guest sees of a processor");
    hasher.update(&(template.len() as u64).to_le_bytes()).update(template.as_bytes());
    for Leaf { at: (leaf, index), flags, registers: [eax, ebx, ecx, edx] } in leaves {
        for word in [leaf, index, flags, eax, ebx, ecx, edx] {
            hasher.update(&word.to_le_bytes());
        }
    }
    *hasher.finalize().as_bytes()
}

impl LinuxState {
    /// The [same](seen) of this guest.
    #[must_use]
    pub fn processor(&self) -> [u8; 32] {
        seen(&self.template, &self.leaves)
    }
}
