//! Of what a snapshot of a version has to be made.

use super::{Snapshots, make};
use crate::{
    host::Host,
    linux,
    version::{LinuxVersion, SealedVersion, Startable, VersionSpec, What, guest_world},
};
use warren_artefact::{Digest, GuestOf, SnapshotOf};
use warren_vmm_protocol::{
    PROTOCOL_VERSION,
    guest::{SandboxKind, Text},
};

impl Snapshots {
    /// What a snapshot of this version has to be made of, if there can be one.
    pub(super) fn of(&self, host: &Host, spec: &VersionSpec, version: &Startable) -> Option<SnapshotOf> {
        if spec.memory_mib > make::most_memory_mib(spec) || !spec.snap_start {
            return None;
        }
        let (told, guest) = match version {
            Startable::Wasm(version) => self.wasm(spec, version)?,
            Startable::Linux(version) => of_linux(host, spec, version)?,
        };
        let (function, version) = (spec.name.clone(), spec.version);
        Some(SnapshotOf { function, version, task: spec.task, told, guest })
    }

    fn wasm(&self, spec: &VersionSpec, version: &SealedVersion) -> Option<(Digest, GuestOf)> {
        let What::Wasm { code: source } = spec.what else { return None };
        let told = spec.for_guest(guest_world(version.code.world).ok()?);
        let guest = GuestOf::Wasm {
            source,
            code: version.code.digest,
            program: self.jailer.guest()?,
            abi_version: warren_abi::ABI_VERSION,
            isa: version.code.isa,
        };
        Some((Digest::of(&postcard::to_allocvec(&told).ok()?), guest))
    }
}

fn of_linux(host: &Host, spec: &VersionSpec, version: &LinuxVersion) -> Option<(Digest, GuestOf)> {
    let machine = linux::machine::machine(host, spec, version).ok()?;
    let devices = linux::machine::devices(host, version, machine.network);
    let processor = host.offer.processor().ok()?;
    let whole = linux::machine::load_spec((spec, version), processor, devices, "");
    let mut told = linux::machine::config("", spec, version, machine.network, SandboxKind::Snapshot);
    // A sandbox's own, and a moment's.
    (told.sandbox, told.log_stream) = (Text::default(), Text::default());
    (told.seed, told.wall_unix_ns) = ([0; 32], 0);
    let digest = |hex: &str| blake3::Hash::from_hex(hex).ok().map(|hash| Digest(*hash.as_bytes()));
    let guest = GuestOf::Linux {
        runtime: digest(&version.runtime.manifest.digest)?,
        kernel: digest(&version.kernel.manifest.image_digest)?,
        initrd: digest(&version.kernel.manifest.initrd_digest)?,
        machine: Digest::of(&postcard::to_allocvec(&(whole, machine.cpus, machine.disk_bytes)).ok()?),
        processor: processor.clone(),
        protocol_version: PROTOCOL_VERSION,
    };
    Some((Digest::of(&postcard::to_allocvec(&told).ok()?), guest))
}
