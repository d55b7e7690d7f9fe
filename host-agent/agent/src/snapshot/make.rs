//! Making one: a VM of its own, brought to where it would take its first event.
//!
//! ```text
//! room ─▶ jailed ─▶ loaded, init done ─▶ memory and state out of the VMM ─▶ killed, reclaimed
//!                                                └─▶ copied, sealed, signed, kept
//! ```
//! A Linux function's begins with its runtime's, where there is one: the same guest, before a function was in it (`linux`).
//!
//! Every way out passes *killed, reclaimed*. An agent that dies meanwhile leaves a jail without a record, which the next one
//! kills, and nothing on the shelf.

mod linux;
mod processor;

use super::{
    KeptDisk,
    shelf::{SealedSnapshot, Shelf},
    tries::NotMade,
};
use crate::{
    host::Host,
    jailer::JailerError,
    linux::{LinuxError, machine::guest_mib},
    logs::{InvocationLog, LineContext},
    memfd::{SealedFile, unsealed},
    resources::{HostFull, OVERHEAD_MIB, cpu_millis, host_mib, sandbox_limits},
    sandbox::{door::Door, error::function_message, live::Guest},
    version::{Compiler, PrepareError, SealedVersion, Startable, VersionSpec, What, load_spec},
    vmm::{ChannelError, ControlChannel, LoadFailure, LogTail, SnapshotFailure},
};
use std::{
    fs::File,
    io::{self, Seek as _},
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use warren_artefact::{Digest, GuestOf, Part, SnapshotHead, SnapshotOf, snapshot::copy};
use warren_sandbox_plan::{
    name::SandboxName,
    request::{Limits, Program, Spawn},
};
use warren_vmm_protocol::LoadError;

/// A Wasm function larger than this is booted: a VMM looks at all of its memory to write it down.
const MOST_MEMORY_MIB: u32 = 1024;
/// The same of a Linux function, which takes longer to boot. What it touched counts below, and what the host has to spare.
const MOST_LINUX_MEMORY_MIB: u32 = 4096;
/// Most memory of a snapshot: what is not zero of the guest's.
const MOST_MIB: u32 = 256;
/// The same of a Linux guest, which has its kernel and what it read of its disks in it: a large runtime, its application, and the
/// files of both in the kernel's cache. It is in memory here as long as copies use it, and chunks bring it page by page elsewhere.
const MOST_LINUX_MIB: u32 = 1536;
/// Where a host cannot spare as much while one is made, so much is tried.
const SPARE_LINUX_MIB: u32 = 512;
/// Most bytes of any snapshot's memory.
pub(super) const MOST_MEMORY_BYTES: u64 = (MOST_LINUX_MIB as u64) << 20;
/// Most bytes of any snapshot's disk, as it is kept: its blocks, and where each run of them is.
pub(super) const MOST_DISK_BYTES: u64 = (linux::MOST_DISK_MIB + 1) << 20;
/// The memory of the smallest function, whose share of the cores it gets.
const LEAST_MIB: u32 = 128;

/// Why none was made. Cold starts go on without one.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    /// The host's memory is in use.
    #[error(transparent)]
    Full(#[from] HostFull),
    /// The jailer.
    #[error(transparent)]
    Jailer(#[from] JailerError),
    /// The function does not come up: its own fault, mostly, and told to who invokes it.
    #[error("{}; its log: {log}", failure.words())]
    Load {
        /// How.
        failure: LoadFailure,
        /// The VMM's last words.
        log: String,
    },
    /// The VMM wrote none down.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFailure),
    /// The connection to it.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The version.
    #[error(transparent)]
    Version(#[from] PrepareError),
    /// What Linux functions run on.
    #[error(transparent)]
    Linux(#[from] LinuxError),
    /// The guest's kernel cannot hold programs: something would run on in a copy before it is one of its own.
    #[error("the guest's kernel cannot hold programs")]
    NotHeld,
    /// It did not come up, or did not come to rest.
    #[error("the guest was not ready to be written down within {0:?}")]
    Silent(Duration),
    /// What a function has written, its files included, is part of its snapshot.
    #[error("the scratch disk holds {0} MiB, more than {most} are not kept", most = linux::MOST_DISK_MIB)]
    Disk(u64),
    /// The host stops.
    #[error("the host stops")]
    Stopping,
    /// A Linux guest was written down without its scratch disk.
    #[error("it has no scratch disk")]
    NoDisk,
    /// It could not begin with its runtime's: that one's fault, not the function's.
    #[error("it cannot begin with its runtime's snapshot: {0}")]
    Runtime(#[source] Box<Self>),
    /// The VMM that wrote it down gives guests another processor than the probe said: it would have another's name.
    #[error(
        "its guest saw another processor than `warren-vmm probe` said of this host; the agent is to be started with a new answer"
    )]
    Processor,
    /// A new jailer came with another guest program.
    #[error("the host's guest program changed meanwhile")]
    GuestChanged,
    /// The host, a full disk among it.
    #[error("it cannot be kept")]
    Io(#[from] io::Error),
    /// A task of this agent ended.
    #[error("a task of the agent's ended")]
    Internal,
}

/// The most memory of a function that is written down.
pub(super) const fn most_memory_mib(spec: &VersionSpec) -> u32 {
    match spec.what {
        What::Wasm { .. } => MOST_MEMORY_MIB,
        What::Linux { .. } => MOST_LINUX_MEMORY_MIB,
    }
}

/// Makes one and keeps it; of a Linux function by `runtime`'s snapshot, where there is one.
pub(super) async fn make(
    host: &Arc<Host>,
    shelf: &Arc<Shelf>,
    compiler: &Arc<Compiler>,
    of: SnapshotOf,
    (spec, version): (&VersionSpec, &Startable),
    runtime: Option<&SealedSnapshot>,
) -> Result<SealedSnapshot, MakeError> {
    let (guest, most_mib, spare_mib) = match version {
        Startable::Wasm(_) => (Guest::Wasm, spec.memory_mib.min(MOST_MIB), MOST_MIB),
        Startable::Linux(_) => (Guest::Linux, guest_mib(spec).min(MOST_LINUX_MIB), SPARE_LINUX_MIB),
    };
    let reserve = |most_mib| {
        let extra_mib = most_mib + u32::try_from(OVERHEAD_MIB).unwrap_or(0);
        let room = host_mib(guest, spec.memory_mib) + u64::from(extra_mib);
        host.memory.reserve_brief(room).map(|reservation| (reservation, extra_mib))
    };
    let (reservation, extra_mib) = reserve(most_mib).or_else(|_| reserve(most_mib.min(spare_mib)))?;
    let name = host.run.name("snapshot")?;
    // Who stops says so first, and then ends whom he finds here.
    *host.snapshots.making() = Some(name.clone());
    if host.is_stopping() {
        return Err(MakeError::Stopping);
    }
    let written = match version {
        Startable::Wasm(version) => write_down(host, &name, (spec, version), extra_mib).await,
        Startable::Linux(version) => {
            let jail = (host, &name, extra_mib);
            if of.is_runtime() {
                linux::write_down_runtime(jail, (spec, version)).await
            } else {
                linux::write_down(jail, (spec, version), runtime).await
            }
        }
    };
    let _ = host.jailer.kill_until_gone(&name).await;
    host.run.remove(&name);
    *host.snapshots.making() = None;
    drop(reservation);
    let written = written?;
    if let GuestOf::Wasm { program, .. } = &of.guest
        && host.jailer.guest() != Some(*program)
    {
        return Err(MakeError::GuestChanged);
    }
    if let GuestOf::Linux { processor, .. } = &of.guest {
        processor::is_of(processor, &written.state)?;
    }
    let (shelf, compiler) = (Arc::clone(shelf), Arc::clone(compiler));
    let begun_with = runtime.map(|runtime| runtime.head.memory());
    let work = move || keep(&shelf, &compiler, (of, begun_with), written);
    tokio::task::spawn_blocking(work).await.map_err(|_| MakeError::Internal)?
}

/// A guest that is written down.
struct Written {
    state: Vec<u8>,
    /// Its memory, of so many bytes.
    memory: File,
    memory_len: u64,
    /// Its scratch disk, if it is a Linux guest: nobody writes it any more.
    disk: Option<File>,
    /// How long its VMM was at it.
    took: Duration,
}

async fn write_down(
    host: &Arc<Host>,
    name: &SandboxName,
    (spec, version): (&VersionSpec, &SealedVersion),
    extra_mib: u32,
) -> Result<Written, MakeError> {
    let Door { socket, theirs, log } = host.run.door(name)?;
    let tail = LogTail::default();
    tokio::spawn(tail.clone().drain(name.to_string(), log));
    // What it writes is its own memory until it is gone. Its share of the cores is the smallest.
    let limits = Limits {
        cpu_millis: cpu_millis(LEAST_MIB),
        ..sandbox_limits(spec.memory_mib + extra_mib, version.code.file.len())
    };
    let spawn = Spawn { name: name.clone(), program: Program::Vmm, limits };
    let _started = host.jailer.spawn(spawn, theirs).await?;
    let mut control = ControlChannel::connect(&socket).await?;
    let mut fds = vec![version.code.file.as_fd()];
    fds.extend(version.task.as_ref().map(|task| task.as_fd()));
    let loaded = match control.load(load_spec(name.as_str(), spec, version)?, &fds).await {
        Ok(loaded) => loaded,
        Err(failure) => return Err(MakeError::Load { failure, log: tail.text() }),
    };
    log_init(host, name, spec, &loaded.log);
    take(&mut control, extra_mib, None).await
}

/// Has the guest behind this connection written down.
async fn take(control: &mut ControlChannel, most_mib: u32, disk: Option<File>) -> Result<Written, MakeError> {
    let memory = unsealed("snapshot")?;
    memory.set_len(u64::from(most_mib) << 20)?;
    let began = Instant::now();
    let (state, memory_len) = control.snapshot(memory.as_fd()).await?;
    if memory_len > u64::from(most_mib) << 20 {
        return Err(ChannelError::Unexpected("a snapshot larger than its file").into());
    }
    Ok(Written { state, memory, memory_len, disk, took: began.elapsed() })
}

/// Copies memory and disk into files that the VMM never had, signs and keeps them.
fn keep(
    shelf: &Shelf,
    compiler: &Compiler,
    (of, begun_with): (SnapshotOf, Option<Digest>),
    Written { state, memory: mut written, memory_len, disk, took }: Written,
) -> Result<SealedSnapshot, MakeError> {
    let began = Instant::now();
    written.set_len(memory_len)?;
    written.rewind()?;
    let mut copied = None;
    let memory = SealedFile::filled("snapshot", |memory| {
        copied = Some(copy(&mut written, memory)?);
        Ok::<_, io::Error>(())
    })?;
    let part = copied.ok_or(MakeError::Internal)?;
    let copied = began.elapsed();
    let disk = disk.map(|disk| linux::disk(&disk)).transpose()?;
    let disk_part = disk.as_ref().map_or_else(|| Ok(Part::of(&[])), KeptDisk::part)?;
    let disk = disk.map(Arc::new);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let head = SnapshotHead::new(of, state, part, disk_part, now).begun(begun_with);
    let snapshot = SealedSnapshot { head, memory, disk };
    let before = began.elapsed();
    let snapshot = snapshot.in_large_pages();
    let placed = began.elapsed();
    shelf.put(&snapshot, compiler.signing_key())?;
    tracing::info!(
        function = snapshot.head.of().function,
        memory_bytes = memory_len,
        written_ms = took.as_millis(),
        copied_ms = copied.as_millis(),
        disk_ms = before.saturating_sub(copied).as_millis(),
        large_pages_ms = placed.saturating_sub(before).as_millis(),
        shelved_ms = began.elapsed().saturating_sub(placed).as_millis(),
        "where the time went once a guest held still"
    );
    Ok(snapshot)
}

/// What the function logged in init, under the name of the VM that ran it; sandboxes that come from here do not say it again.
fn log_init(host: &Host, name: &SandboxName, spec: &VersionSpec, bytes: &[u8]) {
    InvocationLog::of_init(host.logs.clone(), of_init(name, spec), bytes);
}

fn of_init(name: &SandboxName, spec: &VersionSpec) -> LineContext {
    LineContext {
        function: spec.name.as_str().into(),
        request_id: "".into(),
        sandbox_id: name.as_str().into(),
    }
}

/// Whose fault it is decides what becomes of a function: what its init does, it does again.
impl From<&MakeError> for NotMade {
    fn from(error: &MakeError) -> Self {
        match error {
            MakeError::Snapshot(SnapshotFailure::Said(why)) => Self::Cannot(why.clone()),
            MakeError::NotHeld | MakeError::Disk(_) => Self::Cannot(error.to_string()),
            MakeError::Load { failure: LoadFailure::Said { reason: LoadError::TimedOut, .. }, .. } => {
                Self::Init { timed_out: true, why: "its init ran past its time".to_owned() }
            }
            MakeError::Load {
                failure: LoadFailure::Said { reason: LoadError::Function { error, detail }, .. },
                ..
            } => Self::Init { timed_out: false, why: function_message(*error, 0, detail) },
            other => Self::NotNow(words(other)),
        }
    }
}

/// An error with what is behind it.
pub(super) fn words(error: &MakeError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        words = format!("{words}: {deeper}");
        cause = deeper.source();
    }
    words
}
