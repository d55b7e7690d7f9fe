//! The Wasm runtime: no compiler, pooled memory, fuel, a ticking epoch.

use super::builder::Builder;
use super::ticker::{IDLE_TICKS, Ticker};
use std::sync::Arc;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// What a policy may use. A decision past any of these is made by the built-in default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Fuel (about one unit an instruction) of a decision.
    pub decision_fuel: u64,
    /// And for each change that is told with it.
    pub delta_fuel: u64,
    /// Fuel of a snapshot, for each host in it.
    pub host_fuel: u64,
    /// A decision's deadline, in milliseconds, at most [`Limits::LONGEST_MS`]. Fuel is the finer limit; this one is for
    /// what fuel does not see (filling memory is one instruction) and must leave room for a busy machine, on which a
    /// blameless policy is not scheduled for some milliseconds.
    pub decision_ms: u64,
    /// A snapshot's.
    pub snapshot_ms: u64,
    /// Linear memory.
    pub memory_bytes: usize,
    /// What the host copies out of a policy's memory for one answer.
    pub answer_bytes: usize,
}

impl Limits {
    /// The longest deadline there is.
    pub const LONGEST_MS: u64 = IDLE_TICKS / 2;
}

impl Default for Limits {
    /// A built-in decision burns some thousand units; half a million take less than half a millisecond.
    fn default() -> Self {
        Self {
            decision_fuel: 500_000,
            delta_fuel: 5_000,
            host_fuel: 10_000,
            decision_ms: 10,
            snapshot_ms: 200,
            memory_bytes: 64 << 20,
            answer_bytes: 16 << 10,
        }
    }
}

/// Instances at one time: three interfaces, each with one live, one in waiting and one being made, several times over.
const INSTANCES: u32 = 32;

/// Why there is no runtime: this host's fault, never a policy's.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The pool's address space could not be reserved, or the settings do not go together.
    #[error("the Wasm runtime does not start")]
    Engine(#[source] wasmtime::Error),
    /// A thread could not be started.
    #[error("a thread does not start")]
    Thread(#[from] std::io::Error),
}

/// Loads and runs policies; one a process is enough.
#[derive(Debug)]
pub struct Runtime {
    pub(super) engine: Engine,
    pub(super) ticker: Ticker,
    pub(crate) builder: Builder,
    limits: Limits,
}

impl Runtime {
    /// Starts the runtime and its two threads.
    pub fn start(limits: Limits) -> Result<Arc<Self>, RuntimeError> {
        let engine = Engine::new(&config(&limits)).map_err(RuntimeError::Engine)?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Arc::new(Self { engine, ticker, builder: Builder::start()?, limits }))
    }

    /// What policies may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits until all instances that are being made are made.
    pub fn settle(&self) {
        self.builder.settle();
    }
}

fn config(limits: &Limits) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * 4)
        .total_memories(INSTANCES)
        .total_tables(INSTANCES * 2)
        .max_core_instances_per_component(4)
        .max_memories_per_component(1)
        .max_memories_per_module(1)
        .max_tables_per_component(2)
        .max_memory_size(limits.memory_bytes);
    let mut config = Config::new();
    warren_artefact::configure_policy_engine!(&mut config);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
