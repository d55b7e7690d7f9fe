//! The command line.

use crate::{pager::Program, snapshot::Place, version::CompileLimits};
use anyhow::Context as _;
use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};
use warren_vmm_protocol::{
    linux::HOST_TEMPLATE,
    rates::{DiskIops, DiskMib, NetworkMbit, Rates},
};

/// The worker's agent: serves control, drives jailer and VMMs, holds no privilege.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "warren-agent", version)]
pub struct Config {
    /// Directory of artefacts, logs, sockets and records.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Directory of certificates (`agent.pem`, `agent.key`, `ca.pem`).
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// Where to serve; port 0 picks one and the ready line names it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7071")]
    pub listen: SocketAddr,
    /// Where control reaches this agent, if not at the address served.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Control's address.
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:7070")]
    pub control: String,
    /// Where runtimes, kernels and scratch disks of Linux functions are, as `warren runtime` makes them; may be repeated, what
    /// comes first counts first [default: --data].
    #[arg(long, value_name = "DIR")]
    pub guests: Vec<PathBuf>,
    /// What `warren-vmm probe --json` says of this host's KVM; without it no Linux function runs here.
    #[arg(long, value_name = "FILE")]
    pub probe: Option<PathBuf>,
    /// What Linux functions see of the processor: `host`, all that this host can give, or a template that is the same on every host of
    /// a family (`warren-vmm probe` lists them, and what this host lacks for which). Hosts where they see the same share snapshots of
    /// Linux functions; one that lacks something for it runs none, and says why.
    #[arg(long, value_name = "NAME", default_value = HOST_TEMPLATE)]
    pub cpu_template: String,
    /// What the network card of each Linux sandbox carries at most each way, Mbit/s, from 1 [default: as much as it can].
    #[arg(long, value_name = "MBIT")]
    pub network_mbit: Option<NetworkMbit>,
    /// What is read from and written to each disk of a Linux sandbox at most, together, MiB/s, from 8 [default: as much as it can].
    #[arg(long, value_name = "MIB")]
    pub disk_mib: Option<DiskMib>,
    /// How many requests each of these disks serves at most a second, from 100 [default: as many as it can].
    #[arg(long, value_name = "N")]
    pub disk_iops: Option<DiskIops>,
    /// The jailer's socket.
    #[arg(long, value_name = "PATH")]
    pub jailer: PathBuf,
    /// This host's name; must be the one its certificate carries, which is the default.
    #[arg(long, value_name = "NAME")]
    pub host_id: Option<String>,
    /// The zone this host fails with.
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub zone: String,
    /// Memory for sandboxes, compilations and the pager, MiB; by default what is available at start, less a tenth.
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<u64>,
    /// Destroy a sandbox that was not used for so long.
    #[arg(long, value_name = "MS", default_value_t = 600_000)]
    pub idle_ms: u64,
    /// On SIGTERM leave sandboxes running, for the next agent to adopt.
    #[arg(long)]
    pub leave: bool,
    /// On SIGTERM let running invocations go on for so long.
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub drain_ms: u64,
    /// Memory of one compilation, MiB; on a small host all of them together take half of its memory at most.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub compile_memory_mib: u64,
    /// CPU time of one compilation; on the wall it may take twice as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub compile_seconds: u32,
    /// Keep snapshots of Wasm functions up to so much, MiB; 0 keeps none, and every cold start boots.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(..1 << 24))]
    pub snapshots_mib: u64,
    /// Share snapshots with the fleet's other hosts: a folder that all of them reach, or s3://BUCKET/PREFIX with who asks in the
    /// environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; AWS_REGION, AWS_ENDPOINT_URL, AWS_CA_BUNDLE). It belongs to this fleet
    /// alone [default: each host has its own].
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    pub snapshot_origin: Option<Place>,
    /// Believe no shared snapshot of an earlier generation than this, and publish as of this one: raised on every host, it takes back
    /// what was shared before.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub snapshot_min_generation: u32,
    /// Chunks of shared snapshots kept on this host's disk, for itself and for its neighbours, MiB; 0 keeps none.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(..1 << 24))]
    pub snapshot_chunks_mib: u64,
    /// Keep jailed VMMs ready for cold starts from snapshots, in up to so much memory, 4 MiB each; 0 keeps none ready.
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(..1 << 24))]
    pub zygotes_mib: u64,
    /// Have the jailer start no pager, which brings the memory of functions that begin from a snapshot this host does not have, page
    /// by page: such functions boot.
    #[arg(long)]
    pub no_pager: bool,
    /// Chunks the pager keeps on this host's disk, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    pub pager_cache_mib: u32,
    /// Chunks it keeps in memory, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u32).range(..1 << 20))]
    pub pager_memory_mib: u32,
    /// What the pager may take of memory beyond these, MiB: what it opens for sandboxes. Both are set aside of --memory-mib, of which
    /// they may be half [default: a quarter of --memory-mib, 64 to 1024].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..1 << 20))]
    pub pager_work_mib: Option<u32>,
    /// Threads that serve [default: half the cores]. The host's cores are its sandboxes', and every thread more is woken
    /// for work that the one awake would have done sooner.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

impl Config {
    /// The host's name: its certificate's.
    pub fn host_id(&self) -> anyhow::Result<String> {
        let certified = warren_identity::host_id(&self.identity)?.to_string();
        match &self.host_id {
            Some(given) if *given != certified => anyhow::bail!(
                "--host-id is {given}, but the certificate in {} is for {certified}",
                self.identity.display()
            ),
            _ => Ok(certified),
        }
    }

    /// Memory for sandboxes, and for the pager.
    pub fn memory_mib(&self) -> anyhow::Result<u64> {
        match self.memory_mib {
            Some(mib) => Ok(mib),
            None => Ok(available_mib()? / 10 * 9),
        }
    }

    /// How the pager is started, if this host has one, on a host with so much memory.
    pub fn pager(&self, socket: PathBuf, whole_mib: u64) -> anyhow::Result<Option<Program>> {
        let origin = match &self.snapshot_origin {
            _ if self.no_pager => return Ok(None),
            Some(Place::Folder(origin)) => Some(origin.clone()),
            // The pager has no network: what is in a bucket the agent brings.
            Some(Place::S3(_)) => None,
            None => return Ok(None),
        };
        let cache = self.data.join("pager/chunks");
        let (cache_mib, memory_mib) = (self.pager_cache_mib, self.pager_memory_mib);
        let of_host = || u32::try_from((whole_mib / 4).clamp(64, 1024)).unwrap_or(1024);
        let work_mib = self.pager_work_mib.unwrap_or_else(of_host);
        let program = Program { socket, origin, cache, cache_mib, memory_mib, work_mib };
        let takes_mib = program.host_mib();
        anyhow::ensure!(
            takes_mib <= whole_mib / 2,
            "the pager may take {takes_mib} MiB (--pager-memory-mib {memory_mib} and --pager-work-mib {work_mib}), which is more than \
             half of this host's {whole_mib} MiB: give it less, or none with --no-pager"
        );
        Ok(Some(program))
    }

    /// How many threads serve.
    #[must_use]
    pub fn threads(&self) -> usize {
        let half = || std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
        self.threads.map_or_else(half, usize::from)
    }

    /// How fast the devices of each Linux sandbox may be.
    #[must_use]
    pub const fn rates(&self) -> Rates {
        Rates { network: self.network_mbit, disk: self.disk_mib, disk_requests: self.disk_iops }
    }

    /// What one compilation may take.
    #[must_use]
    pub fn compile_limits(&self) -> CompileLimits {
        CompileLimits {
            memory_mib: self.compile_memory_mib,
            cpu_seconds: self.compile_seconds,
            wall: Duration::from_secs(u64::from(self.compile_seconds) * 2),
            ..CompileLimits::default()
        }
    }
}

/// `MemAvailable` of this machine.
fn available_mib() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib =
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    Ok(kib.context("/proc/meminfo names no MemAvailable; give --memory-mib")? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[track_caller]
    fn check(words: &[&str], whole_mib: u64, expected: Result<Option<u64>, &str>) {
        let all = ["warren-agent", "--data=/d", "--identity=/i", "--jailer=/j"].iter().chain(words);
        let config = Config::try_parse_from(all).unwrap();
        let found = config.pager("/s".into(), whole_mib).map(|program| program.map(|it| it.host_mib()));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{words:?}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{words:?}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn the_pager_has_its_part_of_the_hosts_memory_or_the_agent_does_not_start() {
        let origin = "--snapshot-origin=/o";
        check(&[], 100, Ok(None));
        check(&[origin, "--no-pager"], 100, Ok(None));
        check(&[origin], 64 << 10, Ok(Some(128 + 1024)));
        check(&[origin], 2048, Ok(Some(128 + 512)));
        check(&[origin], 512, Ok(Some(256)));
        check(&[origin], 400, Err("may take 228 MiB"));
        check(&[origin, "--pager-work-mib=64", "--pager-memory-mib=16"], 160, Ok(Some(80)));
        check(&[origin, "--pager-work-mib=2048"], 4096, Err("more than half of this host's 4096 MiB"));
        let few = ["warren-agent", "--data=/d", "--identity=/i", "--jailer=/j", "--pager-work-mib=63"];
        assert!(Config::try_parse_from(few).is_err());
    }
}
