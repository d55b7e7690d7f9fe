//! The command line.

use std::{net::SocketAddr, path::PathBuf};

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
}

impl Args {
    /// Where policies are, if anywhere.
    pub(crate) fn policies(&self) -> Option<PathBuf> {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("policies"));
        self.policies.clone().or_else(|| beside().filter(|dir| dir.is_dir()))
    }
}
