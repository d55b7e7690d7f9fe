//! The door through which a `Load` request comes in: what arrived is untrusted, what leaves is checked.

use crate::machine::{Artefacts, host_isa};
use rustix::fd::OwnedFd;
use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use warren_abi::isa::IsaSet;
use warren_sandbox_plan::name::SandboxName;
use warren_vmm_protocol::LoadSpec;

/// Seals without which the bytes could change or vanish under the guest.
pub(crate) const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK);

/// Checks a request and its descriptors. The text says what to change; it is always the caller's fault.
pub fn admit(spec: &LoadSpec, descriptors: Vec<OwnedFd>) -> Result<Artefacts, String> {
    let host = host_isa();
    label(&spec.label)?;
    if !spec.isa.covers(IsaSet::BASELINE) || !host.covers(spec.isa) {
        let (code, base) = (names(spec.isa), names(IsaSet::BASELINE));
        return Err(format!(
            "code for [{code}]: it must include [{base}], and this host has [{}]",
            names(host)
        ));
    }
    let expected = 1 + usize::from(spec.task_len > 0);
    if descriptors.len() != expected {
        return Err(format!("{} descriptors came, {expected} are needed", descriptors.len()));
    }
    let mut descriptors = descriptors.into_iter();
    let mut next = |what, len| descriptors.next().map(|fd| sealed(what, fd, len)).transpose();
    let code = next("code", spec.code_len)?.ok_or("no descriptor for the code")?;
    let task = next("task archive", spec.task_len)?;
    Ok(Artefacts { code, task })
}

/// Checks the name that stands in logs.
pub(crate) fn label(label: &str) -> Result<(), String> {
    SandboxName::new(label).map(drop).map_err(|error| format!("label: {error}"))
}

fn sealed(what: &str, fd: OwnedFd, len: u64) -> Result<OwnedFd, String> {
    let size = sealed_len(what, &fd)?;
    if size < len {
        return Err(format!("{what}: the descriptor has {size} bytes, {len} were announced"));
    }
    Ok(fd)
}

/// Bytes of a descriptor that nobody can change any more.
pub(crate) fn sealed_len(what: &str, fd: &OwnedFd) -> Result<u64, String> {
    let seals = fcntl_get_seals(fd).map_err(|_| format!("{what}: the descriptor is no memfd with seals"))?;
    if !seals.contains(SEALS) {
        return Err(format!("{what}: the descriptor is not sealed against writes and shrinking"));
    }
    let stat = fstat(fd).map_err(|error| format!("{what}: {error}"))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

fn names(set: IsaSet) -> String {
    set.extensions().map(|extension| extension.detect_name).collect::<Vec<_>>().join(" ")
}
