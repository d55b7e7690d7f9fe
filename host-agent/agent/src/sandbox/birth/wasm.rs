//! A module in a machine without a kernel: one request loads code and files and runs its init.

use super::{INIT_TIMEOUT_MS, Up, log_init, not_up};
use crate::{
    host::Host,
    resources::sandbox_limits,
    sandbox::{
        error::CreateError,
        live::{About, Sandbox},
    },
    version::{PrepareError, SealedVersion, VersionSpec},
    vmm::{ControlChannel, InvokeChannel, LoadFailure},
};
use std::{os::fd::AsFd as _, path::Path};
use warren_abi::boot::World as GuestWorld;
use warren_artefact::World;
use warren_sandbox_plan::request::{Limits, Program};
use warren_vmm_protocol::LoadSpec;

pub(super) fn machine(spec: &VersionSpec, version: &SealedVersion) -> (Program, Limits) {
    (Program::Vmm, sandbox_limits(spec.memory_mib, version.code.file.len()))
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
    let loaded = match control.load(load_spec(&sandbox.about, spec, version)?, &fds).await {
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
    Ok(Up { channel: InvokeChannel::connect(socket).await.map_err(not_up)?, init_us })
}

fn load_spec(about: &About, spec: &VersionSpec, version: &SealedVersion) -> Result<LoadSpec, PrepareError> {
    let world = match version.code.world {
        World::Preview1 => GuestWorld::WasiPreview1,
        World::Function => GuestWorld::Component,
        other => return Err(PrepareError::WrongWorld(format!("{other:?}"))),
    };
    Ok(LoadSpec {
        function: spec.for_guest(world),
        memory_bytes: spec.memory_bytes(),
        isa: version.code.isa,
        code_len: version.code.file.len(),
        task_len: version.task.as_ref().map_or(0, |task| task.len()),
        init_timeout_ms: INIT_TIMEOUT_MS,
        label: about.id.to_string(),
    })
}
