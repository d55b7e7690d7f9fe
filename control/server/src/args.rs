//! The command line.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread::available_parallelism};

/// The control layer of Warren: takes invocations, counts them, assigns sandboxes.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "warren-control", version)]
pub(crate) struct Args {
    /// Where the registry, the journal and the code are kept.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Where the certificates are (made by `warren up`).
    #[arg(long)]
    pub(crate) identity: PathBuf,
    /// Where to listen; port 0 picks one.
    #[arg(long, default_value = "127.0.0.1:7070")]
    pub(crate) listen: SocketAddr,
    /// A directory of policy components (packing.wasm, placement.wasm, routing.wasm) [default: ../policies beside
    /// this program].
    #[arg(long)]
    pub(crate) policies: Option<PathBuf>,
    /// Most invocations at once, over all functions.
    #[arg(long, default_value_t = 1000)]
    pub(crate) account_concurrency: u32,
    /// Threads that serve [default: half the cores]. The machine's cores are also its sandboxes', and every thread more
    /// is woken for work that the one awake would have done sooner.
    #[arg(long)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// The zone this process is in: invocations prefer sandboxes of it.
    #[arg(long, default_value = "local", value_name = "NAME")]
    pub(crate) zone: String,
    /// Remove code, files and logs that no function names once they are so old, seconds; looked for as often.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) collect_seconds: u64,
}

impl Args {
    /// How many threads serve.
    pub(crate) fn threads(&self) -> usize {
        let half = || available_parallelism().map_or(1, usize::from).div_ceil(2);
        self.threads.map_or_else(half, usize::from)
    }

    /// Where policies are, if anywhere.
    pub(crate) fn policies(&self) -> Option<PathBuf> {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("policies"));
        self.policies.clone().or_else(|| beside().filter(|dir| dir.is_dir()))
    }
}
