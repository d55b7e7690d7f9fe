//! `warren-pager`: see the library's cover page.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{SocketFlags, accept_with, listen};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;
use warren_chunks::{
    Store,
    l1::{Disk, Local, Memory},
    l3::{Origin, OriginLimits, Reading},
    root::{Access, Root},
};
use warren_pager::{
    Pager,
    fetch::Source,
    seal,
    sys::inherited,
    upstream::{Patience, Upstream},
};

/// Agents that wait: one is served at a time.
const BACKLOG: i32 = 8;
/// How often one that nobody is connected to looks whether somebody still needs it.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// Threads for files, at most.
const FILE_THREADS: usize = 32;

/// Memory of restored VMs, page by page.
#[derive(Parser)]
#[command(name = "warren-pager", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What the jailer starts: a SOCK_SEQPACKET socket that is bound by descriptor 3, the origin's chunks by 4 and its retired ones
    /// by 5, this host's cache by 6.
    Jailed {
        #[command(flatten)]
        bounds: Bounds,
    },
    /// The same without a jailer, for tests and by hand: the socket is standard input, and folders have names.
    Serve {
        /// The folder of the origin, which many hosts may share. It is only read.
        #[arg(long)]
        origin: PathBuf,
        /// The folder of this host's own cache; without one, memory has to do.
        #[arg(long)]
        cache: Option<PathBuf>,
        #[command(flatten)]
        bounds: Bounds,
    },
}

#[derive(clap::Args)]
struct Bounds {
    /// MiB of the cache's folder.
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
    /// Wait so long for what an agent brings while none is there or it says nothing, ms.
    #[arg(long, default_value_t = 5000)]
    patience_ms: u64,
}

/// What it works with, all of it open.
struct Place {
    listener: OwnedFd,
    origin: Reading,
    /// And who may use what is made there.
    cache: Option<(OwnedFd, Access)>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (place, bounds) = match arguments.command {
        // First of all: these numbers are nobody else's yet.
        Command::Jailed { bounds } => (Place::given().context("descriptors 3 to 6")?, bounds),
        Command::Serve { origin, cache, bounds } => (Place::named(&origin, cache.as_deref())?, bounds),
    };
    // A pager with a thread gone is worse than none: its VM would wait for ever. With the process, all end by name.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("warren-pager: {panic}");
        std::process::abort();
    }));
    let filter = EnvFilter::try_from_env("WARREN_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().log_internal_errors(false).with_ansi(false);
    log.with_env_filter(filter).with_writer(std::io::stderr).init();
    // It asks the host how many processors there are, and nothing later does.
    let memory = Memory::new(bounds.memory_mib << 20);
    // Before any other thread: what starts later is as narrow.
    let landlock = seal::seal(&place.folders()).context("seal the process")?;
    tracing::info!(?landlock, "sealed");
    run(place, memory, &bounds)
}

impl Place {
    /// As the jailer's plan has it.
    fn given() -> std::io::Result<Self> {
        let listener = inherited(3)?;
        let origin = Reading { live: inherited(4)?, retired: inherited(5)? };
        // The next pager has another user id.
        Ok(Self { listener, origin, cache: Some((inherited(6)?, Access::HOLDERS)) })
    }

    fn named(origin: &Path, cache: Option<&Path>) -> anyhow::Result<Self> {
        // What is typed at a terminal ends whoever was started there, and he decides what becomes of this one. Refused to who
        // leads a group already, which is as good.
        let _ = rustix::process::setsid();
        let listener = std::io::stdin().as_fd().try_clone_to_owned()?;
        // The origin is not this host's to make: one that is away (a file system that is not mounted) is waited for by who
        // starts this.
        let origin = Reading::open(origin).with_context(|| format!("open {}", origin.display()))?;
        let folder = |path: &Path| {
            std::fs::create_dir_all(path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok::<_, std::io::Error>((open(path, flags, Mode::empty())?, Access::OWNER))
        };
        let cache = cache.map(|path| folder(path).with_context(|| format!("make {}", path.display())));
        Ok(Self { listener, origin, cache: cache.transpose()? })
    }

    fn folders(&self) -> seal::Folders<'_> {
        let origin = [self.origin.live.as_fd(), self.origin.retired.as_fd()];
        seal::Folders { origin, cache: self.cache.as_ref().map(|(folder, _)| folder.as_fd()) }
    }
}

fn run(place: Place, memory: Memory, bounds: &Bounds) -> anyhow::Result<()> {
    let Place { listener, origin, cache } = place;
    // Time alone: it has no socket that is waited for by a runtime.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(FILE_THREADS).enable_time().build()?;
    let disk = cache
        .map(|(folder, access)| Disk::within(Root::held(folder, "cache"), access, bounds.cache_mib << 20))
        .transpose()
        .context("open the cache")?;
    let origin = Origin::reading(origin, OriginLimits::default());
    let silence = Duration::from_millis(bounds.patience_ms);
    let upstream = Upstream::new(Patience { silence, ..Patience::default() });
    let store = Store::behind(Arc::new(upstream.clone()), Local::new(memory, disk), origin);
    let source = Source::new(store, runtime.handle().clone(), bounds.at_once);
    let pager = Pager::new(source, upstream, bounds.sandboxes);
    // Once more, if somebody did so before: from now on who connects is told by the kernel that it is this process he talks to.
    listen(&listener, BACKLOG).context("the socket must be one that can listen")?;
    serve(&pager, listener.as_fd(), Duration::from_millis(bounds.linger_ms))
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
            Err(error) => return Err(error).context("wait for an agent"),
        }
        let connection: OwnedFd = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            Err(error) => return Err(error).context("take an agent's connection"),
        };
        if let Err(error) = pager.converse(&connection) {
            tracing::warn!(error = &error as &dyn std::error::Error, "a connection broke");
        }
        quiet_since = Instant::now();
    }
}
