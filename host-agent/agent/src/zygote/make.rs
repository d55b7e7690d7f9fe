//! Making one, watching it, ending it.

use super::{class::Class, pool::Named};
use crate::{
    host::Host,
    jailer::JailerError,
    pidfd::Pidfd,
    resources::Reservation,
    sandbox::door::Door,
    vmm::{ChannelError, ControlChannel, InvokeChannel},
};
use std::{io, os::fd::OwnedFd, sync::Arc, time::Instant};
use tokio::{sync::Notify, task::AbortHandle};
use warren_proto::v1::{Sandbox, SandboxState};
use warren_sandbox_plan::{name::SandboxName, request::Spawn};
use warren_vmm_protocol::VmState;

/// One that waits. Whoever takes it apart adopts it: it is not watched here any more, and its memory is the sandbox's.
#[derive(Debug)]
pub struct Zygote {
    /// Its jail's name: the sandbox that adopts it keeps that.
    pub name: SandboxName,
    /// Its process.
    pub pid: i32,
    /// The same.
    pub pidfd: OwnedFd,
    /// Where it takes its snapshot.
    pub control: ControlChannel,
    /// Where it will take events, if it is one of those that have that before their guest.
    pub channel: Option<InvokeChannel>,
    /// Of the network card that its guest will have, if it will have one.
    pub tap: Option<OwnedFd>,
    /// What it says, unread so far: it is little.
    pub log: OwnedFd,
    class: Class,
    since: Instant,
    reservation: Option<Reservation>,
    watched: Watched,
}

/// Ends the watching when it is dropped.
#[derive(Debug)]
struct Watched {
    task: AbortHandle,
    entered: Arc<Notify>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why none was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    /// The jailer.
    #[error(transparent)]
    Jailer(#[from] JailerError),
    /// The connection to its VMM.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It is no zygote.
    #[error("its VMM is {0:?}")]
    State(VmState),
    /// The host.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes one and waits until its VM is there.
pub(super) async fn make(host: &Arc<Host>, class: Class) -> Result<Zygote, MakeError> {
    let name = host.run.name("zygote")?;
    let made = jail(host, &name, class).await;
    if made.is_err() {
        reclaim(host, &name).await;
    }
    made
}

async fn jail(host: &Arc<Host>, name: &SandboxName, class: Class) -> Result<Zygote, MakeError> {
    let Door { socket, theirs, log } = host.run.door(name)?;
    let spawn = Spawn { name: name.clone(), program: class.program(), limits: class.limits() };
    let started = host.jailer.spawn(spawn, theirs).await?;
    let channel = match class {
        Class::Wasm { .. } => Some(InvokeChannel::connect(&socket).await?),
        // Its guest's own streams, once there is one.
        Class::Linux { .. } => None,
    };
    let mut control = ControlChannel::connect(&socket).await?;
    // It answers when its VM is there.
    match control.status().await?.state {
        VmState::Empty => {}
        state => return Err(MakeError::State(state)),
    }
    let exit = Pidfd::new(started.pidfd.try_clone()?)?;
    let entered = Arc::<Notify>::default();
    let task = tokio::spawn(watch(Arc::clone(host), name.clone(), exit, Arc::clone(&entered)));
    let watched = Watched { task: task.abort_handle(), entered };
    let (pid, pidfd, tap) = (started.jailed.pid, started.pidfd, started.tap);
    let (name, since) = (name.clone(), Instant::now());
    Ok(Zygote { name, pid, pidfd, control, channel, tap, log, class, since, reservation: None, watched })
}

/// Until it is adopted or ended by us, which both end this task.
async fn watch(host: Arc<Host>, name: SandboxName, exit: Pidfd, entered: Arc<Notify>) {
    entered.notified().await;
    let _ = exit.exited().await;
    if let Some(dead) = host.zygotes.died(name.as_str()) {
        tracing::warn!(zygote = %name, pid = dead.pid, "a zygote died");
        // A task of its own: this one ends with what it watched.
        tokio::spawn(dead.end(Arc::clone(&host)));
    }
}

async fn reclaim(host: &Host, name: &SandboxName) {
    let _ = host.jailer.kill_until_gone(name).await;
    host.run.remove(name);
}

impl Zygote {
    /// It enters the pool, with the memory it takes while it waits.
    pub(super) fn enters(&mut self, reservation: Reservation) {
        self.reservation = Some(reservation);
        self.watched.entered.notify_one();
    }

    /// Kills it and gives back what it had: its memory at once.
    pub(super) fn end(self, host: Arc<Host>) -> impl Future<Output = ()> + Send + use<> {
        let Self { name, reservation, watched, .. } = self;
        drop((reservation, watched));
        async move { reclaim(&host, &name).await }
    }

    pub(super) fn on_wire(&self, host_id: &str) -> Sandbox {
        Sandbox {
            id: self.name.to_string(),
            host_id: host_id.to_owned(),
            state: SandboxState::Zygote.into(),
            memory_mib: self.class.memory_mib(),
            age_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            pid: self.pid,
            ..Sandbox::default()
        }
    }
}

impl Named for Zygote {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}
