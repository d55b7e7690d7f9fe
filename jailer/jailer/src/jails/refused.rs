//! What is refused, and in what words.

use crate::{network::NetworkError, spawn::SpawnError};
use warren_sandbox_plan::request::{Limits, MAX_PAGER_TASKS, MAX_TASKS, PAGER_NAME, Program};

/// Why a spawn was refused or failed; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedSpawn {
    #[error("the name is taken")]
    NameTaken,
    #[error("the pager is called {PAGER_NAME}, and nothing else is")]
    WrongName,
    #[error("every slot is taken")]
    NoSlot,
    #[error("{0} must not be zero")]
    ZeroLimit(&'static str),
    #[error("{what} of {asked} is more than this jailer gives, {most}")]
    OverLimit { what: &'static str, asked: u64, most: u64 },
    #[error("this host's sandboxes have no network: {0}")]
    NoNetwork(String),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Failed(#[from] SpawnError),
}

impl RefusedSpawn {
    pub(crate) fn step(&self) -> &str {
        match self {
            Self::NameTaken | Self::WrongName | Self::ZeroLimit(_) | Self::OverLimit { .. } => "request",
            Self::NoSlot => "slot",
            Self::NoNetwork(_) | Self::Network(_) => "network",
            Self::Failed(error) => error.step(),
        }
    }

    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::NameTaken
            | Self::WrongName
            | Self::ZeroLimit(_)
            | Self::OverLimit { .. }
            | Self::NoNetwork(_) => false,
            Self::NoSlot | Self::Network(_) => true,
            Self::Failed(error) => error.is_retryable(),
        }
    }
}

/// What the agent asks for is its business, within what the host's owner gave away.
pub(super) fn check_limits(
    limits: &Limits,
    program: Program,
    max_memory_bytes: u64,
) -> Result<(), RefusedSpawn> {
    let max_tasks = if let Program::Pager(_) = program { MAX_PAGER_TASKS } else { MAX_TASKS };
    let Limits { memory_bytes, cpu_millis, cpu_hard: _, pids, cpu_seconds: _ } = *limits;
    let pids = u64::from(pids);
    for (what, asked, most) in [
        ("memory_bytes", memory_bytes, max_memory_bytes),
        ("cpu_millis", cpu_millis.into(), u64::MAX),
        ("pids", pids, max_tasks.into()),
    ] {
        if asked == 0 {
            return Err(RefusedSpawn::ZeroLimit(what));
        }
        if asked > most {
            return Err(RefusedSpawn::OverLimit { what, asked, most });
        }
    }
    Ok(())
}
