//! From a request to a sandbox that waits for its first invocation.
//!
//! ```text
//! words, epoch, id, memory checked ─▶ version ready ─▶ socket listens ─▶ jailed ─▶ loaded ─▶ invoke connection ─▶ idle
//!        │                                     │        ▲   or, where there is a snapshot: restored  ▲
//!        │                                     │        ├── the VMM refuses the snapshot, or nobody pages it: again, without it
//!        │                                     │        └── the zygote is dead: again, in a jail of its own
//!        │                                     └─ a snapshot, and a zygote waits ─▶ restored ───────┘
//!        └ refused, nothing made         └───────────────────┴── failed: the owner reclaims, then the error goes out
//! ```
//! What stands between jailed and idle differs by the kind of guest: `wasm`, `linux`; `paged`: with memory, and disk, that the pager brings.
//! Everything after the checks is the owner task's, so a caller who leaves does not leave half a sandbox behind.

mod fault;
mod linux;
mod paged;
mod wasm;

use super::{
    door::Door,
    error::CreateError,
    live::{About, Guest, Origin, Sandbox, Startup},
    machine::{Cause, Event, Machine, State},
    owner,
    record::Record,
};
use crate::{
    host::Host,
    logs::InvocationLog,
    pidfd::Pidfd,
    resources::Reservation,
    snapshot::{FleetSnapshot, Found, SealedSnapshot},
    version::{PrepareError, Startable, VersionSpec, What},
    vmm::{ControlChannel, InvokeChannel},
    zygote::{Class, Zygote},
};
use bytes::Bytes;
use fault::{destroyed, moved, not_up};
use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use warren_proto::v1::CreateSandboxRequest;
use warren_sandbox_plan::{name::SandboxName, request::Spawn};

/// How long a failed creation's answer waits for the reclaim.
const RECLAIM_PATIENCE: Duration = Duration::from_secs(3);

/// Where the time of a creation went, microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// The jailer.
    pub jail_us: u64,
    /// From exec to a filled VM.
    pub vm_us: u64,
    /// The guest's init.
    pub init_us: u64,
    /// Bringing it back from a snapshot instead.
    pub restore_us: u64,
}

/// What the owner watches of a living sandbox.
#[derive(Debug)]
pub(super) struct Vitals {
    pub(super) pidfd: Pidfd,
    pub(super) control: ControlChannel,
    pub(super) _kept: Option<Kept>,
}

/// Kept so that every VM of a version shares one copy of its code, files and kernel, and of its snapshot.
#[derive(Debug)]
pub(super) struct Kept {
    _version: Startable,
    _snapshot: Option<Arc<SealedSnapshot>>,
}

/// A function that waits for events.
struct Up {
    channel: InvokeChannel,
    startup: Startup,
}

/// Creates a sandbox and waits until it can be invoked.
pub async fn create(
    host: &Arc<Host>,
    request: CreateSandboxRequest,
) -> Result<(Arc<Sandbox>, Timings), CreateError> {
    let spec = VersionSpec::check(request.version.as_ref()).map_err(PrepareError::from)?;
    let id =
        SandboxName::new(request.sandbox_id.as_str()).map_err(|_| CreateError::Id(request.sandbox_id))?;
    if host.is_stopping() {
        return Err(CreateError::Stopping);
    }
    host.fence.admit(request.partition, request.epoch).await?;
    let guest = match &spec.what {
        What::Wasm { .. } => Guest::Wasm,
        What::Linux { .. } => Guest::Linux,
    };
    let reservation = host.reserve(guest, spec.memory_mib)?;
    let about = About {
        id,
        function: spec.name.clone(),
        version: spec.version,
        guest,
        memory_mib: spec.memory_mib,
        timeout_ms: spec.timeout_ms,
        json_response: spec.json_response,
        partition: request.partition,
        epoch: request.epoch,
        created: SystemTime::now(),
    };
    let sandbox = Sandbox::new(about, Machine::default());
    if !host.sandboxes.insert(&sandbox) {
        return Err(CreateError::Exists(sandbox.about.id.to_string()));
    }
    let (answer, wait) = oneshot::channel();
    tokio::spawn(own(Arc::clone(host), Arc::clone(&sandbox), spec, reservation, answer));
    match wait.await {
        Ok(Ok(timings)) => Ok((sandbox, timings)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(CreateError::Destroyed("its owner task ended".to_owned())),
    }
}

/// The owner task: birth, watch, reclaim.
async fn own(
    host: Arc<Host>,
    sandbox: Arc<Sandbox>,
    spec: VersionSpec,
    reservation: Reservation,
    answer: oneshot::Sender<Result<Timings, CreateError>>,
) {
    let mut drain = None;
    let born = tokio::select! {
        born = bring_up(&host, &sandbox, &spec, &mut drain) => born,
        () = sandbox.died.notified() => Err(destroyed(&sandbox)),
    };
    match born {
        Ok((vitals, timings)) => {
            host.report(&sandbox);
            // Whoever asked may have gone: the sandbox stays, control hears of it with the next heartbeat.
            let _ = answer.send(Ok(timings));
            owner::watch(&host, &sandbox, vitals).await;
            owner::reclaim(&host, &sandbox, drain, reservation).await;
        }
        Err(error) => {
            sandbox.kill(Cause::NotCreated);
            let reclaim = owner::reclaim(&host, &sandbox, drain, reservation);
            tokio::pin!(reclaim);
            // Nothing is left when the caller hears of it, unless the jailer itself is what is missing.
            let wait = if error.is_jailer_gone() { Duration::ZERO } else { RECLAIM_PATIENCE };
            let reclaimed = timeout(wait, &mut reclaim).await.is_ok();
            let error = error.with_last_words(&sandbox);
            tracing::info!(sandbox = %sandbox.about.id, %error, "not created");
            let _ = answer.send(Err(error));
            if !reclaimed {
                reclaim.await;
            }
        }
    }
}

async fn bring_up(
    host: &Arc<Host>,
    sandbox: &Arc<Sandbox>,
    spec: &VersionSpec,
    drain: &mut Option<JoinHandle<()>>,
) -> Result<(Vitals, Timings), CreateError> {
    let version = host.versions.prepare(spec, Bytes::new(), Bytes::new()).await?.version;
    let birth = Birth { host, sandbox, spec, version: &version };
    let mut snapshot = match host.snapshots.find(host, spec, &version).await {
        Some(Found::Kept(snapshot)) => Some(snapshot),
        Some(Found::Fleet(fleet)) => match paged::start(&birth, &fleet, drain).await {
            Ok((started, serving)) => {
                let born = birth.enter(started, Origin::Paged, None)?;
                paged::follow(&birth, fleet, serving);
                // Brought whole, beside it: those that come after share its memory.
                host.snapshots.want(host, spec, &version);
                return Ok(born);
            }
            Err(error) if paged::is_final(&error) => return Err(error),
            Err(_) => host.snapshots.bring(host, fleet, (spec, &version)).await,
        },
        None => None,
    };
    let class = snapshot.as_ref().and_then(|_| Class::of(host, spec, &version));
    let zygote = class.and_then(|class| host.zygotes.take(class));
    let adopts = zygote.is_some();
    let mut started = birth.start(From::of(snapshot.as_ref()), zygote, drain).await;
    if adopts && matches!(&started, Err(CreateError::Load { failure, .. }) if !failure.was_said()) {
        // It died before it could say anything: nothing is known of the snapshot.
        birth.undo().await;
        started = birth.start(From::of(snapshot.as_ref()), None, drain).await;
    }
    if let Err(CreateError::Load { failure, .. }) = &started
        && !failure.is_the_functions()
        && let Some(refused) = snapshot.take()
    {
        host.snapshots
            .refused(&refused, &format!("{}; its log: {}", failure.words(), sandbox.vmm_log.text()))
            .await;
        birth.undo().await;
        started = birth.start(From::Nothing, None, drain).await;
    }
    let started = started?;
    if snapshot.is_none() {
        host.snapshots.want(host, spec, &version);
    }
    let origin = if snapshot.is_some() { Origin::Restored } else { Origin::Booted };
    birth.enter(started, origin, snapshot)
}

/// One try at a sandbox.
struct Birth<'a> {
    host: &'a Arc<Host>,
    sandbox: &'a Arc<Sandbox>,
    spec: &'a VersionSpec,
    version: &'a Startable,
}

/// What a try begins from.
enum From<'a> {
    /// It boots.
    Nothing,
    /// A snapshot of this host.
    Kept(&'a SealedSnapshot),
    /// A snapshot of the fleet, and the sockets to the pager that brings it.
    Paged(&'a FleetSnapshot, &'a paged::Sockets),
}

impl<'a> From<'a> {
    fn of(snapshot: Option<&'a Arc<SealedSnapshot>>) -> Self {
        snapshot.map_or(Self::Nothing, |snapshot| Self::Kept(snapshot))
    }
}

/// A sandbox that came up.
struct Started {
    pid: i32,
    pidfd: Pidfd,
    control: ControlChannel,
    up: Up,
    jail_us: u64,
    up_us: u64,
}

/// A jailed VMM that can be talked to.
struct Jailed {
    name: SandboxName,
    pid: i32,
    pidfd: OwnedFd,
    control: ControlChannel,
    /// Where it takes events, if it was connected to before.
    channel: Option<InvokeChannel>,
    tap: Option<OwnedFd>,
}

impl Birth<'_> {
    /// Brings a guest to where it takes events: from a snapshot if there is one, in a zygote if there is one.
    async fn start(
        &self,
        from: From<'_>,
        zygote: Option<Zygote>,
        drain: &mut Option<JoinHandle<()>>,
    ) -> Result<Started, CreateError> {
        let Self { host, sandbox, spec, version } = *self;
        let began = Instant::now();
        let jailed = match zygote {
            Some(zygote) => self.adopt(zygote, drain),
            None => self.jail(&from, drain).await?,
        };
        let since = Instant::now();
        let Jailed { name, pid, pidfd, mut control, channel, tap } = jailed;
        // Not again at a second try.
        if sandbox.state() == State::Creating {
            moved(sandbox, Event::Jailed)?;
        }
        let pidfd = Pidfd::new(pidfd)?;
        let socket = host.run.socket(&name);
        let up = match (version, from) {
            (Startable::Wasm(version), From::Kept(snapshot)) => {
                wasm::restore(sandbox, version, snapshot, &mut control, (channel, &socket)).await?
            }
            (Startable::Wasm(version), From::Paged(snapshot, pager)) => {
                wasm::restore_paged(sandbox, version, (snapshot, pager), &mut control, &socket).await?
            }
            (Startable::Wasm(version), From::Nothing) => {
                wasm::load(host, sandbox, spec, version, &mut control, &socket).await?
            }
            (Startable::Linux(version), from) => {
                let wanted = linux::Wanted { spec, version, tap };
                match from {
                    From::Kept(from) => {
                        linux::restore(host, sandbox, wanted, from, (&mut control, &socket)).await?
                    }
                    From::Paged(snapshot, pager) => {
                        let to = (&mut control, socket.as_path());
                        linux::restore_paged(host, sandbox, wanted, (snapshot, pager), to).await?
                    }
                    From::Nothing => linux::load(host, sandbox, wanted, &mut control, &socket).await?,
                }
            }
        };
        let jail_us = u64::try_from(since.duration_since(began).as_micros()).unwrap_or(u64::MAX);
        Ok(Started { pid, pidfd, control, up, jail_us, up_us: micros(since) })
    }

    /// One that came up is written down, and takes events.
    fn enter(
        &self,
        started: Started,
        origin: Origin,
        snapshot: Option<Arc<SealedSnapshot>>,
    ) -> Result<(Vitals, Timings), CreateError> {
        let Self { host, sandbox, version, .. } = *self;
        let Started { pid, pidfd, control, up: Up { channel, startup }, jail_us, up_us } = started;
        sandbox.set_origin(origin);
        let (about, jail) = (sandbox.about.clone(), sandbox.jail());
        let jail = (jail != about.id).then_some(jail);
        let (restored, paged) = (origin != Origin::Booted, origin == Origin::Paged);
        host.run.write(&Record { about, pid, restored, paged, jail })?;
        sandbox.ready(Event::Ready, channel, startup).map_err(|_| destroyed(sandbox))?;
        let Startup { init_us, restore_us } = startup;
        let vm_us = up_us.saturating_sub(init_us + restore_us);
        let kept = Some(Kept { _version: version.clone(), _snapshot: snapshot });
        Ok((Vitals { pidfd, control, _kept: kept }, Timings { jail_us, vm_us, init_us, restore_us }))
    }

    /// A zygote becomes this sandbox's, for ever.
    fn adopt(&self, zygote: Zygote, drain: &mut Option<JoinHandle<()>>) -> Jailed {
        let Zygote { name, pid, pidfd, control, channel, tap, log, .. } = zygote;
        self.sandbox.set_jailed(&name, pid);
        *drain = Some(self.follow(log));
        Jailed { name, pid, pidfd, control, channel, tap }
    }

    async fn jail(&self, from: &From<'_>, drain: &mut Option<JoinHandle<()>>) -> Result<Jailed, CreateError> {
        let Self { host, sandbox, spec, version } = *self;
        let name = sandbox.about.id.clone();
        let Door { socket, theirs, log } = host.run.door(&name)?;
        *drain = Some(self.follow(log));
        let (program, limits) = match version {
            Startable::Wasm(version) => wasm::machine(spec, version, from),
            Startable::Linux(version) => linux::machine(host, spec, version, from)?,
        };
        let spawn = Spawn { name: name.clone(), program, limits };
        let started = host.jailer.spawn(spawn, theirs).await?;
        let (pid, pidfd, tap) = (started.jailed.pid, started.pidfd, started.tap);
        sandbox.set_jailed(&name, pid);
        let control = ControlChannel::connect(&socket).await.map_err(not_up)?;
        Ok(Jailed { name, pid, pidfd, control, channel: None, tap })
    }

    fn follow(&self, log: OwnedFd) -> JoinHandle<()> {
        let sandbox = self.sandbox;
        tokio::spawn(sandbox.vmm_log.clone().drain(sandbox.about.id.to_string(), log))
    }

    /// Before another try. The name is free again when this returns.
    async fn undo(&self) {
        let (host, name) = (self.host, self.sandbox.jail());
        host.jailer.kill_until_gone(&name).await;
        host.run.remove(&name);
        // Whatever comes next has a jail of its own.
        self.sandbox.set_jailed(&self.sandbox.about.id, 0);
    }
}

/// What a function logs in init belongs to no request.
fn log_init(host: &Host, sandbox: &Sandbox, bytes: &[u8]) {
    InvocationLog::of_init(host.logs.clone(), sandbox.line_context(""), bytes);
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
