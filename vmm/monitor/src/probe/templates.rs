//! Under which processor templates Linux guests can run here, and what they see then.

use crate::cpuid::template::TEMPLATES;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;
use serde::Serialize;
use std::fmt::{self, Write as _};
use warren_state::linux::processor::seen;

/// A template on this host.
#[derive(Clone, Debug, Serialize)]
pub struct Offered {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The [name](seen) of what a guest sees under it here, 64 hex digits: hosts with the same can bring back each other's
    /// guests. `None`: this host cannot be that processor.
    pub seen: Option<String>,
    /// What the host lacks, if it does.
    pub lacks: Option<String>,
}

/// All of them, on this host. Needs no VM: it is what KVM supports, as a VMM reads it.
pub(super) fn offered(kvm: &Kvm) -> Result<Vec<Offered>, String> {
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
    supported.map(|cpuid| on(cpuid.as_slice())).map_err(|error| format!("read CPUID: {error}"))
}

fn on(supported: &[kvm_cpuid_entry2]) -> Vec<Offered> {
    let offer = |template: &crate::cpuid::Template| {
        let (seen, lacks) = match template.here(supported) {
            Ok(leaves) => (Some(hex(&seen(template.name, &leaves.written()))), None),
            Err(lacks) => (None, Some(lacks.to_string())),
        };
        Offered { name: template.name, purpose: template.purpose, seen, lacks }
    };
    TEMPLATES.iter().map(offer).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("template {}", self.name);
        match (&self.seen, &self.lacks) {
            (Some(seen), _) => {
                write!(f, "yes  {name:24} {} ({})", seen.get(..12).unwrap_or(seen), self.purpose)
            }
            (None, lacks) => write!(f, "no   {name:24} {}", lacks.as_deref().unwrap_or_default()),
        }
    }
}
