//! `warren up`: everything on this machine.
//!
//! ```text
//! lock data directory -> identity -> jailer -> control -> agent -> host ready -> (demo) -> wait -> stop in reverse
//!                                    '- root: its own; anybody else: the one that `warren host prepare` set up
//! ```
//! Starts and watches these processes, and restarts those that die. It holds no state of Warren itself: killing it
//! loses nothing, and the next `warren up` on the same directory ends what the last one left behind.

mod child;
mod host;
mod identity;
mod jailer;
mod layout;
mod leftovers;
mod log;
mod probe;
mod programs;

use crate::{demo, screen};
use child::Supervised;
pub(crate) use jailer::default_data;
use layout::Layout;
pub(crate) use probe::Template;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use warren_client::{Client, Config, Failure, Outcome};
use warren_vmm_protocol::rates::{DiskIops, DiskMib, NetworkMbit};

/// Longest wait for one part to get ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  warren up                                      API on 127.0.0.1:7070
  warren up --data /srv/warren --listen 0.0.0.0:7070
  warren up --snapshot-origin /mnt/fleet/snapshots
  warren up --network-mbit 200 --disk-mib 100    bounds of each Linux sandbox
  warren up --data /tmp/w --listen 127.0.0.1:0 --demo --once")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Options {
    /// Where Warren keeps its state [default: /var/lib/warren for root, else ~/.local/share/warren].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where `warren runtime` put what Linux functions run on [default: --data, and what root made for this machine in
    /// /var/lib/warren].
    #[arg(long, value_name = "DIR")]
    guests: Option<PathBuf>,
    /// Where the API listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDR")]
    listen: SocketAddr,
    /// Where the agent listens [default: 127.0.0.1:7071, or a free port if the API's port is 0].
    #[arg(long, value_name = "ADDR")]
    agent_listen: Option<SocketAddr>,
    /// Deploy the demo functions, invoke each cold and warm, show where the time went.
    #[arg(long)]
    demo: bool,
    /// Stop after becoming ready (and after the demo); exit code 0 if all was well.
    #[arg(long)]
    once: bool,
    /// Only these functions of the demo.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// The demo's modules [default: beside the programs].
    #[arg(long, value_name = "DIR")]
    functions: Option<PathBuf>,
    /// The demo's input files.
    #[arg(long, value_name = "DIR")]
    samples: Option<PathBuf>,
    /// First of the user ids given to sandboxes; two Warrens on one machine need ranges of their own. Root's only, as
    /// it says `host prepare` else [default: 70000].
    #[arg(long)]
    uid_base: Option<u32>,
    /// Most sandboxes at once; root's only, too [default: 4096].
    #[arg(long)]
    slots: Option<u32>,
    /// A private network that Linux functions may reach; may be repeated. Root's only, too.
    #[arg(long, value_name = "NETWORK")]
    network_open: Vec<String>,
    /// Whom Linux functions' questions for names go to; root's only, too [default: this host's own resolver].
    #[arg(long, value_name = "ADDRESS")]
    network_resolver: Option<std::net::Ipv4Addr>,
    /// Linux functions reach nothing, and nothing is changed in this host's network; root's only, too.
    #[arg(long, conflicts_with_all = ["network_open", "network_resolver"])]
    no_network: bool,
    /// Set this host's cgroup v2 so that VMs are made 10 ms sooner, for as long as this runs; each fork and exit of the host costs a
    /// little more (Linux 6.0). Root's only, too.
    #[arg(long)]
    favordynmods: bool,
    /// Memory for sandboxes, MiB [default: the agent's choice].
    #[arg(long)]
    memory_mib: Option<u64>,
    /// Destroy sandboxes idle for so long, ms [default: the agent's choice].
    #[arg(long)]
    idle_ms: Option<u64>,
    /// Keep snapshots of Wasm functions up to so much, MiB; 0: every cold start boots [default: the agent's choice].
    #[arg(long)]
    snapshots_mib: Option<u64>,
    /// What Linux functions see of the processor: `host`, all of it, or a template that is the same on a family of hosts, which then
    /// share snapshots of Linux functions; `warren doctor` says which this machine can be [default: host].
    #[arg(long, value_name = "NAME")]
    cpu_template: Option<String>,
    /// What the network card of each Linux sandbox carries at most each way, Mbit/s, from 1 [default: as much as it can].
    #[arg(long, value_name = "MBIT")]
    network_mbit: Option<NetworkMbit>,
    /// What is read from and written to each disk of a Linux sandbox at most, together, MiB/s, from 8 [default: as much as it can].
    #[arg(long, value_name = "MIB")]
    disk_mib: Option<DiskMib>,
    /// How many requests each of these disks serves at most a second, from 100 [default: as many as it can].
    #[arg(long, value_name = "N")]
    disk_iops: Option<DiskIops>,
    /// Share snapshots with the fleet's other hosts: a folder that all of them reach, or s3://BUCKET/PREFIX with who asks in the
    /// environment, as `warren-agent --help` says it.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    snapshot_origin: Option<String>,
    /// Believe no shared snapshot of an earlier generation [default: the agent's choice].
    #[arg(long, value_name = "N", requires = "snapshot_origin")]
    snapshot_min_generation: Option<u32>,
    /// Keep jailed VMs ready for cold starts in up to so much memory, MiB; 0: none [default: the agent's choice].
    #[arg(long)]
    zygotes_mib: Option<u64>,
    /// Most invocations at once on this installation [default: 1000].
    #[arg(long)]
    account_concurrency: Option<u32>,
    /// Remove what no function names any more once it is so old, seconds [default: 3600].
    #[arg(long)]
    collect_seconds: Option<u64>,
    #[command(flatten)]
    below: crate::host::Below,
}

/// Runs until Ctrl-C, SIGTERM, or the end of `--once`.
pub(crate) async fn run(options: &Options, config_path: &Path, json: bool) -> Outcome {
    let jailer = jailer::Jailer::choose(options)?;
    let mut stop = Stop::listen()?;
    let data = options.data.clone().unwrap_or_else(|| jailer.default_data());
    let layout = Layout::prepare(&data, jailer.users())?;
    let mut host = host::Host::new(options, layout, jailer)?;
    let result = tokio::select! {
        result = serve(&mut host, options, config_path, json) => result,
        () = stop.wait() => if options.once { Err(Failure::Interrupted) } else { Ok(()) },
    };
    if !json {
        screen::tell("stopping");
    }
    let stopped = host.stop(&mut stop).await;
    result.and(stopped)
}

/// Starts, says so, runs the demo, and watches.
async fn serve(host: &mut host::Host, options: &Options, config_path: &Path, json: bool) -> Outcome {
    let begin = Instant::now();
    let shown = screen::spinner("starting");
    let config = host.start().await?;
    config.save(config_path)?;
    let client = Client::connect(&config).await?;
    host.wait_for_worker(&client).await?;
    drop(shown);
    announce(&config, options, host.data(), config_path, begin.elapsed(), json);
    if options.demo {
        let place = demo::Place::new(options.functions.clone(), options.samples.clone())?;
        demo::run(&client, &place, &options.only, json).await?;
    }
    if options.once { Ok(()) } else { Err(host.first_failure().await) }
}

fn announce(config: &Config, options: &Options, data: &Path, config_path: &Path, took: Duration, json: bool) {
    if json {
        let line = serde_json::json!({
            "ready": config.endpoint, "data": data, "config": config_path, "seconds": took.as_secs_f64(),
        });
        return screen::print(&line.to_string());
    }
    // One stable line for programs that wait for it; the rest is for people.
    screen::print(&format!("ready {} in {:.1} s", config.endpoint, took.as_secs_f64()));
    if !options.once {
        screen::print(&format!(
            "\nstate in {}, credentials in {}\n\nNext, in another terminal:\n  \
             warren fn create hello hello.wasm\n  warren invoke hello --payload '{{\"name\":\"you\"}}'\n  \
             warren ps\n\nCtrl-C stops everything.",
            data.display(),
            config_path.display()
        ));
    }
}

/// SIGINT, SIGTERM and SIGHUP.
struct Stop {
    signals: [tokio::signal::unix::Signal; 3],
}

impl Stop {
    fn listen() -> Outcome<Self> {
        let open = |kind| signal(kind).map_err(|error| Failure::io("cannot listen for signals", error));
        Ok(Self {
            signals: [
                open(SignalKind::interrupt())?,
                open(SignalKind::terminate())?,
                open(SignalKind::hangup())?,
            ],
        })
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The children in the order in which they start.
type Children = Vec<Supervised>;
