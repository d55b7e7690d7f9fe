//! `warren-bench`: figures, each beside a floor measured in the same run. See `cargo xtask bench --help`.
#![forbid(unsafe_code)]

mod benches;
mod floors;
mod host_memory;
mod report;
mod stats;
mod system;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use report::Report;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The same allocator as the services have, so that a floor is not slow for want of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure Warren. Prints a table for people and one JSON line a figure.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  warren-bench vm-cold vm-warm
  warren-bench --json invoke-warm throughput")]
struct Arguments {
    /// What to measure.
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// Only the JSON lines.
    #[arg(long)]
    json: bool,
    /// Runs of each bench; less is faster and noisier.
    #[arg(long, default_value_t = 1000)]
    runs: usize,
    /// Which host the figures are of.
    #[arg(long, value_enum, default_value_t = Host::Local)]
    host: Host,
    /// Where the programs lie [default: beside this one, else target/warren/bin].
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where the function modules lie [default: ../functions from the programs].
    #[arg(long)]
    functions: Option<PathBuf>,
    /// Where Linux guests' kernels lie, as `warren-lab --guests` carries them.
    #[arg(long)]
    guests: Option<PathBuf>,
    /// The network namespace beyond a link, as a file, for snapshot-link.
    #[arg(long)]
    beyond: Option<PathBuf>,
    /// Where another worker is reached there.
    #[arg(long, default_value = "10.77.0.2:7000")]
    beyond_worker: SocketAddr,
    /// The S3 server there, with an empty bucket `warren`, for `bench` with `bench-secret`.
    #[arg(long, default_value = "http://10.77.0.2:9000")]
    beyond_bucket: String,
    /// MiB of snapshot-link's guest.
    #[arg(long, default_value_t = 2048)]
    guest_mib: u64,
    /// Files of 16 MiB of its application's data, at most 12.
    #[arg(long, default_value_t = 12)]
    data_files: usize,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The process that rpc-floor measures.
    #[command(hide = true)]
    EchoServer {
        /// Its identity folder.
        identity: PathBuf,
    },
    /// The process that bare-process and bare-kill measure.
    #[command(hide = true)]
    Bare {
        /// How many mappings it has.
        mappings: usize,
        /// How many pages it has written.
        pages: usize,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bench {
    /// A sandbox from nothing to its first response.
    VmCold,
    /// A sandbox from a snapshot to its first response, in a new VM and in one made in advance.
    VmRestore,
    /// A sandbox from a snapshot in chunks to its first response, its memory brought by a pager.
    SnapshotFetch,
    /// A Linux guest with a large application from chunks behind a link; on the lab host, in virtual time.
    SnapshotLink,
    /// Event in to response out at the VMM.
    VmWarm,
    /// Client to client over gRPC, with a sandbox waiting.
    InvokeWarm,
    /// The same with none.
    InvokeCold,
    /// Sandboxes created a second, jailed, from snapshots.
    CreateRate,
    /// Memory of each sandbox, two for each run alive at once.
    Density,
    /// From the order to end a sandbox until nothing of it is left.
    Teardown,
    /// A jailed VMM from the request until it is sealed; alone, beside a thousand, with 500 mounts. As root.
    Jail,
    /// What sandboxes take of each other: processor time under contention, an event's time while its neighbours do their worst.
    Fairness,
    /// Warm calls a second, 1 to 64 clients.
    Throughput,
    /// A Linux guest from process start to its own end; on the lab host, in virtual time.
    LinuxBoot,
    /// A Linux guest from a snapshot to its first line; on the lab host, in virtual time.
    LinuxRestore,
    /// What is stored of twenty functions on one runtime: images, snapshots of Wasm guests, and a changed handler's chunks.
    Dedupe,
    /// A stream between host and a Linux guest; on the lab host, in virtual time.
    Vsock,
    /// A Linux guest's disk; on the lab host, in virtual time.
    Block,
    /// A Linux guest's network card; on the lab host, in virtual time.
    Net,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Host {
    Local,
    Lab,
}

/// Where programs and functions lie.
#[derive(Clone, Debug)]
struct Places {
    bin: PathBuf,
    functions: PathBuf,
    guests: Option<PathBuf>,
}

impl Places {
    fn find(arguments: &Arguments) -> Result<Self> {
        let own = std::env::current_exe()?.parent().context("a program lies in a folder")?.to_owned();
        let collected = own.join("warren-guest").exists();
        let found = || if collected { own } else { PathBuf::from("target/warren/bin") };
        let bin = arguments.bin.clone().unwrap_or_else(found);
        let beside = bin.parent().context("the programs' folder has a parent")?.join("functions");
        let functions = arguments.functions.clone().unwrap_or(beside);
        Ok(Self { functions, guests: arguments.guests.clone(), bin })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Role::Bare { mappings, pages }) = arguments.role {
        return floors::bare::be(floors::bare::Shape { mappings, pages });
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(Role::EchoServer { identity }) = &arguments.role {
        // As many threads as the services have.
        let threads = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
        let runtime = runtime.worker_threads(threads).enable_all().build()?;
        return runtime.block_on(floors::rpc::serve(identity));
    }
    runtime.enable_all().build()?.block_on(measure(arguments))
}

async fn measure(arguments: Arguments) -> Result<()> {
    let places = Places::find(&arguments)?;
    let mut report = Report::new(match arguments.host {
        Host::Local => "local",
        Host::Lab => "lab",
    });
    for bench in &arguments.benches {
        eprintln!("measuring {bench:?}, {} runs", arguments.runs);
        match bench {
            Bench::VmCold => benches::vm::cold(&places, &mut report, arguments.runs.min(200))?,
            Bench::VmRestore => benches::vm::restore(&places, &mut report, arguments.runs.min(200))?,
            Bench::SnapshotFetch => benches::vm::fetch::fetch(&places, &mut report, arguments.runs.min(100))?,
            Bench::SnapshotLink => {
                let beyond =
                    arguments.beyond.as_deref().context("--beyond: the namespace beyond the link")?;
                let shape = benches::link::Shape {
                    beyond,
                    worker: arguments.beyond_worker,
                    bucket: &arguments.beyond_bucket,
                    memory_mib: arguments.guest_mib,
                    files: arguments.data_files,
                };
                benches::link::link(&places, &mut report, shape)?;
            }
            Bench::VmWarm => benches::vm::warm(&places, &mut report, arguments.runs)?,
            Bench::InvokeWarm => benches::invoke::warm(&places, &mut report, arguments.runs).await?,
            Bench::InvokeCold => benches::invoke::cold(&places, &mut report, arguments.runs.min(40)).await?,
            Bench::CreateRate => benches::create::rate(&places, &mut report, arguments.runs.min(200)).await?,
            Bench::Density => benches::density::density(&places, &mut report, arguments.runs * 2).await?,
            Bench::Teardown => {
                benches::density::teardown(&places, &mut report, arguments.runs.min(400)).await?;
            }
            Bench::Jail => benches::jail::jail(&places, &mut report, arguments.runs.min(200))?,
            Bench::Fairness => {
                benches::fairness::fairness(&places, &mut report, arguments.runs.min(200)).await?;
            }
            Bench::LinuxBoot => benches::linux::boot(&places, &mut report, arguments.runs.min(2))?,
            Bench::LinuxRestore => {
                benches::linux_restore::restore(&places, &mut report, arguments.runs.min(3))?;
            }
            Bench::Dedupe => benches::dedupe::dedupe(&places, &mut report)?,
            Bench::Vsock => benches::streams::vsock(&places, &mut report, arguments.runs)?,
            Bench::Block => benches::devices::block(&places, &mut report)?,
            Bench::Net => benches::devices::net(&places, &mut report)?,
            Bench::Throughput => benches::invoke::throughput(&places, &mut report, 2).await?,
        }
    }
    Ok(report.print(arguments.json)?)
}
