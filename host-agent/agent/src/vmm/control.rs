//! The control connection: load, status, shutdown, and the sign of life.

use super::channel::{Channel, ChannelError};
use std::{os::fd::BorrowedFd, path::Path, time::Duration};
use tokio::time::timeout;
use warren_vmm_protocol::{
    ControlReply, ControlRequest, LoadError, LoadSpec, RestoreSpec, Role, Status,
    linux::{LinuxRestore, LinuxSpec},
};

/// A VMM answers status within this, whatever its guest does.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);
/// What loading may take beyond the function's own init time.
const LOAD_GRACE: Duration = Duration::from_secs(5);
/// What bringing a guest back may take, on a host that is busy beyond measure.
const RESTORE_PATIENCE: Duration = Duration::from_secs(15);
/// What writing a guest down may take.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);

/// A function that is initialised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The whole load in the VMM.
    pub load_us: u64,
    /// Of which building the VM's contents.
    pub build_us: u64,
    /// What the function logged in init.
    pub log: Vec<u8>,
}

/// Why a function did not come up.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// The VMM said why.
    #[error("load failed")]
    Said {
        /// Its reason.
        reason: LoadError,
        /// What the function logged in init.
        log: Vec<u8>,
    },
    /// The VMM could not be talked to.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It did not answer in time, although it had to.
    #[error("the VMM did not answer a load within {0:?}")]
    Silent(Duration),
}

impl LoadFailure {
    /// Whether the VMM itself said it, and lived to say it.
    #[must_use]
    pub const fn was_said(&self) -> bool {
        matches!(self, Self::Said { .. })
    }

    /// Whether what was to be loaded may be at fault, and the VMM itself said so: not where its pager was gone.
    #[must_use]
    pub const fn is_of_what_was_loaded(&self) -> bool {
        matches!(self, Self::Said { reason, .. } if !matches!(reason, LoadError::Function { .. } | LoadError::Pager(_)))
    }

    /// Whether the function itself is at fault: whatever it is started from, it does not start.
    #[must_use]
    pub const fn is_the_functions(&self) -> bool {
        matches!(self, Self::Said { reason: LoadError::Function { .. }, .. })
    }

    /// All that is known of why, for the agent's own log.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Said { reason, .. } => format!("{self}: {reason:?}"),
            other => other.to_string(),
        }
    }
}

/// Why a guest was not written down.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFailure {
    /// The VMM said why.
    #[error("the guest was not written down: {0}")]
    Said(String),
    /// The VMM could not be talked to.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It did not answer in time.
    #[error("the VMM did not write the guest down within {0:?}")]
    Silent(Duration),
}

/// The connection.
#[derive(Debug)]
pub struct ControlChannel(Channel);

impl ControlChannel {
    /// Connects; the listening socket takes connections even before the VMM runs.
    pub async fn connect(socket: &Path) -> Result<Self, ChannelError> {
        Channel::connect(socket, Role::Control).await.map(Self)
    }

    /// Hands over the function: its code, and its files if it has any.
    pub async fn load(&mut self, spec: LoadSpec, fds: &[BorrowedFd<'_>]) -> Result<Loaded, LoadFailure> {
        let patience = Duration::from_millis(spec.init_timeout_ms.into()) + LOAD_GRACE;
        self.0.send_with_fds(&ControlRequest::Load(spec), fds).await?;
        self.loaded(patience).await
    }

    /// Hands over a snapshot instead: its memory, then code and files as for [`Self::load`].
    pub async fn restore(
        &mut self,
        spec: RestoreSpec,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Loaded, LoadFailure> {
        self.0.send_with_fds(&ControlRequest::Restore(spec), fds).await?;
        self.loaded(RESTORE_PATIENCE).await
    }

    /// The same with memory that a pager brings: its socket stands where the memory did.
    pub async fn restore_paged(
        &mut self,
        spec: RestoreSpec,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Loaded, LoadFailure> {
        self.0.send_with_fds(&ControlRequest::RestorePaged(spec), fds).await?;
        self.loaded(RESTORE_PATIENCE).await
    }

    async fn loaded(&mut self, patience: Duration) -> Result<Loaded, LoadFailure> {
        match timeout(patience, self.0.receive()).await {
            Ok(Ok(ControlReply::Loaded { init_us, build_us, log })) => {
                Ok(Loaded { load_us: init_us, build_us, log })
            }
            Ok(Ok(ControlReply::LoadFailed { reason, log })) => Err(LoadFailure::Said { reason, log }),
            Ok(Ok(_)) => Err(ChannelError::Unexpected("another answer to Load").into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(LoadFailure::Silent(patience)),
        }
    }

    /// Has the idle guest written down, its memory into this file: its state, and the bytes of memory.
    pub async fn snapshot(&mut self, memory: BorrowedFd<'_>) -> Result<(Vec<u8>, u64), SnapshotFailure> {
        self.0.send_with_fds(&ControlRequest::Snapshot, &[memory]).await?;
        match timeout(SNAPSHOT_PATIENCE, self.0.receive()).await {
            Ok(Ok(ControlReply::Snapshot { memory_len, state })) => Ok((state, memory_len)),
            Ok(Ok(ControlReply::NoSnapshot { reason })) => Err(SnapshotFailure::Said(reason)),
            Ok(Ok(_)) => Err(ChannelError::Unexpected("another answer to Snapshot").into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(SnapshotFailure::Silent(SNAPSHOT_PATIENCE)),
        }
    }

    /// Starts a Linux guest; gives how long building it took, in microseconds.
    pub async fn load_linux(&mut self, spec: LinuxSpec, fds: &[BorrowedFd<'_>]) -> Result<u64, LoadFailure> {
        self.0.send_with_fds(&ControlRequest::LoadLinux(spec), fds).await?;
        self.started(LOAD_GRACE).await
    }

    /// The same of one that was written down: its memory, then its devices' descriptors.
    pub async fn restore_linux(
        &mut self,
        spec: LinuxRestore,
        fds: &[BorrowedFd<'_>],
    ) -> Result<u64, LoadFailure> {
        self.0.send_with_fds(&ControlRequest::RestoreLinux(spec), fds).await?;
        self.started(RESTORE_PATIENCE).await
    }

    /// The same with memory that a pager brings: its socket stands where the memory did.
    pub async fn restore_linux_paged(
        &mut self,
        spec: LinuxRestore,
        fds: &[BorrowedFd<'_>],
    ) -> Result<u64, LoadFailure> {
        self.0.send_with_fds(&ControlRequest::RestoreLinuxPaged(spec), fds).await?;
        self.started(RESTORE_PATIENCE).await
    }

    async fn started(&mut self, patience: Duration) -> Result<u64, LoadFailure> {
        match timeout(patience, self.0.receive()).await {
            Ok(Ok(ControlReply::Started { build_us })) => Ok(build_us),
            Ok(Ok(ControlReply::LoadFailed { reason, log })) => Err(LoadFailure::Said { reason, log }),
            Ok(Ok(_)) => Err(ChannelError::Unexpected("another answer to LoadLinux").into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(LoadFailure::Silent(patience)),
        }
    }

    /// Asks how it is.
    pub async fn status(&mut self) -> Result<Status, ChannelError> {
        self.0.send(&ControlRequest::Status, &[]).await?;
        match timeout(STATUS_PATIENCE, self.0.receive()).await {
            Ok(Ok(ControlReply::Status(status))) => Ok(status),
            Ok(Ok(_)) => Err(ChannelError::Unexpected("another answer to Status")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ChannelError::Unexpected("no answer to Status in time")),
        }
    }

    /// Returns when the VMM closes the connection or says something nobody asked for.
    pub async fn closed(&mut self) -> ChannelError {
        match self.0.receive::<ControlReply>().await {
            Ok(_) => ChannelError::Unexpected("a reply to no request"),
            Err(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_vmm_protocol::FunctionError;

    #[test]
    fn a_pager_that_was_gone_says_nothing_of_what_was_loaded() {
        let said = |reason| LoadFailure::Said { reason, log: Vec::new() };
        for reason in [
            LoadError::Refused(String::new()),
            LoadError::Guest(String::new()),
            LoadError::Host(String::new()),
            LoadError::TimedOut,
        ] {
            assert!(said(reason).is_of_what_was_loaded());
        }
        let function = LoadError::Function { error: FunctionError::Init, detail: String::new() };
        assert!(!said(function).is_of_what_was_loaded());
        assert!(!said(LoadError::Pager(String::new())).is_of_what_was_loaded());
        assert!(!LoadFailure::Silent(Duration::ZERO).is_of_what_was_loaded());
    }
}
