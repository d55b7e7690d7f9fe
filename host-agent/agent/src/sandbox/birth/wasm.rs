//! A module in a machine without a kernel: one request loads code and files and runs its init, or brings back a guest in which
//! that is done.

use super::{From, Up, log_init, not_up, paged::Sockets};
use crate::{
    host::Host,
    sandbox::{
        error::CreateError,
        live::{Sandbox, Startup},
    },
    snapshot::{FleetSnapshot, SealedSnapshot},
    version::{SealedVersion, VersionSpec, load_spec},
    vmm::{ControlChannel, InvokeChannel, LoadFailure, Loaded},
    zygote::Class,
};
use std::{os::fd::AsFd as _, path::Path};
use warren_sandbox_plan::request::{Limits, Program};
use warren_vmm_protocol::RestoreSpec;

pub(super) fn machine(spec: &VersionSpec, version: &SealedVersion, from: &From<'_>) -> (Program, Limits) {
    let program = match from {
        From::Nothing => Program::Vmm,
        From::Kept(_) => Program::Restore,
        From::Paged(..) => Program::PagedRestore,
    };
    (program, Class::of_wasm(spec.memory_mib, version).limits())
}

pub(super) async fn load(
    host: &Host,
    sandbox: &Sandbox,
    spec: &VersionSpec,
    version: &SealedVersion,
    control: &mut ControlChannel,
    socket: &Path,
) -> Result<Up, CreateError> {
    let mut fds = vec![version.code.file.as_fd()];
    fds.extend(version.task.as_ref().map(|task| task.as_fd()));
    let loaded = match control.load(load_spec(sandbox.about.id.as_str(), spec, version)?, &fds).await {
        Ok(loaded) => loaded,
        Err(failure) => {
            if let LoadFailure::Said { log, .. } = &failure {
                log_init(host, sandbox, log);
            }
            return Err(CreateError::Load { failure, last_words: String::new() });
        }
    };
    log_init(host, sandbox, &loaded.log);
    let init_us = loaded.load_us.saturating_sub(loaded.build_us);
    let startup = Startup { init_us, restore_us: 0 };
    Ok(Up { channel: InvokeChannel::connect(socket).await.map_err(not_up)?, startup })
}

pub(super) async fn restore(
    sandbox: &Sandbox,
    version: &SealedVersion,
    snapshot: &SealedSnapshot,
    control: &mut ControlChannel,
    (channel, socket): (Option<InvokeChannel>, &Path),
) -> Result<Up, CreateError> {
    let mut fds = vec![snapshot.memory.as_fd(), version.code.file.as_fd()];
    fds.extend(version.task.as_ref().map(|task| task.as_fd()));
    let spec = RestoreSpec { state: snapshot.head.state().to_vec(), label: sandbox.about.id.to_string() };
    let restored = control.restore(spec, &fds).await.map_err(failed)?;
    up(&restored, channel, socket).await
}

/// The same of one whose memory the pager brings, behind this socket.
pub(super) async fn restore_paged(
    sandbox: &Sandbox,
    version: &SealedVersion,
    (snapshot, pager): (&FleetSnapshot, &Sockets),
    control: &mut ControlChannel,
    socket: &Path,
) -> Result<Up, CreateError> {
    let mut fds = vec![pager.memory.as_fd(), version.code.file.as_fd()];
    fds.extend(version.task.as_ref().map(|task| task.as_fd()));
    let spec = RestoreSpec { state: snapshot.head.state().to_vec(), label: sandbox.about.id.to_string() };
    let restored = control.restore_paged(spec, &fds).await.map_err(failed)?;
    up(&restored, None, socket).await
}

async fn up(restored: &Loaded, channel: Option<InvokeChannel>, socket: &Path) -> Result<Up, CreateError> {
    // Never none: it is how a restored one is told from one that was booted.
    let startup = Startup { init_us: 0, restore_us: restored.load_us.max(1) };
    let channel = match channel {
        Some(channel) => channel,
        None => InvokeChannel::connect(socket).await.map_err(not_up)?,
    };
    Ok(Up { channel, startup })
}

const fn failed(failure: LoadFailure) -> CreateError {
    CreateError::Load { failure, last_words: String::new() }
}
