//! A stock kernel with a runtime: the guest boots, its first process is told what to become, the runtime asks for its first
//! event.
//!
//! ```text
//! scratch disk made ─▶ LoadLinux (kernel, initrd, disks) ─▶ boots ─▶ port 1 answers ─▶ configured ─▶ ready
//!         └───────────────────────┴── the guest ends, or does not come up in time ──┴──▶ refused, with its last words
//! ```
//! Disks: vda the runtime's root, read-only and shared; vdb the scratch disk, the sandbox's own; vdc the function's files.

use super::{Up, log_init};
use crate::{
    host::Host,
    linux::{LinuxError, guest_config, scratch},
    logs::InvocationLog,
    resources::{GUEST_SYSTEM_MIB, linux_limits, vcpus},
    sandbox::{
        error::CreateError,
        live::{Sandbox, Startup},
        mark::Mark,
    },
    version::{INIT_TIMEOUT_MS, LinuxVersion, PrepareError, VersionSpec},
    vmm::{ControlChannel, GuestFailure, LoadFailure, bring_up},
};
use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use warren_image::scratch::size_for;
use warren_proto::v1::Network as Reach;
use warren_sandbox_plan::{
    network,
    request::{Limits, LinuxMachine, Program},
};
use warren_vmm_protocol::{
    FunctionError, LoadError,
    guest::{GuestConfig, InitError, InitFailure, Network},
    linux::{DeviceSpec, HOST_TEMPLATE, LinuxSpec},
};

/// How long a guest may take from its first instruction until its first process listens, beside the function's init: seconds
/// even where everything is emulated.
const BOOT_PATIENCE: Duration = Duration::from_mins(1);
/// The guest's address; every guest has a host of its own.
const GUEST_CID: u32 = 3;
/// What every guest's kernel is told. Its console is the log; a panic ends in a reset, which ends the VMM.
/// It does not test its ciphers first: that is two thirds of a 6.1 kernel's way to init, and it was tested where it was built.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=3 reboot=k panic=-1 random.trust_cpu=on cryptomgr.notests \
     i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd warren.serve=1 warren.root=/dev/vda";

/// What is loaded.
pub(super) struct Wanted<'a> {
    pub(super) spec: &'a VersionSpec,
    pub(super) version: &'a LinuxVersion,
    /// Of its network card, if it has one.
    pub(super) tap: Option<OwnedFd>,
}

pub(super) fn machine(host: &Host, spec: &VersionSpec) -> Result<(Program, Limits), CreateError> {
    let cpus = cpus(spec);
    let scratch_mib = size_for(spec.tmp_mib).unwrap_or(spec.tmp_mib);
    let machine = LinuxMachine {
        memory_mib: guest_mib(spec),
        cpus,
        disk_bytes: u64::from(scratch_mib) << 20,
        network: has_network(spec.network, host.no_network_because())?,
    };
    Ok((Program::Linux(machine), linux_limits(spec.memory_mib, cpus)))
}

/// Whether a function has a network here; one that must have one does not start without.
fn has_network(wanted: Reach, none_because: Option<&str>) -> Result<bool, CreateError> {
    match (wanted, none_because) {
        (Reach::None, _) | (Reach::Unspecified, Some(_)) => Ok(false),
        (Reach::Unspecified | Reach::Outbound, None) => Ok(true),
        (Reach::Outbound, Some(why)) => {
            Err(CreateError::Prepare(LinuxError::NoNetwork(why.to_owned()).into()))
        }
    }
}

/// The guest's side of it: the same in every guest.
fn network() -> Network {
    Network {
        address: network::GUEST,
        prefix: network::GUEST_PREFIX,
        gateway: network::GATEWAY,
        nameservers: vec![network::RESOLVER],
    }
}

fn guest_mib(spec: &VersionSpec) -> u32 {
    spec.memory_mib.saturating_add(u32::try_from(GUEST_SYSTEM_MIB).unwrap_or(u32::MAX))
}

fn cpus(spec: &VersionSpec) -> u8 {
    vcpus(spec.memory_mib, std::thread::available_parallelism().map_or(1, usize::from))
}

pub(super) async fn load(
    host: &Arc<Host>,
    sandbox: &Sandbox,
    Wanted { spec, version, tap }: Wanted<'_>,
    control: &mut ControlChannel,
    socket: &Path,
) -> Result<Up, CreateError> {
    let scratch = scratch(host, spec.tmp_mib).await?;
    let file_system = version.runtime.manifest.file_system.name();
    let mut devices = vec![DeviceSpec::Block { read_only: true }, DeviceSpec::Block { read_only: false }];
    let mut fds = vec![
        version.kernel.image.as_fd(),
        version.kernel.initrd.as_fd(),
        version.runtime.as_fd(),
        scratch.as_fd(),
    ];
    if let Some(task) = &version.task {
        devices.push(DeviceSpec::Block { read_only: true });
        fds.push(task.as_fd());
    }
    devices.extend([DeviceSpec::Rng, DeviceSpec::Vsock { guest_cid: GUEST_CID }]);
    if let Some(tap) = &tap {
        let limits = host.network_limits;
        devices.push(DeviceSpec::Net { mac: network::GUEST_MAC, receive: limits, send: limits });
        fds.push(tap.as_fd());
    }
    let wanted = LinuxSpec {
        memory_bytes: u64::from(guest_mib(spec)) << 20,
        command_line: format!("{COMMAND_LINE} warren.rootfstype={file_system}"),
        cpu_template: HOST_TEMPLATE.into(),
        initrd: true,
        entry: version.kernel.entry(),
        devices,
        label: sandbox.about.id.to_string(),
    };
    control.load_linux(wanted, &fds).await.map_err(failed)?;
    // From here on the VMM alone holds it: it is gone when that is.
    let has_network = tap.is_some();
    drop(tap);

    let task_len = version.task.as_ref().map_or(0, |task| task.len());
    let config = GuestConfig {
        network: has_network.then(network),
        ..guest_config(&sandbox.about, spec, &version.handler, &version.runtime, task_len)
    };
    let patience = BOOT_PATIENCE + Duration::from_millis(INIT_TIMEOUT_MS.into());
    let mut log = InvocationLog::new(host.logs.clone(), sandbox.line_context(""), false, None);
    let up = tokio::select! {
        up = timeout(patience, bring_up(socket, config, |bytes| log.bytes(bytes))) => up,
        // What it says as it ends is in its log, which the error takes along.
        ended = control.closed() => return Err(failed(ended.into())),
    };
    log.function_ended();
    let _ = log.finish();
    match up {
        Ok(Ok(up)) => {
            if let Some(error) = &up.failed {
                let text = format!(
                    "[warren] init failed and is tried again: {}: {}\n",
                    error.error_type, error.message
                );
                log_init(host, sandbox, text.as_bytes());
            }
            // Set once: a sandbox comes up once.
            let _ = sandbox.mark.set(Mark::new(&host.run.mark(&sandbox.about.id))?);
            Ok(Up { channel: up.channel, startup: Startup { init_us: up.init_us, restore_us: 0 } })
        }
        Ok(Err(GuestFailure::Channel(error))) => Err(failed(error.into())),
        Ok(Err(GuestFailure::Init(error))) => Err(failed(said(&error))),
        Err(_) => Err(failed(LoadFailure::Silent(patience))),
    }
}

/// A file of the sandbox's own, off the threads that serve.
async fn scratch(host: &Arc<Host>, mib: u32) -> Result<File, CreateError> {
    let host = Arc::clone(host);
    let made =
        tokio::task::spawn_blocking(move || scratch::make(host.offer.shelf(), host.run.path(), mib)).await;
    let made: Result<File, LinuxError> = made.map_err(|_| CreateError::Prepare(PrepareError::Internal))?;
    made.map_err(|error| CreateError::Prepare(error.into()))
}

fn failed(failure: LoadFailure) -> CreateError {
    CreateError::Load { failure, last_words: String::new() }
}

/// A guest that gave up.
fn said(error: &InitError) -> LoadFailure {
    let detail = format!("{}: {}", error.error_type, error.message);
    let reason = match error.failure {
        InitFailure::Guest => LoadError::Guest(detail),
        InitFailure::TimedOut => LoadError::TimedOut,
        _ => LoadError::Function { error: FunctionError::Init, detail },
    };
    LoadFailure::Said { reason, log: Vec::new() }
}
