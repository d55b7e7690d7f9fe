//! The same of a Linux guest: it holds still to be written down, and its scratch disk is kept with it.
//!
//! ```text
//! runtime's    boots ─────────────────────────────────▶ holds still before it is told what to be ─▶ written down
//! function's   brought back from that, with its files ─▶ one of its own ─▶ configured, init ─▶ holds still ─▶ written down
//!               ╰ refused, or never its own ─▶ the runtime's snapshot is at fault, and it is made the other way:
//!              boots ─▶ configured, init ─▶ holds still ─▶ written down
//! ```
//! What a runtime's has in it is of no function: kernel, initrd, root file system, and an empty disk where a function's files will be.

use super::{KeptDisk, MakeError, Written, take};
use crate::{
    host::Host,
    linux::{machine, restored, scratch},
    logs::InvocationLog,
    memfd::SealedFile,
    resources::linux_limits,
    sandbox::door::Door,
    snapshot::SealedSnapshot,
    version::{INIT_TIMEOUT_MS, LinuxVersion, VersionSpec},
    vmm::{ControlChannel, GuestFailure, LoadFailure, LogTail, Nobodys, guest_error},
};
use std::{
    fs::File,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use warren_sandbox_plan::{
    name::SandboxName,
    request::{Limits, Program, Spawn},
};
use warren_vmm_protocol::{LoadError, guest::SandboxKind, linux::LinuxRestore};

/// Most that a scratch disk may hold, the function's files among it. Copies lie over one and the same, and nothing of it is in
/// memory: what bounds it is the shelf, and what the origin is asked to keep.
pub(super) const MOST_DISK_MIB: u64 = 1024;
/// How long one may take to boot and to come to rest, beside its function's init: nobody waits for it.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where one is made: on this host, under this name, with so much memory beside the guest's.
type Jail<'a> = (&'a Arc<Host>, &'a SandboxName, u32);
/// For what.
type What<'a> = (&'a VersionSpec, &'a LinuxVersion);

/// Writes down what every function of this guest begins with.
pub(super) async fn write_down_runtime(jail: Jail<'_>, what: What<'_>) -> Result<Written, MakeError> {
    let (_, _, extra_mib) = jail;
    let (mut guest, scratch, tap) = Guest::jailed(jail, what, None).await?;
    let empty = SealedFile::new("empty", &[])?;
    let devices = machine::descriptors_of_nobody(what.1, &scratch, &empty, tap.as_ref());
    guest.boot(jail, what, (devices, tap.is_some())).await?;
    drop(tap);
    let socket = guest.socket.clone();
    let still = async {
        let mut nobodys = Nobodys::reach(&socket).await?;
        let held = nobodys.hold_still().await?;
        Ok((held, nobodys))
    };
    // On this connection it is who it was: the snapshot is taken before it goes.
    let (held, _connection) = guest.meanwhile(still).await?;
    guest.take(held, extra_mib, scratch).await
}

/// Writes down a function's, that begins with its runtime's or boots.
pub(super) async fn write_down(
    jail: Jail<'_>,
    what: What<'_>,
    runtime: Option<&SealedSnapshot>,
) -> Result<Written, MakeError> {
    let ((host, name, extra_mib), (spec, version)) = (jail, what);
    let (mut guest, scratch, tap) = Guest::jailed(jail, what, runtime).await?;
    let has_network = tap.is_some();
    let devices = (machine::descriptors(version, &scratch, tap.as_ref()), has_network);
    let nobodys = if let Some(runtime) = runtime {
        let begun = guest.begin(jail, what, devices, runtime).await;
        begun
            .map_err(|error| if is_the_hosts(&error) { error } else { MakeError::Runtime(Box::new(error)) })?
    } else {
        guest.boot(jail, what, devices).await?;
        let socket = guest.socket.clone();
        guest.meanwhile(async { Ok(Nobodys::reach(&socket).await?) }).await?
    };
    drop(tap);
    let config = machine::config(name.as_str(), spec, version, has_network, SandboxKind::Snapshot);
    let mut log = InvocationLog::new(host.logs.clone(), super::of_init(name, spec), false, None);
    let still = async {
        let mut up = nobodys.configure(config, |bytes| log.bytes(bytes)).await?;
        if let Some(error) = up.failed {
            return Err(GuestFailure::Init(error));
        }
        let (function, init_ms) = (&spec.name, up.init_us / 1000);
        tracing::info!(
            function,
            init_ms,
            is_booted = runtime.is_none(),
            "a function that is written down is initialised"
        );
        // On this connection it is who it was: the snapshot is taken before it goes.
        let held = up.channel.hold_still(|_| {}).await?;
        Ok((held, up.channel))
    };
    let still = guest.meanwhile(still).await;
    log.function_ended();
    let _ = log.finish();
    let (held, _connection) = still.map_err(|error| blamed(error, runtime.is_some()))?;
    guest.take(held, extra_mib, scratch).await
}

/// Whether a guest that is to begin with its runtime's failed by its host: another host, or this one later, may bring it back.
const fn is_the_hosts(error: &MakeError) -> bool {
    match error {
        MakeError::Load { failure: LoadFailure::Said { reason, .. }, .. } => {
            matches!(reason, LoadError::Host(_))
        }
        MakeError::Load { .. } | MakeError::Silent(_) => false,
        // Nothing of the guest was asked yet.
        _ => true,
    }
}

/// Whose fault it is that one did not come up: what is the guest's own, or its silence, is its runtime's where it began with that. Its
/// function's init is its function's.
fn blamed(error: MakeError, has_runtime: bool) -> MakeError {
    match error {
        MakeError::Load { failure: LoadFailure::Said { reason: LoadError::Guest(_), .. }, .. }
        | MakeError::Silent(_)
            if has_runtime =>
        {
            MakeError::Runtime(Box::new(error))
        }
        error => error,
    }
}

/// One that is on its way to be written down.
struct Guest {
    control: ControlChannel,
    socket: PathBuf,
    tail: LogTail,
}

impl Guest {
    /// A VMM with nothing in it; its scratch disk, and its card's other end, with the same devices as every copy has. The disk is what it
    /// was when `runtime` was written down, or empty.
    async fn jailed(
        (host, name, extra_mib): Jail<'_>,
        (spec, version): What<'_>,
        runtime: Option<&SealedSnapshot>,
    ) -> Result<(Self, File, Option<OwnedFd>), MakeError> {
        let begun = match runtime {
            None => None,
            Some(runtime) => {
                Some(runtime.disk.clone().ok_or(MakeError::Runtime(Box::new(MakeError::NoDisk)))?)
            }
        };
        let Door { socket, theirs, log } = host.run.door(name)?;
        let tail = LogTail::default();
        tokio::spawn(tail.clone().drain(name.to_string(), log));
        let machine = machine::machine(host, spec, version)?;
        // What it writes is its own memory until it is gone.
        let plain = linux_limits(spec.memory_mib, machine.cpus);
        let limits =
            Limits { memory_bytes: plain.memory_bytes.saturating_add(u64::from(extra_mib) << 20), ..plain };
        let spawn = Spawn { name: name.clone(), program: Program::Linux(machine), limits };
        let started = host.jailer.spawn(spawn, theirs).await?;
        let (maker, mib) = (Arc::clone(host), spec.tmp_mib);
        let scratch = tokio::task::spawn_blocking(move || match begun {
            None => scratch::make(maker.offer.shelf(), maker.run.path(), mib),
            Some(disk) => scratch::copy(&disk, maker.run.path()),
        });
        // A host without room for it is not its runtime's fault.
        let scratch = scratch.await.map_err(|_| MakeError::Internal)??;
        let control = ControlChannel::connect(&socket).await?;
        Ok((Self { control, socket, tail }, scratch, started.tap))
    }

    /// Its kernel begins.
    async fn boot(
        &mut self,
        (host, name, _): Jail<'_>,
        (spec, version): What<'_>,
        (descriptors, has_network): (Vec<BorrowedFd<'_>>, bool),
    ) -> Result<(), MakeError> {
        let mut fds = vec![version.kernel.image.as_fd(), version.kernel.initrd.as_fd()];
        fds.extend(descriptors);
        let devices = machine::devices(host, version, has_network);
        let processor = host.offer.processor()?;
        let wanted = machine::load_spec((spec, version), processor, devices, name.as_str());
        let loaded = self.control.load_linux(wanted, &fds).await;
        loaded.map(|_| ()).map_err(|failure| self.failed(failure))
    }

    /// It goes on where its runtime was written down, as one of its own.
    async fn begin(
        &mut self,
        (host, name, _): Jail<'_>,
        (_, version): What<'_>,
        (descriptors, has_network): (Vec<BorrowedFd<'_>>, bool),
        runtime: &SealedSnapshot,
    ) -> Result<Nobodys, MakeError> {
        let mut fds = vec![runtime.memory.as_fd()];
        fds.extend(descriptors);
        let spec = LinuxRestore {
            state: runtime.head.state().to_vec(),
            devices: machine::devices(host, version, has_network),
            // An init touches much, and what it leaves is read at once.
            copied: true,
            label: name.to_string(),
        };
        let begun = self.control.restore_linux(spec, &fds).await;
        begun.map_err(|failure| self.failed(failure))?;
        let (socket, told) = (self.socket.clone(), restored(name.as_str())?);
        self.meanwhile(Nobodys::bring_back(&socket, told)).await
    }

    /// Waits for the guest, while its VMM lives.
    async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = Result<T, GuestFailure>>,
    ) -> Result<T, MakeError> {
        let patience = PATIENCE + Duration::from_millis(INIT_TIMEOUT_MS.into());
        let done = tokio::select! {
            done = timeout(patience, work) => done.map_err(|_| MakeError::Silent(patience))?,
            ended = self.control.closed() => return Err(self.failed(ended.into())),
        };
        done.map_err(|failure| match failure {
            GuestFailure::Channel(error) => self.failed(error.into()),
            GuestFailure::Init(error) => self.failed(guest_error(&error)),
        })
    }

    /// Has it written down, now that it holds still.
    async fn take(&mut self, held: bool, extra_mib: u32, scratch: File) -> Result<Written, MakeError> {
        if !held {
            return Err(MakeError::NotHeld);
        }
        take(&mut self.control, extra_mib, Some(scratch)).await
    }

    fn failed(&self, failure: LoadFailure) -> MakeError {
        MakeError::Load { failure, log: self.tail.text() }
    }
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

#[cfg(test)]
mod blame {
    use super::*;
    use crate::{linux::LinuxError, vmm::ChannelError};

    #[test]
    fn what_is_the_guests_own_is_its_runtimes_and_what_is_the_functions_is_not() {
        let said = |reason| MakeError::Load {
            failure: LoadFailure::Said { reason, log: Vec::new() },
            log: String::new(),
        };
        let is_runtimes = |error, has| matches!(blamed(error, has), MakeError::Runtime(_));
        let guests = || said(LoadError::Guest("wait for the task disk".to_owned()));
        assert!(is_runtimes(guests(), true) && is_runtimes(MakeError::Silent(PATIENCE), true));
        assert!(!is_runtimes(guests(), false) && !is_runtimes(MakeError::Silent(PATIENCE), false));
        assert!(!is_runtimes(said(LoadError::TimedOut), true), "it would run past its time again");
        // What is said before a function is in it is never a function's, and a host's own failure never a guest's.
        let refused = || said(LoadError::Refused("another processor".to_owned()));
        let gone = MakeError::Load { failure: ChannelError::Closed.into(), log: String::new() };
        for error in [guests(), refused(), said(LoadError::TimedOut), gone, MakeError::Silent(PATIENCE)] {
            assert!(!is_the_hosts(&error), "{error}");
        }
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = LinuxError::Io { what: "copy a disk".to_owned(), source: Arc::new(full) };
        for error in [said(LoadError::Host("out of memory".to_owned())), full.into(), MakeError::Internal] {
            assert!(is_the_hosts(&error), "{error}");
        }
    }
}
