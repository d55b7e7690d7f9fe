//! The same of a Linux guest: it boots to be written down, holds still, and its scratch disk is kept with it.

use super::{KeptDisk, MakeError, Written, take};
use crate::{
    host::Host,
    linux::{machine, scratch},
    logs::InvocationLog,
    resources::linux_limits,
    sandbox::door::Door,
    version::{INIT_TIMEOUT_MS, LinuxVersion, VersionSpec},
    vmm::{ControlChannel, GuestFailure, LoadFailure, LogTail, bring_up, guest_error},
};
use std::{
    fs::File,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use warren_sandbox_plan::{
    name::SandboxName,
    request::{Limits, Program, Spawn},
};
use warren_vmm_protocol::guest::SandboxKind;

/// Most that a scratch disk may hold, the function's files among it. Copies lie over one and the same, and nothing of it is in
/// memory: what bounds it is the shelf, and what the origin is asked to keep.
pub(super) const MOST_DISK_MIB: u64 = 1024;
/// How long one may take to boot and to come to rest, beside its function's init: nobody waits for it.
const PATIENCE: Duration = Duration::from_mins(2);

pub(super) async fn write_down(
    host: &Arc<Host>,
    name: &SandboxName,
    (spec, version): (&VersionSpec, &LinuxVersion),
    extra_mib: u32,
) -> Result<Written, MakeError> {
    let Door { socket, theirs, log } = host.run.door(name)?;
    let tail = LogTail::default();
    tokio::spawn(tail.clone().drain(name.to_string(), log));
    let machine = machine::machine(host, spec, version)?;
    // What it writes is its own memory until it is gone.
    let plain = linux_limits(spec.memory_mib, machine.cpus);
    let limits =
        Limits { memory_bytes: plain.memory_bytes.saturating_add(u64::from(extra_mib) << 20), ..plain };
    // The same devices as every copy of it: a network card too, if those have one.
    let spawn = Spawn { name: name.clone(), program: Program::Linux(machine), limits };
    let started = host.jailer.spawn(spawn, theirs).await?;
    let (maker, mib) = (Arc::clone(host), spec.tmp_mib);
    let scratch =
        tokio::task::spawn_blocking(move || scratch::make(maker.offer.shelf(), maker.run.path(), mib));
    let scratch = scratch.await.map_err(|_| MakeError::Internal)??;
    let mut control = ControlChannel::connect(&socket).await?;
    let has_network = started.tap.is_some();
    let mut fds = vec![version.kernel.image.as_fd(), version.kernel.initrd.as_fd()];
    fds.extend(machine::descriptors(version, &scratch, started.tap.as_ref()));
    let devices = machine::devices(host, version, has_network);
    let failed = |failure: LoadFailure| MakeError::Load { failure, log: tail.text() };
    let wanted = machine::load_spec(spec, version, devices, name.as_str());
    control.load_linux(wanted, &fds).await.map_err(failed)?;
    let config = machine::config(name.as_str(), spec, version, has_network, SandboxKind::Snapshot);
    let patience = PATIENCE + Duration::from_millis(INIT_TIMEOUT_MS.into());
    let context = super::of_init(name, spec);
    let mut log = InvocationLog::new(host.logs.clone(), context, false, None);
    let still = async {
        let mut up = bring_up(&socket, config, |bytes| log.bytes(bytes)).await?;
        if let Some(error) = up.failed {
            return Err(GuestFailure::Init(error));
        }
        // On this connection it is who it was: the snapshot is taken before it goes.
        let held = up.channel.hold_still(|_| {}).await?;
        Ok((held, up.channel))
    };
    let still = tokio::select! {
        still = timeout(patience, still) => still.map_err(|_| MakeError::Silent(patience))?,
        ended = control.closed() => return Err(failed(ended.into())),
    };
    log.function_ended();
    let _ = log.finish();
    let (held, _connection) = still.map_err(|failure| match failure {
        GuestFailure::Channel(error) => failed(error.into()),
        GuestFailure::Init(error) => failed(guest_error(&error)),
    })?;
    if !held {
        return Err(MakeError::NotHeld);
    }
    take(&mut control, extra_mib, Some(scratch)).await
}

/// A scratch disk that nobody writes any more.
pub(super) fn disk(file: &File) -> Result<KeptDisk, MakeError> {
    // Blocks of 512 bytes, whatever the file system's are.
    let mib = file.metadata()?.blocks() >> 11;
    if mib > MOST_DISK_MIB {
        return Err(MakeError::Disk(mib));
    }
    Ok(KeptDisk::of(file)?)
}
