//! One compilation: a jailed `warren-compile`, its answer, our signature.
//!
//! ```text
//! wait for a turn, then for memory ─▶ module sealed ─▶ spawn ─▶ exit or time up ─▶ kill and reclaim ─▶ read answer
//!                                                                                        keep ◀─ sign ◀─────┘
//! ```
//! Every way out passes *kill and reclaim*, so nothing of a compilation stays behind.

use super::error::PrepareError;
use crate::{
    jailer::{Ending, JailerClient},
    memfd::{SealedFile, unsealed},
    pidfd::{Pidfd, cpu_time},
    resources::MemoryBudget,
    vmm::LogTail,
};
use bytes::Bytes;
use std::{
    fs::File,
    io::{self, Seek as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::Semaphore,
    time::{interval, timeout},
};
use warren_abi::isa::IsaSet;
use warren_artefact::{
    Artefact, ArtefactKey, CompileResult, Lookup, Purpose, SigningKey, Store, VerifyingKey, envelope, sign,
};
use warren_sandbox_plan::{
    name::SandboxName,
    request::{CompileOptions, CompilePurpose, ExitStatus, Limits, Program, Spawn},
};

/// What one compilation may take.
#[derive(Clone, Copy, Debug)]
pub struct CompileLimits {
    /// Memory of its cgroup.
    pub memory_mib: u64,
    /// CPU time.
    pub cpu_seconds: u32,
    /// Time on the wall.
    pub wall: Duration,
    /// Compilations at once.
    pub at_once: usize,
}

impl CompileLimits {
    /// What is left of them on a host with so much memory: all compilations together take at most half of it, so that
    /// sandboxes can be made meanwhile.
    #[must_use]
    pub fn on_host_of(self, total_mib: u64) -> Self {
        let memory_mib = self.memory_mib.min(total_mib / 2).max(1);
        let at_once =
            usize::try_from(total_mib / 2 / memory_mib).unwrap_or(usize::MAX).clamp(1, self.at_once.max(1));
        Self { memory_mib, at_once, ..self }
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { memory_mib: 1024, cpu_seconds: 60, wall: Duration::from_mins(2), at_once: 2 }
    }
}

/// Signals, as exit statuses name them.
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
/// How often a compilation's CPU time is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What Rust's allocator says before it aborts.
const ALLOCATION_FAILED: &str = "memory allocation of";

/// Compiles, signs and keeps.
#[derive(Debug)]
pub struct Compiler {
    jailer: JailerClient,
    key: SigningKey,
    trusted: [VerifyingKey; 1],
    isa: IsaSet,
    limits: CompileLimits,
    store: Store,
    memory: MemoryBudget,
    turns: Semaphore,
    count: AtomicU64,
}

/// How a compilation's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By itself or by a signal, having used at most so much CPU time.
    Exited {
        ending: Ending,
        cpu_at_most: Duration,
    },
    TimedOut(Duration),
}

/// What was waited for.
enum Wait {
    Exited { cpu_at_most: Duration },
    TimedOut(Duration),
}

impl End {
    /// What its end says of the module, whatever was answered.
    ///
    /// The jail's limit of CPU time kills with the same signal as a lack of memory and as somebody who stops: of memory the
    /// jailer knows; a process with one thread uses at most as much CPU time as passes.
    fn verdict(self, limits: CompileLimits, log: &str) -> Result<(), PrepareError> {
        let cpu_limit = Duration::from_secs(limits.cpu_seconds.into());
        match self {
            Self::TimedOut(limit) => Err(PrepareError::CompileTimedOut(limit)),
            Self::Exited {
                ending: Ending { exit: Some(ExitStatus::Signal(SIGKILL | SIGXCPU)), out_of_memory: false },
                cpu_at_most,
            } if cpu_at_most >= cpu_limit => Err(PrepareError::CompileTimedOut(cpu_limit)),
            // A kill that was neither for time nor for memory is somebody's who stops; there is no answer, and that is told.
            Self::Exited { ending: Ending { out_of_memory: true, .. }, .. } => {
                Err(PrepareError::CompileOutOfMemory(limits.memory_mib))
            }
            Self::Exited { ending: Ending { exit: Some(ExitStatus::Signal(SIGABRT)), .. }, .. }
                if log.contains(ALLOCATION_FAILED) =>
            {
                Err(PrepareError::CompileOutOfMemory(limits.memory_mib))
            }
            Self::Exited { .. } => Ok(()),
        }
    }
}

impl Compiler {
    /// With the builder's key; only artefacts this key signed are loaded.
    #[must_use]
    pub fn new(
        jailer: JailerClient,
        key: SigningKey,
        isa: IsaSet,
        limits: CompileLimits,
        store: Store,
        memory: MemoryBudget,
    ) -> Self {
        let (trusted, turns) = ([key.verifying_key()], Semaphore::new(limits.at_once));
        Self { jailer, key, trusted, isa, limits, store, memory, turns, count: AtomicU64::new(0) }
    }

    /// Where artefacts are kept.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The builder's public key.
    #[must_use]
    pub fn builder_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// The builder's key: what else this host vouches for is signed with it, too.
    pub(crate) const fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// The instruction sets compiled for.
    #[must_use]
    pub const fn isa(&self) -> IsaSet {
        self.isa
    }

    /// Looks for a kept artefact; a damaged one counts as none and is replaced by the next compilation.
    pub fn kept(&self, key: ArtefactKey) -> Result<Option<Artefact>, PrepareError> {
        match self.store.get(key, &self.trusted)? {
            Lookup::Hit(artefact) => Ok(Some(artefact)),
            Lookup::Miss => Ok(None),
            Lookup::Damaged(damage) => {
                tracing::warn!(%key, %damage, "a kept artefact is damaged and will be compiled again");
                Ok(None)
            }
        }
    }

    /// Compiles `module`, signs what comes out and keeps it.
    pub async fn compile(
        self: &Arc<Self>,
        module: Bytes,
        purpose: Purpose,
    ) -> Result<Artefact, PrepareError> {
        let turn = timeout(self.limits.wall, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(PrepareError::Overloaded) };
        // Of the same memory as sandboxes: idle ones make room.
        let _room = self.memory.reserve_soon(self.limits.memory_mib, self.limits.wall).await?;
        let (module_fd, output) = in_background({
            let module = module.clone();
            move || Ok((SealedFile::new("module", &module)?, unsealed("compiled")?))
        })
        .await?;
        let (end, log) = self.run(&module_fd, &output, purpose).await?;
        let compiler = Arc::clone(self);
        in_background(move || compiler.conclude(end, &log, output, &module, purpose)).await
    }

    /// Spawns and waits; the process is gone and its jail reclaimed when this returns.
    async fn run(
        &self,
        module: &SealedFile,
        output: &File,
        purpose: Purpose,
    ) -> Result<(End, String), PrepareError> {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        rustix::io::ioctl_fionbio(&read, true).map_err(io::Error::from)?;
        let fds = vec![module.as_fd().try_clone_to_owned()?, output.as_fd().try_clone_to_owned()?, write];
        let name = self.next_name()?;
        let spawn = Spawn { name: name.clone(), program: self.program(purpose), limits: self.jail_limits() };
        let started = match self.jailer.spawn(spawn, fds).await {
            Ok(started) => started,
            Err(error) => {
                // It may have been started even though the answer was lost.
                self.reclaim_later(name);
                return Err(error.into());
            }
        };
        let tail = LogTail::default();
        let drain = tokio::spawn(tail.clone().drain(name.to_string(), read));
        let wait = wait_end(started.pidfd, started.jailed.pid, self.limits).await;
        let ending = match self.jailer.kill(&name).await {
            Ok(ending) => ending,
            Err(error) => {
                self.reclaim_later(name);
                return Err(error.into());
            }
        };
        let wait = wait?;
        // The jail is dead, so its end of the pipe is closed and the drain ends by itself.
        let _ = drain.await;
        let end = match wait {
            Wait::Exited { cpu_at_most } => End::Exited { ending, cpu_at_most },
            Wait::TimedOut(limit) => End::TimedOut(limit),
        };
        Ok((end, tail.text()))
    }

    /// Reads the answer; what it says is believed as far as its lengths fit (see the artefact crate).
    fn conclude(
        &self,
        end: End,
        log: &str,
        mut output: File,
        module: &[u8],
        purpose: Purpose,
    ) -> Result<Artefact, PrepareError> {
        end.verdict(self.limits, log)?;
        output.rewind()?;
        let (facts, code) = match CompileResult::read(io::BufReader::new(output)) {
            Ok(CompileResult::Compiled { facts, code }) => (facts, code),
            Ok(CompileResult::Refused(refusal)) => return Err(PrepareError::Compile(refusal)),
            Err(error) => {
                let how = match end {
                    End::Exited { ending, .. } => format!("{ending}, {error}"),
                    End::TimedOut(_) => error.to_string(),
                };
                return Err(PrepareError::CompilerDied { how, log: log.to_owned() });
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let metadata = facts.into_metadata(module, &code, purpose, self.isa, now);
        let envelope = envelope::seal(&sign(&metadata, &self.key), &code);
        let artefact =
            Artefact::open(envelope, &self.trusted).map_err(|error| PrepareError::CompilerDied {
                how: format!("its answer does not make an artefact: {error}"),
                log: log.to_owned(),
            })?;
        self.store.put(&artefact)?;
        Ok(artefact)
    }

    /// For when the jailer does not answer now.
    fn reclaim_later(&self, name: SandboxName) {
        let jailer = self.jailer.clone();
        tokio::spawn(async move { jailer.kill_until_gone(&name).await });
    }

    fn program(&self, purpose: Purpose) -> Program {
        let purpose = match purpose {
            Purpose::Function => CompilePurpose::Function,
            Purpose::Policy => CompilePurpose::Policy,
        };
        Program::Compile(CompileOptions { purpose, isa: self.isa.0 })
    }

    const fn jail_limits(&self) -> Limits {
        Limits {
            memory_bytes: self.limits.memory_mib << 20,
            cpu_millis: 1000,
            cpu_hard: false,
            pids: 16,
            cpu_seconds: self.limits.cpu_seconds.saturating_add(1),
        }
    }

    /// Unique over restarts of the agent: a compilation of an earlier one may still be reclaimed.
    fn next_name(&self) -> Result<SandboxName, PrepareError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        SandboxName::new(format!("compile-{now:x}-{count:x}")).map_err(|_| PrepareError::Internal)
    }
}

/// Waits for the process to exit, or for one of its times to be up.
///
/// The jail's own limit of CPU time kills with the same signal as a lack of memory, so it is only the backstop, a second
/// later than what is watched here.
async fn wait_end(pidfd: OwnedFd, pid: i32, limits: CompileLimits) -> Result<Wait, io::Error> {
    let pidfd = Pidfd::new(pidfd)?;
    let cpu_limit = Duration::from_secs(limits.cpu_seconds.into());
    let mut looks = interval(LOOK_EVERY);
    let (mut seen, mut looked) = (Duration::ZERO, Instant::now());
    let watch = async {
        loop {
            tokio::select! {
                gone = pidfd.exited() => {
                    // Not reaped yet, it may still tell; if not, all that passed since the last look may be CPU time.
                    let cpu_at_most = cpu_time(pid).unwrap_or(seen + looked.elapsed());
                    return gone.map(|()| Wait::Exited { cpu_at_most });
                }
                _ = looks.tick() => {
                    // Before the look, so that what is added later is never too little.
                    let now = Instant::now();
                    if let Some(used) = cpu_time(pid) {
                        (seen, looked) = (used, now);
                    }
                    if seen >= cpu_limit {
                        return Ok(Wait::TimedOut(cpu_limit));
                    }
                }
            }
        }
    };
    match timeout(limits.wall, watch).await {
        Ok(end) => end,
        Err(_) => Ok(Wait::TimedOut(limits.wall)),
    }
}

/// Runs blocking work off the event loop.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<T, PrepareError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| PrepareError::Internal)?
}

#[cfg(test)]
mod tests;
