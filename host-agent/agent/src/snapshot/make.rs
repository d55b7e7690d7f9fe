//! Making one: a VM of its own, brought to where it would take its first event.
//!
//! ```text
//! room ─▶ jailed ─▶ loaded, init done ─▶ memory and state out of the VMM ─▶ killed, reclaimed
//!                                                └─▶ copied, sealed, signed, kept
//! ```
//! Every way out passes *killed, reclaimed*. An agent that dies meanwhile leaves a jail without a record, which the next one
//! kills, and nothing on the shelf.

use super::shelf::{SealedSnapshot, Shelf};
use crate::{
    host::Host,
    jailer::JailerError,
    logs::{InvocationLog, LineContext},
    memfd::{SealedFile, unsealed},
    resources::{HostFull, OVERHEAD_MIB, cpu_millis, host_mib, sandbox_limits},
    sandbox::{door::Door, live::Guest},
    version::{Compiler, PrepareError, SealedVersion, VersionSpec, load_spec},
    vmm::{ChannelError, ControlChannel, LoadFailure, LogTail, SnapshotFailure},
};
use std::{
    fs::File,
    io::{self, Seek as _},
    os::fd::AsFd as _,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use warren_artefact::{SnapshotHead, SnapshotOf, snapshot::copy};
use warren_sandbox_plan::{
    name::SandboxName,
    request::{Limits, Program, Spawn},
};

/// Most memory of a snapshot: what is not zero of the guest's.
const MOST_MIB: u32 = 256;
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

impl MakeError {
    /// Whether another try of the same would end the same.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Snapshot(SnapshotFailure::Said(_)))
    }
}

/// Makes one and keeps it.
pub(super) async fn make(
    host: &Arc<Host>,
    shelf: &Arc<Shelf>,
    compiler: &Arc<Compiler>,
    of: SnapshotOf,
    (spec, version): (&VersionSpec, &SealedVersion),
) -> Result<SealedSnapshot, MakeError> {
    let extra_mib = spec.memory_mib.min(MOST_MIB) + u32::try_from(OVERHEAD_MIB).unwrap_or(0);
    let room = host_mib(Guest::Wasm, spec.memory_mib) + u64::from(extra_mib);
    let reservation = host.memory.reserve_brief(room)?;
    let name = host.run.name("snapshot")?;
    let written = write_down(host, &name, (spec, version), extra_mib).await;
    let _ = host.jailer.kill_until_gone(&name).await;
    host.run.remove(&name);
    drop(reservation);
    let (state, memory, memory_len) = written?;
    if host.jailer.guest() != Some(of.guest) {
        return Err(MakeError::GuestChanged);
    }
    let (shelf, compiler) = (Arc::clone(shelf), Arc::clone(compiler));
    let work = move || {
        memory.set_len(memory_len)?;
        keep(&shelf, &compiler, (of, state, memory))
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| MakeError::Internal)?
}

/// The guest's state, and the file with its memory, of so many bytes.
async fn write_down(
    host: &Arc<Host>,
    name: &SandboxName,
    (spec, version): (&VersionSpec, &SealedVersion),
    extra_mib: u32,
) -> Result<(Vec<u8>, File, u64), MakeError> {
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
    let memory = unsealed("snapshot")?;
    memory.set_len(u64::from(extra_mib) << 20)?;
    let (state, memory_len) = control.snapshot(memory.as_fd()).await?;
    if memory_len > u64::from(extra_mib) << 20 {
        return Err(ChannelError::Unexpected("a snapshot larger than its file").into());
    }
    Ok((state, memory, memory_len))
}

/// Copies the memory into a file that the VMM never had, signs and keeps it.
fn keep(
    shelf: &Shelf,
    compiler: &Compiler,
    (of, state, mut written): (SnapshotOf, Vec<u8>, File),
) -> Result<SealedSnapshot, MakeError> {
    written.rewind()?;
    let mut copied = None;
    let memory = SealedFile::filled("snapshot", |memory| {
        copied = Some(copy(&mut written, memory)?);
        Ok::<_, io::Error>(())
    })?;
    let (digest, len) = copied.ok_or(MakeError::Internal)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let snapshot = SealedSnapshot { head: SnapshotHead::new(of, state, digest, len, now), memory };
    shelf.put(&snapshot, compiler.signing_key())?;
    Ok(snapshot)
}

/// What the function logged in init, under the name of the VM that ran it; sandboxes that come from here do not say it again.
fn log_init(host: &Host, name: &SandboxName, spec: &VersionSpec, bytes: &[u8]) {
    let context = LineContext {
        function: spec.name.as_str().into(),
        request_id: "".into(),
        sandbox_id: name.as_str().into(),
    };
    InvocationLog::of_init(host.logs.clone(), context, bytes);
}
