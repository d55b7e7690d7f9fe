//! `warren-pager`: see the library's cover page.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::net::{SocketFlags, accept_with, listen};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;
use warren_chunks::{
    Store,
    l1::{Disk, Local, Memory},
    l3::{Origin, OriginLimits},
};
use warren_pager::{Pager, fetch::Source, seal};

/// Agents that wait: one is served at a time.
const BACKLOG: i32 = 8;
/// How often one that nobody is connected to looks whether somebody still needs it.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

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
        /// End once no agent was connected and no VM served for so long, ms.
        #[arg(long, default_value_t = 30_000)]
        linger_ms: u64,
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
    let Command::Serve { origin, cache, cache_mib, memory_mib, sandboxes, at_once, linger_ms } =
        Arguments::parse().command;
    // What is typed at a terminal ends whoever was started there, and he decides what becomes of this one. Refused to who leads a
    // group already, which is as good.
    let _ = rustix::process::setsid();
    let folders: Vec<&Path> = std::iter::once(origin.as_path()).chain(cache.as_deref()).collect();
    // The origin is not this host's to make: one that is away (a file system that is not mounted) is waited for by who starts this.
    if let Some(folder) = &cache {
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
    // Once more, if somebody did so before: from now on who connects is told by the kernel that it is this process he talks to.
    let listener = std::io::stdin();
    listen(&listener, BACKLOG).context("standard input must be a listening socket")?;
    serve(&pager, listener.as_fd(), Duration::from_millis(linger_ms))
}

/// One agent at a time: the next one is answered when the last one's connection has closed, which its end does.
///
/// ```text
/// waiting ──an agent connects──▶ conversing ──it hangs up──▶ waiting ──no VM is served, for `linger` ms──▶ end
/// ```
fn serve(pager: &Pager, listener: BorrowedFd<'_>, linger: Duration) -> anyhow::Result<()> {
    let mut quiet_since = Instant::now();
    loop {
        let mut ready = [PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut ready, Some(&LOOK)) {
            Ok(0) if pager.serving() > 0 => {
                quiet_since = Instant::now();
                continue;
            }
            Ok(0) if quiet_since.elapsed() >= linger => return Ok(()),
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error).context("standard input must be a listening socket"),
        }
        let connection: OwnedFd = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            Err(error) => return Err(error).context("standard input must be a listening socket"),
        };
        if let Err(error) = pager.converse(&connection) {
            tracing::warn!(error = &error as &dyn std::error::Error, "a connection broke");
        }
        quiet_since = Instant::now();
    }
}
