//! A stock kernel with a runtime: the guest boots, its first process is told what to become, the runtime asks for its first
//! event.
//!
//! ```text
//! scratch disk made ─▶ LoadLinux (kernel, initrd, disks) ─▶ boots ─▶ port 1 answers ─▶ configured ─▶ ready
//!         └───────────────────────┴── the guest ends, or does not come up in time ──┴──▶ refused, with its last words
//! or, in a jail made then or in a zygote
//! empty scratch disk over the snapshot's ─▶ RestoreLinux (memory, disks) ─▶ port 1 answers ─▶ told that it is another ─▶ ready
//!         └── refused, by the VMM or its first process ──▶ the same start boots; by the function's own hook ──▶ refused
//! or, from the fleet's: RestoreLinuxPaged with the pager's sockets, for memory and for what lies under an empty scratch disk
//! ```

use super::{From, Up, log_init, paged::Sockets};
use crate::{
    host::Host,
    linux::{LinuxError, machine, restored, scratch},
    logs::InvocationLog,
    sandbox::{
        error::CreateError,
        live::{Sandbox, Startup},
        mark::Mark,
    },
    snapshot::{FleetSnapshot, SealedSnapshot},
    version::{INIT_TIMEOUT_MS, LinuxVersion, PrepareError, VersionSpec},
    vmm::{
        ChannelError, ControlChannel, GuestFailure, GuestUp, LoadFailure, bring_back, bring_up,
        guest_error as said,
    },
    zygote::Class,
};
use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use warren_sandbox_plan::request::{Limits, Program};
use warren_vmm_protocol::{
    guest::{RESTORE_LIMIT_MS, SandboxKind},
    linux::{Base, LinuxRestore},
};

/// How long a guest may take from its first instruction until its first process listens, beside the function's init: seconds
/// even where everything is emulated.
const BOOT_PATIENCE: Duration = Duration::from_mins(1);
/// And what a copy may take to be its own again, its function's hooks included.
const RESTORE_PATIENCE: Duration = Duration::from_millis(RESTORE_LIMIT_MS as u64 + 10_000);

/// The same of one whose pages come meanwhile: in this time it would have booted.
const PAGED_PATIENCE: Duration = BOOT_PATIENCE;

/// What is loaded.
pub(super) struct Wanted<'a> {
    pub(super) spec: &'a VersionSpec,
    pub(super) version: &'a LinuxVersion,
    /// Of its network card, if it has one.
    pub(super) tap: Option<OwnedFd>,
}

pub(super) fn machine(
    host: &Host,
    spec: &VersionSpec,
    version: &LinuxVersion,
    from: &From<'_>,
) -> Result<(Program, Limits), CreateError> {
    let class = Class::of_linux(host, spec, version).map_err(|error| CreateError::Prepare(error.into()))?;
    let program = match (class.program(), from) {
        (Program::Linux(machine), From::Paged(..)) => Program::PagedLinux(machine),
        (program, _) => program,
    };
    Ok((program, class.limits()))
}

pub(super) async fn load(
    host: &Arc<Host>,
    sandbox: &Sandbox,
    Wanted { spec, version, tap }: Wanted<'_>,
    control: &mut ControlChannel,
    socket: &Path,
) -> Result<Up, CreateError> {
    let mib = spec.tmp_mib;
    let scratch =
        in_background(host, move |host| scratch::make(host.offer.shelf(), host.run.path(), mib)).await?;
    let (id, has_network) = (sandbox.about.id.as_str(), tap.is_some());
    let devices = machine::devices(host, version, has_network);
    let mut fds = vec![version.kernel.image.as_fd(), version.kernel.initrd.as_fd()];
    fds.extend(machine::descriptors(version, &scratch, tap.as_ref()));
    let processor = host.offer.processor().map_err(|error| CreateError::Prepare(error.into()))?;
    let wanted = machine::load_spec((spec, version), processor, devices, id);
    control.load_linux(wanted, &fds).await.map_err(failed)?;
    // From here on the VMM alone holds it: it is gone when that is.
    drop(tap);
    let config = machine::config(id, spec, version, has_network, SandboxKind::OnDemand);
    let patience = BOOT_PATIENCE + Duration::from_millis(INIT_TIMEOUT_MS.into());
    let mut log = InvocationLog::new(host.logs.clone(), sandbox.line_context(""), false, None);
    let up = race(control, patience, bring_up(socket, config, |bytes| log.bytes(bytes))).await;
    let up = settle(host, sandbox, log, up)?;
    Ok(Up { channel: up.channel, startup: Startup { init_us: up.init_us, restore_us: 0 } })
}

pub(super) async fn restore(
    host: &Arc<Host>,
    sandbox: &Sandbox,
    Wanted { version, tap, .. }: Wanted<'_>,
    snapshot: &SealedSnapshot,
    (control, socket): (&mut ControlChannel, &Path),
) -> Result<Up, CreateError> {
    let began = Instant::now();
    let disk = snapshot.disk.clone().ok_or_else(|| failed(ChannelError::Unexpected("no disk").into()))?;
    let bytes = disk.bytes();
    let scratch = in_background(host, move |host| scratch::blank(host.run.path(), bytes)).await?;
    let mut fds = vec![snapshot.memory.as_fd()];
    fds.extend(machine::descriptors_over(version, (&scratch, disk.as_fd()), tap.as_ref()));
    let spec = LinuxRestore {
        state: snapshot.head.state().to_vec(),
        devices: machine::devices_over(host, version, tap.is_some(), Base::File),
        copied: false,
        label: sandbox.about.id.to_string(),
    };
    control.restore_linux(spec, &fds).await.map_err(failed)?;
    drop(tap);
    come_back(host, sandbox, (began, RESTORE_PATIENCE), (control, socket)).await
}

/// The same of one whose memory and disk the pager brings.
pub(super) async fn restore_paged(
    host: &Arc<Host>,
    sandbox: &Sandbox,
    Wanted { spec, version, tap }: Wanted<'_>,
    (snapshot, pager): (&FleetSnapshot, &Sockets),
    (control, socket): (&mut ControlChannel, &Path),
) -> Result<Up, CreateError> {
    let began = Instant::now();
    let under = pager.disk.as_ref().ok_or_else(|| failed(ChannelError::Unexpected("no disk").into()))?;
    let machine =
        machine::machine(host, spec, version).map_err(|error| CreateError::Prepare(error.into()))?;
    let bytes = machine.disk_bytes;
    let scratch = in_background(host, move |host| scratch::blank(host.run.path(), bytes)).await?;
    let mut fds = vec![pager.memory.as_fd()];
    fds.extend(machine::descriptors_over(version, (&scratch, under.as_fd()), tap.as_ref()));
    let spec = LinuxRestore {
        state: snapshot.head.state().to_vec(),
        devices: machine::devices_over(host, version, tap.is_some(), Base::Pager),
        copied: false,
        label: sandbox.about.id.to_string(),
    };
    control.restore_linux_paged(spec, &fds).await.map_err(failed)?;
    drop(tap);
    come_back(host, sandbox, (began, PAGED_PATIENCE), (control, socket)).await
}

/// A guest that runs again is told that it is another one.
async fn come_back(
    host: &Arc<Host>,
    sandbox: &Sandbox,
    (began, patience): (Instant, Duration),
    (control, socket): (&mut ControlChannel, &Path),
) -> Result<Up, CreateError> {
    let told = restored(sandbox.about.id.as_str())?;
    let mut log = InvocationLog::new(host.logs.clone(), sandbox.line_context(""), false, None);
    let up = race(control, patience, bring_back(socket, told, |bytes| log.bytes(bytes))).await;
    let up = settle(host, sandbox, log, up)?;
    // Never none: it is how a restored one is told from one that was booted.
    let restore_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    Ok(Up { channel: up.channel, startup: Startup { init_us: 0, restore_us } })
}

/// Waits for a guest to come up, while its VMM lives.
async fn race(
    control: &mut ControlChannel,
    patience: Duration,
    up: impl Future<Output = Result<GuestUp, GuestFailure>>,
) -> Result<GuestUp, LoadFailure> {
    let up = tokio::select! {
        up = timeout(patience, up) => up,
        // What it says as it ends is in its log, which the error takes along.
        ended = control.closed() => return Err(ended.into()),
    };
    match up {
        Ok(Ok(up)) => Ok(up),
        Ok(Err(GuestFailure::Channel(error))) => Err(error.into()),
        Ok(Err(GuestFailure::Init(error))) => Err(said(&error)),
        Err(_) => Err(LoadFailure::Silent(patience)),
    }
}

/// What it logged is kept, and one that came up has a mark.
fn settle(
    host: &Host,
    sandbox: &Sandbox,
    mut log: InvocationLog,
    up: Result<GuestUp, LoadFailure>,
) -> Result<GuestUp, CreateError> {
    log.function_ended();
    let _ = log.finish();
    let up = up.map_err(failed)?;
    if let Some(error) = &up.failed {
        let text =
            format!("[warren] init failed and is tried again: {}: {}\n", error.error_type, error.message);
        log_init(host, sandbox, text.as_bytes());
    }
    // Set once: a sandbox comes up once.
    let _ = sandbox.mark.set(Mark::new(&host.run.mark(&sandbox.jail()))?);
    Ok(up)
}

/// A file of the sandbox's own, made off the threads that serve.
async fn in_background(
    host: &Arc<Host>,
    make: impl FnOnce(&Host) -> Result<File, LinuxError> + Send + 'static,
) -> Result<File, CreateError> {
    let host = Arc::clone(host);
    let file = tokio::task::spawn_blocking(move || make(&host)).await;
    let file = file.map_err(|_| CreateError::Prepare(PrepareError::Internal))?;
    file.map_err(|error| CreateError::Prepare(error.into()))
}

fn failed(failure: LoadFailure) -> CreateError {
    CreateError::Load { failure, last_words: String::new() }
}
