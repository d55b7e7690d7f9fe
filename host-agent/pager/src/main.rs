//! `warren-pager`: see the library's cover page.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::net::{SocketFlags, accept_with};
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;
use warren_chunks::{
    Store,
    l1::{Disk, Local, Memory},
    l3::{Origin, OriginLimits},
};
use warren_pager::{Pager, fetch::Source, seal};

/// Memory of restored VMs, page by page.
#[derive(Parser)]
#[command(name = "warren-pager", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve VMs over standard input, which is a listening SOCK_SEQPACKET socket that the agent connects to.
    Serve {
        /// The folder of the origin, which many hosts may share.
        #[arg(long)]
        origin: PathBuf,
        /// The folder of this host's own cache; without one, memory has to do.
        #[arg(long)]
        cache: Option<PathBuf>,
        /// MiB of that folder.
        #[arg(long, default_value_t = 4096)]
        cache_mib: u64,
        /// MiB of sealed chunks kept in memory.
        #[arg(long, default_value_t = 128)]
        memory_mib: u64,
        /// VMs served at once.
        #[arg(long, default_value_t = 2048)]
        sandboxes: usize,
        /// Chunks opened at once.
        #[arg(long, default_value_t = 16)]
        at_once: usize,
    },
}

fn main() -> anyhow::Result<()> {
    // A pager with a thread gone is worse than none: its VM would wait for ever. With the process, all end by name.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("warren-pager: {panic}");
        std::process::abort();
    }));
    let filter = EnvFilter::try_from_env("WARREN_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().log_internal_errors(false).with_ansi(false);
    log.with_env_filter(filter).with_writer(std::io::stderr).init();
    let Command::Serve { origin, cache, cache_mib, memory_mib, sandboxes, at_once } =
        Arguments::parse().command;
    let folders: Vec<&Path> = std::iter::once(origin.as_path()).chain(cache.as_deref()).collect();
    for folder in &folders {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    // Before any other thread: what starts later is as narrow.
    let landlock = seal::seal(&folders).context("seal the process")?;
    tracing::info!(?landlock, "sealed");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let disk =
        cache.map(|folder| Disk::open(&folder, cache_mib << 20)).transpose().context("open the cache")?;
    let origin = Origin::folder(&origin, OriginLimits::default()).context("open the origin")?;
    let store = Store::new(Local::new(Memory::new(memory_mib << 20), disk), None, origin);
    let pager = Pager::new(Source::new(store, runtime.handle().clone(), at_once), sandboxes);
    serve(&pager, std::io::stdin().as_fd())
}

/// One agent at a time: the next one is answered when the last one's connection has closed, which its end does.
fn serve(pager: &Pager, listener: BorrowedFd<'_>) -> anyhow::Result<()> {
    loop {
        let connection: OwnedFd = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            Err(error) => return Err(error).context("standard input must be a listening socket"),
        };
        if let Err(error) = pager.converse(&connection) {
            tracing::warn!(error = &error as &dyn std::error::Error, "a connection broke");
        }
    }
}
