//! The hosts: who is there, who was lost, who is chosen for a new sandbox.

use crate::{
    Cannot, Choosers, HostState, HostStatus, Wanted, Wires, Worker,
    choose::{CPU_PROMISED_TIMES, Siblings, cpu_millis},
    holdings::Holdings,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, futures::Notified};
use warren_policy_engine::{HostReport, rules::Health};
use warren_proto::v1::{FunctionVersion, HeartbeatRequest, RegisterWorkerRequest, Zygotes};

/// How often agents report.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// A host that missed so many is lost.
pub const MISSED_HEARTBEATS: u32 = 6;

/// How many reasons of ends are kept of a host: it has a dozen.
const ENDS_OF: usize = 32;

/// Of how many hosts an error tells why they cannot.
const WORDS_OF: usize = 3;

/// No host can take the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// No worker is ready.
    #[error("no worker is ready; `warren hosts` shows them, `warren doctor` why one does not start")]
    NoWorker,
    /// The ready ones are full.
    #[error("no ready worker has {memory_mib} MiB free; wait for idle sandboxes to go, or add a host")]
    NoRoom {
        /// What was asked for.
        memory_mib: u32,
    },
    /// None of the ready ones runs Linux guests.
    #[error("no ready host can run Linux functions: {0}")]
    NoLinux(String),
    /// None of those that do gives them a network.
    #[error("no host that can run Linux functions gives them outbound network: {0}")]
    NoNetwork(String),
    /// None of those that do holds the runtime.
    #[error(
        "no host that can run Linux functions holds runtime {name}{}; `warren runtime build {name}` on such a host makes it, \
         and `warren fn update` takes a new build over", .build.as_deref().unwrap_or_default()
    )]
    NoRuntime {
        /// Its name.
        name: String,
        /// Of which build, if the version is fixed to one.
        build: Option<String>,
    },
}

/// Every worker host that registered since control started.
#[derive(Debug, Default)]
pub struct Fleet {
    workers: RwLock<BTreeMap<Arc<str>, Arc<Worker>>>,
    choosers: Choosers,
    holdings: Holdings,
    /// Hosts an operator took out of service; also such that are not there.
    drained: Mutex<BTreeSet<Arc<str>>>,
    /// Rung when a host that takes sandboxes has more memory free than was known.
    more_room: Notify,
    /// CPU of the ready hosts, thousandths of a core, when they were last looked at.
    ready_cpu_millis: AtomicU64,
}

impl Fleet {
    /// The policies that choose hosts.
    #[must_use]
    pub fn choosers(&self) -> &Choosers {
        &self.choosers
    }

    /// These are out of service from the start.
    pub fn begin_drained(&self, hosts: BTreeSet<Arc<str>>) {
        *self.drained.lock().unwrap_or_else(PoisonError::into_inner) = hosts;
    }

    /// Takes a host out of service or back. `None`: there is no such host.
    pub fn set_drained(&self, host: &str, drained: bool) -> Option<Arc<Worker>> {
        let worker = self.get(host)?;
        let mut hosts = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        if drained {
            hosts.insert(Arc::clone(worker.id()));
        } else {
            hosts.remove(host);
        }
        drop(hosts);
        let mut status = worker.lock();
        // A lost one hears of it when it registers.
        if status.state != HostState::Lost {
            status.state = self.state_of(host);
            self.tell(&worker, &status);
        }
        drop(status);
        Some(worker)
    }

    /// A host made this version startable: placement may prefer it.
    pub fn holds(&self, host: &Arc<str>, version: &FunctionVersion) {
        self.holdings.note(host, version);
    }

    /// Forgets who holds what no version names.
    pub fn forget_holdings(&self, named: &BTreeSet<String>) {
        self.holdings.retain(named);
    }

    fn state_of(&self, host: &str) -> HostState {
        let drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner).contains(host);
        if drained { HostState::Draining } else { HostState::Ready }
    }

    /// A worker said hello. `connect` is called only if its address is new.
    pub fn register(
        &self,
        request: &RegisterWorkerRequest,
        now: Instant,
        connect: impl FnOnce(&str) -> Result<Wires, tonic::transport::Error>,
    ) -> Result<Arc<Worker>, tonic::transport::Error> {
        let resources = request.resources.clone().unwrap_or_default();
        let promised: u64 = request.sandboxes.iter().map(|sandbox| u64::from(sandbox.memory_mib)).sum();
        let status = HostStatus {
            state: self.state_of(&request.host_id),
            free_memory_mib: resources.memory_mib.saturating_sub(promised),
            sandboxes: u32::try_from(request.sandboxes.len()).unwrap_or(u32::MAX),
            busy: 0,
            resources,
            runtimes: request.runtimes.clone(),
            load: 0,
            used_memory_mib: (0, 0),
            ends: HashMap::new(),
            zygotes: Zygotes::default(),
            shared: None,
            pager: None,
            heard: now,
        };
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(request.host_id.as_str()) {
            if worker.address() != request.address {
                worker.relink(request.address.clone(), connect(&request.address)?);
            }
            *worker.lock() = status.clone();
            self.tell(worker, &status);
            return Ok(Arc::clone(worker));
        }
        let id: Arc<str> = request.host_id.as_str().into();
        let wires = connect(&request.address)?;
        let worker = Arc::new(Worker::new(Arc::clone(&id), request.address.clone(), wires, status.clone()));
        self.tell(&worker, &status);
        workers.insert(id, Arc::clone(&worker));
        drop(workers);
        self.look_at_cpu();
        Ok(worker)
    }

    /// A worker reports. False: it must register again.
    pub fn heartbeat(&self, request: &HeartbeatRequest, now: Instant) -> bool {
        let Some(worker) = self.get(&request.host_id) else { return false };
        let mut status = worker.lock();
        if status.state == HostState::Lost {
            return false;
        }
        status.free_memory_mib = request.free_memory_mib;
        status.sandboxes = request.sandboxes;
        status.busy = request.busy;
        status.runtimes.clone_from(&request.runtimes);
        status.load = request.load.min(1000);
        status.ends =
            request.ends.iter().take(ENDS_OF).map(|(reason, count)| (reason.clone(), *count)).collect();
        status.zygotes = request.zygotes.unwrap_or_default();
        status.shared = request.shared;
        status.pager = request.pager;
        status.used_memory_mib = (request.used_memory_mib, request.used_memory_spread_mib);
        status.heard = now;
        self.tell(&worker, &status);
        true
    }

    /// Done when a host that takes sandboxes has more memory free than was known at this call: what is known of it is as old
    /// as the last report, and a compilation or a sandbox may have ended since.
    pub fn more_room(&self) -> Notified<'_> {
        self.more_room.notified()
    }

    /// Declares hosts lost that were not heard of; returns those that are newly so.
    pub fn expire(&self, now: Instant) -> Vec<Arc<Worker>> {
        let silent = |worker: &Arc<Worker>| {
            let mut status = worker.lock();
            let lost = status.state != HostState::Lost
                && now.saturating_duration_since(status.heard) > HEARTBEAT * MISSED_HEARTBEATS;
            if lost {
                status.state = HostState::Lost;
                self.tell(worker, &status);
            }
            lost
        };
        let lost = self.all().into_iter().filter(silent).collect();
        self.look_at_cpu();
        lost
    }

    /// CPU of the ready hosts together, thousandths of a core; as new as the last [`expire`](Self::expire) or registration.
    pub fn ready_cpu_millis(&self) -> u64 {
        self.ready_cpu_millis.load(Ordering::Relaxed)
    }

    fn look_at_cpu(&self) {
        let of = |worker: &Arc<Worker>| {
            let status = worker.lock();
            if status.state == HostState::Ready { u64::from(status.resources.cpu_millis) } else { 0 }
        };
        self.ready_cpu_millis.store(self.all().iter().map(of).sum(), Ordering::Relaxed);
    }

    /// One host.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Worker>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// All hosts, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Worker>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Any ready host that can run this version, whatever room it has; if there is none, why not.
    pub fn any_for(&self, version: &FunctionVersion) -> Result<Arc<Worker>, NoPlace> {
        let ready: Vec<_> =
            self.all().into_iter().filter(|worker| worker.lock().state == HostState::Ready).collect();
        if ready.is_empty() {
            return Err(NoPlace::NoWorker);
        }
        let (mut words, mut no_network, mut lacks_runtime) = (Vec::new(), Vec::new(), false);
        for worker in ready {
            let can = worker.lock().can_run(version);
            match can {
                Ok(()) => return Ok(worker),
                Err(Cannot::Runtime) => lacks_runtime = true,
                Err(Cannot::Linux(why)) => words.push(format!("{}: {why}", worker.id())),
                Err(Cannot::Network(why)) => no_network.push(format!("{}: {why}", worker.id())),
            }
        }
        if lacks_runtime {
            let build = version.runtime_digest.get(..16).map(|digest| format!(" of build {digest}"));
            return Err(NoPlace::NoRuntime { name: version.runtime.clone(), build });
        }
        // The hosts that came closest say what is missing.
        if !no_network.is_empty() {
            no_network.truncate(WORDS_OF);
            return Err(NoPlace::NoNetwork(no_network.join("; ")));
        }
        words.truncate(WORDS_OF);
        Err(NoPlace::NoLinux(words.join("; ")))
    }

    /// Chooses a host for a sandbox and sets its memory aside there until the host's next report.
    pub fn place(&self, wanted: &Wanted<'_>, siblings: &Siblings) -> Result<Arc<Worker>, NoPlace> {
        let locality = |host: &str| self.holdings.locality(host, wanted.version);
        let can =
            |host: &str| self.get(host).is_some_and(|worker| worker.lock().can_run(wanted.version).is_ok());
        if let Some(host) = self.choosers.choose(wanted, siblings, locality, can)
            && let Some(worker) = self.get(&host)
        {
            return Ok(worker);
        }
        self.any_for(wanted.version)?;
        let memory_mib = wanted.version.limits.as_ref().map_or(0, |limits| limits.memory_mib);
        Err(NoPlace::NoRoom { memory_mib })
    }

    /// Memory of a destroyed sandbox, until the host's next report says so itself.
    pub fn returned(&self, host: &str, memory_mib: u32) {
        let inventory = &self.choosers.inventory;
        if let Some(index) = inventory.index(host) {
            let mut takes = false;
            inventory.adjust(index, |host| {
                takes = host.health == Health::Ready;
                host.free_memory_mib = host.free_memory_mib.saturating_add(memory_mib).min(host.memory_mib);
                host.free_cpu_millis = host.free_cpu_millis.saturating_add(cpu_millis(u64::from(memory_mib)));
                host.sandboxes = host.sandboxes.saturating_sub(1);
            });
            if takes {
                self.more_room.notify_waiters();
            }
        }
    }

    /// Brings the policies' inventory in step with one host.
    fn tell(&self, worker: &Worker, status: &HostStatus) {
        let id = worker.id();
        let zone = self.choosers.inventory.zone(&status.resources.zone);
        worker.show(zone, status);
        let small = |mib: u64| u32::try_from(mib).unwrap_or(u32::MAX);
        let resources = &status.resources;
        let offered = resources.cpu_millis.saturating_mul(CPU_PROMISED_TIMES);
        let promised = cpu_millis(resources.memory_mib.saturating_sub(status.free_memory_mib));
        let report = HostReport {
            zone,
            health: match status.state {
                HostState::Ready => Health::Ready,
                HostState::Draining => Health::Draining,
                HostState::Lost => Health::NotReady,
            },
            memory_mib: small(resources.memory_mib),
            free_memory_mib: small(status.free_memory_mib),
            cpu_millis: offered,
            free_cpu_millis: offered.saturating_sub(promised),
            used_p50_mib: small(status.used_memory_mib.0),
            used_spread_mib: small(status.used_memory_mib.1),
            sandboxes: status.sandboxes,
            busy: status.busy,
        };
        let inventory = &self.choosers.inventory;
        let offered = |health, mib| if health == Health::Ready { mib } else { 0 };
        let known = inventory.index(id).and_then(|index| inventory.get(index));
        let before = known.map_or(0, |host| offered(host.health, host.free_memory_mib));
        let now = offered(report.health, report.free_memory_mib);
        if let Err(error) = inventory.report(id, report) {
            tracing::error!(host = %id, %error, "this host will get no sandboxes");
        } else if now > before {
            self.more_room.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
