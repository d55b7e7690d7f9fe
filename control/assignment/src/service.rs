//! The shell around the table: asks placement and workers, keeps the table in step.

use crate::{Acquired, Gone, HostName, Lessee, Reported, SandboxId, Table, VersionKey};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::futures::Notified;
use tonic::{Code, Status};
use warren_placement::{Fleet, NoPlace, Wanted, Worker, cannot_run, worker_error};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{self, CreateSandboxRequest, DestroySandboxRequest, FunctionVersion, SandboxState},
};

/// A sandbox as a frontend holds it.
#[derive(Debug)]
pub struct Sandbox {
    /// Its name.
    pub id: SandboxId,
    /// Where it runs.
    pub worker: Arc<Worker>,
    /// Its memory.
    pub memory_mib: u32,
}

/// How long the parts of a creation took, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartTiming {
    /// Choosing the host.
    pub placement_us: u64,
    /// Slot, namespaces, spawn.
    pub jail_us: u64,
    /// From exec to a loaded VM.
    pub vm_us: u64,
    /// The guest's init.
    pub init_us: u64,
    /// Bringing it back from a snapshot instead.
    pub restore_us: u64,
}

impl StartTiming {
    /// All parts together.
    #[must_use]
    pub fn total_us(&self) -> u64 {
        let parts = [self.placement_us, self.jail_us, self.vm_us, self.init_us, self.restore_us];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// A lease, and how long its making took if it was made for it.
#[derive(Debug)]
pub struct Leased {
    /// What is leased.
    pub sandbox: Arc<Sandbox>,
    /// Set if it was created for this lease.
    pub start: Option<StartTiming>,
}

/// A sandbox could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AssignError {
    /// No host.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// The worker said no; its words are for the client.
    #[error("{0}")]
    Worker(#[source] Status),
    /// The version was withdrawn while its sandbox was made.
    #[error("the version was replaced or deleted meanwhile")]
    Withdrawn,
}

impl From<AssignError> for WireError {
    fn from(error: AssignError) -> Self {
        let message = error.to_string();
        let unavailable = |reason| Self::new(Code::Unavailable, reason, Fault::System, message.clone());
        let soon = Some(Duration::from_secs(1));
        match error {
            AssignError::NoPlace(NoPlace::NoWorker) => unavailable(reason::NO_WORKER_READY).retryable(soon),
            AssignError::NoPlace(NoPlace::NoRoom { .. }) => unavailable(reason::NO_CAPACITY).retryable(soon),
            AssignError::NoPlace(none) => cannot_run(&none),
            AssignError::Worker(status) => {
                worker_error(&status, "the worker was lost while it made a sandbox; the function has not run")
            }
            AssignError::Withdrawn => unavailable(reason::SANDBOX_LOST_BEFORE_START).retryable(None),
        }
    }
}

/// Assignment of one control process.
#[derive(Debug)]
pub struct Assignment {
    epoch: u64,
    table: Mutex<Table>,
    fleet: Arc<Fleet>,
}

impl Assignment {
    /// With the epoch that was appended to the journal for it.
    #[must_use]
    pub fn new(epoch: u64, fleet: Arc<Fleet>) -> Self {
        Self { epoch, table: Mutex::new(Table::new(epoch)), fleet }
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// CPU of the ready hosts together, thousandths of a core.
    pub fn ready_cpu_millis(&self) -> u64 {
        self.fleet.ready_cpu_millis()
    }

    /// Done when a host has more room than was known at this call: see [`Fleet::more_room`].
    pub fn more_room(&self) -> Notified<'_> {
        self.fleet.more_room()
    }

    /// Leases an idle sandbox, or has one made.
    pub async fn acquire(&self, wanted: &Wanted<'_>, lessee: Lessee) -> Result<Leased, AssignError> {
        let version = wanted.version;
        let key = VersionKey { function: version.name.as_str().into(), version: version.version };
        loop {
            let acquired = self.table().acquire(&key, lessee);
            match acquired {
                Acquired::Leased(id, host) => match self.fleet.get(&host) {
                    Some(worker) => {
                        return Ok(Leased {
                            sandbox: Arc::new(Sandbox { id, worker, memory_mib: memory_of(version) }),
                            start: None,
                        });
                    }
                    // Cannot be while hosts are kept for ever; dropping the row is right if it ever can.
                    None => drop(self.table().remove(&id)),
                },
                Acquired::Create(id) => {
                    let made = self.create(&id, wanted).await;
                    if made.is_err() {
                        self.table().remove(&id);
                    }
                    return made;
                }
            }
        }
    }

    async fn create(&self, id: &SandboxId, wanted: &Wanted<'_>) -> Result<Leased, AssignError> {
        let began = Instant::now();
        let version = wanted.version;
        let siblings = self.table().siblings(&version.name);
        let memory_mib = memory_of(version);
        let worker = self.fleet.place(wanted, &siblings)?;
        self.table().placed(id, worker.id());
        let placement_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let request = CreateSandboxRequest {
            sandbox_id: id.to_string(),
            version: Some(version.clone()),
            partition: 0,
            epoch: self.epoch,
        };
        let made = match worker.client().create_sandbox(request).await {
            Ok(made) => made.into_inner(),
            // What was set aside stays so until its next report: its last one was wrong.
            Err(status) if is_full(&status) => return Err(NoPlace::NoRoom { memory_mib }.into()),
            Err(status) => {
                self.fleet.returned(worker.id(), memory_mib);
                return Err(AssignError::Worker(status));
            }
        };
        self.fleet.holds(worker.id(), version);
        if !self.table().created(id) {
            self.destroy_later(Arc::clone(id), worker, "withdrawn");
            return Err(AssignError::Withdrawn);
        }
        let start = StartTiming {
            placement_us,
            jail_us: made.jail_us,
            vm_us: made.vm_us,
            init_us: made.init_us,
            restore_us: made.restore_us,
        };
        Ok(Leased {
            sandbox: Arc::new(Sandbox { id: Arc::clone(id), worker, memory_mib }),
            start: Some(start),
        })
    }

    /// A frontend gives a sandbox back.
    pub fn release(&self, sandbox: &Sandbox, lessee: Lessee) {
        self.table().release(&sandbox.id, lessee);
    }

    /// A frontend's hint was refused by the worker.
    pub fn occupied(&self, sandbox: &Sandbox, lessee: Lessee) {
        self.table().occupied(&sandbox.id, lessee);
    }

    /// A frontend found a sandbox dead.
    pub fn dead(&self, sandbox: &Sandbox) {
        self.table().remove(&sandbox.id);
        self.fleet.returned(sandbox.worker.id(), sandbox.memory_mib);
    }

    /// Gives up a sandbox and has it destroyed.
    pub fn retire(&self, sandbox: &Sandbox, why: &'static str) {
        self.table().remove(&sandbox.id);
        self.destroy_later(Arc::clone(&sandbox.id), Arc::clone(&sandbox.worker), why);
    }

    /// Gives up a sandbox, waits for its end and counts its memory as free.
    pub async fn retire_now(&self, sandbox: &Sandbox, why: &str) {
        self.table().remove(&sandbox.id);
        let request = DestroySandboxRequest {
            sandbox_id: sandbox.id.to_string(),
            epoch: self.epoch,
            reason: why.to_owned(),
        };
        match sandbox.worker.client().destroy_sandbox(request).await {
            Ok(_) => self.fleet.returned(sandbox.worker.id(), sandbox.memory_mib),
            Err(status) => tracing::warn!(id = %sandbox.id, %status, "a sandbox could not be destroyed"),
        }
    }

    /// The idle sandboxes of these versions are given up and destroyed.
    pub fn drain(&self, which: impl Fn(&VersionKey) -> bool) {
        let drained = self.table().drain(which);
        self.destroy_all_later(drained, "drained");
    }

    /// The idle sandboxes of a host are given up and destroyed.
    pub fn drain_host(&self, host: &str) {
        let drained = self.table().drain_host(host);
        self.destroy_all_later(drained, "its host is drained");
    }

    fn destroy_all_later(&self, drained: Vec<(SandboxId, Option<HostName>)>, why: &'static str) {
        for (id, host) in drained {
            if let Some(worker) = host.and_then(|host| self.fleet.get(&host)) {
                self.destroy_later(id, worker, why);
            }
        }
    }

    /// A worker registered: its table is the truth. Returns sandboxes that are gone.
    pub fn resync(&self, host: &HostName, said: &[v1::Sandbox]) -> Vec<Gone> {
        let named: Vec<_> =
            said.iter().map(|one| (one.id.as_str().into(), key_of(one), state_of(one))).collect();
        self.table().resync(host, &named)
    }

    /// A worker reports changes. Returns sandboxes that died.
    pub fn report(&self, host: &HostName, said: &[v1::Sandbox]) -> Vec<Gone> {
        let mut table = self.table();
        let mut dead = Vec::new();
        for one in said {
            let state = state_of(one);
            let its_own = table.report(&one.id, &key_of(one), host, state);
            if its_own && state == Reported::Dead {
                dead.push((one.id.as_str().into(), key_of(one)));
            }
        }
        dead
    }

    /// A host was lost. Returns its sandboxes.
    pub fn host_lost(&self, host: &str) -> Vec<Gone> {
        self.table().host_lost(host)
    }

    fn destroy_later(&self, id: SandboxId, worker: Arc<Worker>, why: &'static str) {
        let request =
            DestroySandboxRequest { sandbox_id: id.to_string(), epoch: self.epoch, reason: why.to_owned() };
        tokio::spawn(async move {
            if let Err(status) = worker.client().destroy_sandbox(request).await
                && status.code() != Code::NotFound
            {
                tracing::warn!(%id, %status, "a sandbox could not be destroyed");
            }
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between any two of its operations, and none of them panics.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that is full knows it better than the inventory did.
fn is_full(status: &Status) -> bool {
    WireError::from_status(status).reason == reason::HOST_FULL
}

fn memory_of(version: &FunctionVersion) -> u32 {
    version.limits.as_ref().map_or(0, |limits| limits.memory_mib)
}

fn key_of(sandbox: &v1::Sandbox) -> VersionKey {
    VersionKey { function: sandbox.function.as_str().into(), version: sandbox.version }
}

fn state_of(sandbox: &v1::Sandbox) -> Reported {
    match sandbox.state() {
        SandboxState::Idle => Reported::Idle,
        SandboxState::Busy | SandboxState::Creating | SandboxState::Initialising => Reported::Busy,
        SandboxState::Draining
        | SandboxState::Dead
        | SandboxState::Unspecified
        // Nobody's yet: never among what a worker tells of its sandboxes.
        | SandboxState::Zygote => Reported::Dead,
    }
}
