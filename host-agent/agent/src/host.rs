//! What all parts of the agent share: one value, made once at start.

use crate::{
    config::Config,
    fleet::ControlClient,
    jailer::JailerClient,
    linux::Offer,
    logs::LogHub,
    pager::{PagerClient, Program},
    resources::{HostFull, MemoryBudget, Reservation},
    sandbox::{
        Sandbox, SandboxTable, ends::Ends, grants::GrantLedger, kept::KeptFence, live::Guest, machine::Event,
        record::RunDir,
    },
    snapshot::{Fleet, Shelf, Snapshots},
    version::{Compiler, Versions},
    zygote::Zygotes,
};
use anyhow::Context as _;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use warren_abi::isa::IsaSet;
use warren_artefact::{SigningKey, Store};
use warren_identity::{Credentials, Service};
use warren_sandbox_plan::facts::Availability;
use warren_vmm_protocol::rates::Rates;

/// The worker host, as its agent knows it.
#[derive(Debug)]
pub struct Host {
    /// Its name, as its certificate says.
    pub id: String,
    /// How long an idle sandbox is kept.
    pub keep_alive: Duration,
    /// The one privileged process.
    pub jailer: JailerClient,
    /// What it proves itself with; renewed while it runs.
    pub credentials: Credentials,
    /// The way to control.
    pub control: ControlClient,
    /// Code that can be started here.
    pub versions: Arc<Versions>,
    /// Functions at rest, from which cold starts begin.
    pub snapshots: Snapshots,
    /// What brings the memory of VMs that begin from snapshots this host does not have.
    pub pager: PagerClient,
    /// Jails that wait for one of them.
    pub zygotes: Zygotes,
    /// What Linux functions run on.
    pub offer: Arc<Offer>,
    /// Every sandbox.
    pub sandboxes: SandboxTable,
    /// Sockets and records of sandboxes.
    pub run: RunDir,
    /// Function logs.
    pub logs: LogHub,
    /// Executions by grant.
    pub grants: GrantLedger,
    /// Memory of the host.
    pub memory: MemoryBudget,
    /// The newest epochs seen, kept over restarts.
    pub fence: Arc<KeptFence>,
    /// How its sandboxes ended.
    pub ends: Ends,
    /// What Linux functions reach from here; set once the jailer has said it.
    pub network: OnceLock<Availability>,
    /// How fast the devices of each of them may be.
    pub rates: Rates,
    stopping: AtomicBool,
}

impl Host {
    /// Makes directories, key, threads; talks to nobody yet.
    pub fn open(config: &Config) -> anyhow::Result<Arc<Self>> {
        let data = &config.data;
        if let Some(mode) = warren_identity::close_folder(data)? {
            tracing::warn!(data = %data.display(), "others could reach the data (mode {mode:o}): it is closed now");
        }
        let id = config.host_id()?;
        let key = SigningKey::load_or_create(&data.join("builder.key"))?;
        let store = Store::open(data.join("artefacts"))?;
        let jailer = JailerClient::start(config.jailer.clone())?;
        let credentials = Credentials::load(&config.identity, Service::Agent)?;
        let control = ControlClient::new(credentials.clone(), &config.control)?;
        let isa = host_isa();
        anyhow::ensure!(
            isa.covers(IsaSet::BASELINE),
            "this CPU lacks SSE4.2 or FMA, which compiled functions need"
        );
        let run = RunDir::open(data.join("run"))?;
        let whole_mib = config.memory_mib()?;
        let pager = config.pager(run.pager(), whole_mib)?;
        // What the pager may take is promised to nobody else, whether it lives just now or not.
        let pager_mib = pager.as_ref().map_or(0, Program::host_mib);
        let memory = MemoryBudget::new(whole_mib.saturating_sub(pager_mib));
        let limits = config.compile_limits().on_host_of(memory.total_mib());
        let compiler = Arc::new(Compiler::new(jailer.clone(), key, isa, limits, store, memory.clone()));
        let (own, beside) = match config.guests.split_first() {
            Some((own, beside)) => (own, beside),
            None => (data, &[][..]),
        };
        let guests = beside.iter().fold(warren_image::Shelf::new(own), warren_image::Shelf::beside);
        let offer = Arc::new(Offer::open(guests, config.probe.as_deref(), &config.cpu_template)?);
        let versions =
            Versions::new(Arc::clone(&compiler), control.clone(), data.join("tasks"), Arc::clone(&offer))?;
        let shelf = match config.snapshots_mib {
            0 => None,
            mib => Some(Shelf::open(data.join("snapshots"), mib << 20).context("cannot open the snapshots")?),
        };
        let snapshots = Snapshots::new(shelf, Fleet::open(config, &credentials)?, compiler, jailer.clone());
        let grants = GrantLedger::default();
        let fence =
            KeptFence::open(&data.join("epochs"), grants.clone()).context("cannot read the epochs")?;
        let pager = match pager {
            Some(program) => PagerClient::start(program, jailer.clone()).context("cannot start a thread")?,
            None => PagerClient::none(),
        };
        Ok(Arc::new(Self {
            id,
            pager,
            keep_alive: Duration::from_millis(config.idle_ms),
            jailer,
            credentials,
            control,
            versions: Arc::new(versions),
            snapshots,
            zygotes: Zygotes::new(config.zygotes_mib),
            offer,
            sandboxes: SandboxTable::default(),
            run,
            logs: LogHub::start(data.join("logs"))?,
            grants,
            memory,
            fence,
            ends: Ends::default(),
            network: OnceLock::new(),
            rates: config.rates(),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Asks the jailer whether sandboxes can have a network; a jailer that does not know gives none.
    pub async fn learn_network(&self) {
        let said = self.jailer.network().await.unwrap_or_else(|error| Availability::No(error.to_string()));
        if let Availability::No(why) = &said {
            tracing::info!(why, "Linux functions reach nothing from this host");
        }
        let _ = self.network.set(said);
    }

    /// Why sandboxes have no network, if they have none.
    #[must_use]
    pub fn no_network_because(&self) -> Option<&str> {
        match self.network.get() {
            Some(Availability::Yes) => None,
            Some(Availability::No(why)) => Some(why),
            None => Some("its jailer was not asked yet"),
        }
    }

    /// From now on no sandbox is created and control's connection is let go.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the agent stops.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Gives up the sandbox that was idle longest, each time somebody waits for memory; for ever.
    pub async fn make_room(self: Arc<Self>) {
        loop {
            self.memory.wanted().await;
            if self.zygotes.give_up_one(&self) {
                continue;
            }
            let idle = self.sandboxes.all().into_iter().filter_map(|one| Some((one.idle_for()?, one)));
            if let Some((_, oldest)) = idle.max_by_key(|(idle, _)| *idle) {
                tracing::info!(sandbox = %oldest.about.id, "idle, and its memory is wanted");
                // Refused if an invocation was quicker: whoever waits asks again when that memory gets free.
                let _ = oldest.apply(Event::Expire);
            }
        }
    }

    /// Takes a new sandbox's memory; zygotes make room.
    pub fn reserve(self: &Arc<Self>, guest: Guest, memory_mib: u32) -> Result<Reservation, HostFull> {
        loop {
            match self.memory.reserve(guest, memory_mib) {
                Err(_) if self.zygotes.give_up_one(self) => {}
                taken => return taken,
            }
        }
    }

    /// Memory that a new sandbox can have, MiB.
    #[must_use]
    pub fn free_mib(&self) -> u64 {
        self.memory.free_mib() + self.zygotes.held_mib()
    }

    /// Control shall hear of this sandbox.
    pub fn report(&self, sandbox: &Arc<Sandbox>) {
        self.sandboxes.changed(sandbox);
    }
}

/// What compiled code may use here, from the host's own CPUID.
fn host_isa() -> IsaSet {
    IsaSet::detect(|name| match name {
        "sse3" => is_x86_feature_detected!("sse3"),
        "ssse3" => is_x86_feature_detected!("ssse3"),
        "sse4.1" => is_x86_feature_detected!("sse4.1"),
        "sse4.2" => is_x86_feature_detected!("sse4.2"),
        "popcnt" => is_x86_feature_detected!("popcnt"),
        "lzcnt" => is_x86_feature_detected!("lzcnt"),
        "bmi1" => is_x86_feature_detected!("bmi1"),
        "bmi2" => is_x86_feature_detected!("bmi2"),
        "avx" => is_x86_feature_detected!("avx"),
        "avx2" => is_x86_feature_detected!("avx2"),
        "fma" => is_x86_feature_detected!("fma"),
        _ => false,
    })
}
