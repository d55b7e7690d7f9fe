//! From a command line to a serving jailer.

use super::{
    server::{End, Peers, Server},
    trust,
};
use crate::{
    cgroup::{self, Parents, find},
    confine::confine,
    jails::{Host, Jails},
    network, probe,
    programs::Programs,
    sys,
};
use anyhow::{Context, bail, ensure};
use rustix::{
    fs::{CWD, FlockOperation, Gid, Mode, OFlags, Uid, chown, fcntl_lock, openat},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};
use std::{
    fs,
    io::Write,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    rc::Rc,
};
use warren_sandbox_plan::facts::{CgroupFacts, HostFacts};

/// What `serve` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the agent finds it: a SOCK_SEQPACKET socket.
    #[arg(long)]
    pub(crate) socket: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
    /// The only user that may ask for anything.
    #[arg(long)]
    pub(crate) agent_uid: u32,
    /// First uid of the jails: slot N has uid-base + N.
    #[arg(long, default_value_t = 70_000)]
    pub(crate) uid_base: u32,
    /// Most jails at a time.
    #[arg(long, default_value_t = 4096)]
    pub(crate) slots: u32,
    /// Slots that are made ready before they are asked for, of those that are free: a jail then takes a fraction of the time; each
    /// is a process that waits.
    #[arg(long, default_value_t = 4)]
    pub(crate) ready_slots: u32,
    /// Serve one process of that user at a time: two agents would take each other's jails for leftovers.
    #[arg(long)]
    pub(crate) one_agent: bool,
    /// Begin a session of its own, for who starts it by hand and goes away.
    #[arg(long)]
    pub(crate) detach: bool,
    /// The VMM program [default: warren-vmm beside this one].
    #[arg(long)]
    pub(crate) vmm: Option<PathBuf>,
    /// The guest image handed to every VMM [default: warren-guest beside this program].
    #[arg(long)]
    pub(crate) guest: Option<PathBuf>,
    /// The compiler program [default: warren-compile beside this one].
    #[arg(long)]
    pub(crate) compile: Option<PathBuf>,
    /// The pager [default: warren-pager beside this one].
    #[arg(long)]
    pub(crate) pager: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) network: network::Options,
    /// Set the host's cgroup v2 so that processes change groups without waiting, for as long as this jailer runs: a VM is made
    /// 10 ms sooner, each fork and exit of the host costs a little more (Linux 6.0).
    #[arg(long)]
    pub(crate) favordynmods: bool,
    /// For tests of what a failure leaves behind: fails at this step of every plan.
    #[arg(long, hide = true)]
    pub(crate) fail_at: Option<String>,
    /// The same of a process that somebody kills: its own is killed at this step of every plan.
    #[arg(long, hide = true)]
    pub(crate) kill_at: Option<String>,
}

/// Which part of the host is this jailer's.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// A directory of the jailer's own; one jailer a directory.
    #[arg(long, default_value = "/var/lib/warren/jailer")]
    pub(crate) state: PathBuf,
    /// Name of the cgroup below which the jails get theirs; part of the state directory's hash is added.
    #[arg(long, default_value = "warren")]
    pub(crate) cgroup_name: String,
    /// The cgroup to make it in, as a path in the hierarchy [default: v1 the jailer's own, v2 the root].
    #[arg(long)]
    pub(crate) cgroup_root: Option<String>,
    /// Memory of all jails together, MiB [default: as much as there is].
    #[arg(long)]
    pub(crate) max_memory_mib: Option<u64>,
}

impl Place {
    /// What tells this jailer from others on the host: its state directory, as a number.
    fn number(&self) -> u32 {
        hash(&fs::canonicalize(&self.state).unwrap_or_else(|_| self.state.clone()))
    }

    /// The same in bytes.
    pub(crate) fn max_memory_bytes(&self) -> Option<u64> {
        self.max_memory_mib.map(|mib| mib.saturating_mul(1 << 20))
    }

    /// Where the cgroups of this jailer stand, without making anything.
    pub(crate) fn cgroups(&self) -> anyhow::Result<CgroupFacts> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let controllers = |mount: &str| fs::read_to_string(format!("{mount}/cgroup.controllers")).ok();
        let found = find::find(&mounts, &own, controllers).context(
            "this host has no usable cgroup hierarchy: pids, memory and cpu are needed, as v2 (mount -t cgroup2 none \
             /sys/fs/cgroup) or v1",
        )?;
        let leaf = format!("{}-{:08x}", self.cgroup_name, self.number());
        Ok(cgroup::place(&found, self.cgroup_root.as_deref(), &leaf))
    }
}

/// A core dump of the one that holds privilege: neither as a file nor piped to a program. What it starts is no less closed.
fn leave_no_core() -> anyhow::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .context("cannot turn core dumps off")
}

/// Serves until told to end.
pub(crate) fn serve(options: &Options) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the jailer needs root: sudo {}", std::env::args().collect::<Vec<_>>().join(" "));
    }
    leave_no_core()?;
    if options.detach {
        rustix::process::setsid().context("cannot begin a session of its own")?;
    }
    check_uids(options)?;
    raise_open_files()?;
    let signals = sys::signal_fd(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    let state = &options.place.state;
    fs::create_dir_all(state).with_context(|| format!("cannot make {}", state.display()))?;
    trust::folder(state)?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o700))?;
    // A record lock, which a child does not inherit: it ends with this process, whatever a half-made jail still holds.
    let lock = fs::File::create(state.join("lock"))?;
    fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another jailer works in {}", state.display()))?;

    let beside =
        |given: &Option<PathBuf>, name| given.clone().unwrap_or_else(|| crate::programs::sibling(name));
    let programs = Programs::open(
        &beside(&options.vmm, "warren-vmm"),
        &beside(&options.guest, "warren-guest"),
        &beside(&options.compile, "warren-compile"),
        &beside(&options.pager, "warren-pager"),
    )?;
    for missing in [&programs.vmm, &programs.guest, &programs.compile, &programs.pager, &programs.kvm]
        .into_iter()
        .filter_map(|it| it.as_ref().err())
    {
        tell(&format!("{missing}: spawns that need it are refused"));
    }
    let processes =
        openat(CWD, "/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let last_capability = probe::last_capability();
    // Asked while there is a /proc: before Linux 6.4 it is read from there, at the first question.
    let page_bytes = rustix::param::page_size() as u64;
    let max_memory = options.place.max_memory_bytes();
    // Before anything of the host is changed: a start that fails leaves no cgroups.
    let (listener, folder) = bind_socket(&options.socket, options.agent_uid)?;
    let parents = Parents::open(recorded_or(state, options.place.cgroups()?)?, max_memory)?;
    let favored = cgroup::favor::favor(state, options.favordynmods).unwrap_or_else(|why| {
        tell(&format!("favordynmods: {why:#}"));
        None
    });
    let network =
        network::prepare(&options.network, options.place.number(), options.slots, &living(&parents)?);
    if let Err(why) = &network {
        tell(&format!("sandboxes have no network: {why}"));
    }

    // From here on the host's files are out of reach but for what is open.
    confine(state).context("cannot confine the jailer itself")?;
    let mounts = openat(&processes, "self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let facts = HostFacts {
        cgroups: parents.facts.clone(),
        user_namespace: probe::user_namespace(&processes, options.uid_base),
        kvm: programs.kvm_availability(),
        last_capability,
        page_bytes,
    };
    let host = Host {
        facts,
        parents: Rc::new(parents),
        programs,
        processes,
        mounts,
        uid_base: options.uid_base,
        slots: options.slots,
        ready: usize::try_from(options.ready_slots).unwrap_or(usize::MAX),
        max_memory_bytes: max_memory.unwrap_or(u64::MAX),
        network,
        fail_at: options.fail_at.clone(),
        kill_at: options.kill_at.clone(),
    };
    let jails = Jails::adopt(host).context("cannot take over what an earlier jailer left")?;
    let adopted = jails.alive().count();
    let peers = Peers { uid: options.agent_uid, one_process: options.one_agent };
    let mut server = Server::new(listener.try_clone()?, signals, peers, jails)?;
    listen(&listener, 64)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready socket={} adopted={adopted}", options.socket.display())?;
    out.flush()?;
    drop(out);

    let end = server.run()?;
    if let Some(name) = options.socket.file_name() {
        let _ = rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::empty());
    }
    server.finish(end);
    if end == End::HandOver
        && let Some(favored) = favored
    {
        favored.leave();
    }
    Ok(())
}

/// Into the log; where nothing can be written (a full disk) the jails matter more.
fn tell(text: &str) {
    let _lost = writeln!(std::io::stderr(), "warren-jailer: {text}");
}

/// What `network` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct NetworkOptions {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    network: network::Options,
}

/// Prints what there is of the network of the jailer of this state directory.
pub(crate) fn print_network(options: &NetworkOptions) -> anyhow::Result<()> {
    let parents = recorded(&options.place.state).map_or_else(|| options.place.cgroups(), Ok)?;
    let status = network::status(&options.network, options.place.number(), &processes_below(&parents))?;
    println!("{}", serde_json::to_string_pretty(&status)?);
    Ok(())
}

/// The processes in jails below these parents, asked without taking hold of them.
fn processes_below(facts: &CgroupFacts) -> Vec<i32> {
    let folders =
        facts.parents.iter().filter_map(|parent| fs::read_dir(&parent.path).ok()).flatten().flatten();
    let lists = folders.filter_map(|folder| fs::read_to_string(folder.path().join("cgroup.procs")).ok());
    let mut pids: Vec<i32> = lists
        .flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The processes in jails that an earlier jailer left.
fn living(parents: &Parents) -> anyhow::Result<Vec<i32>> {
    let directories = parents.directories()?;
    let all = directories.iter().flat_map(|directory| parents.processes(directory));
    Ok(all.map(|pid| pid.as_raw_nonzero().get()).collect())
}

/// The jails' uids are nobody else's as far as this command line can tell: not root's, not the agent's.
fn check_uids(options: &Options) -> anyhow::Result<()> {
    let Options { uid_base, slots, agent_uid, .. } = *options;
    // The last uid means "none" to the kernel.
    let end = uid_base.checked_add(slots).filter(|end| *end < u32::MAX);
    let end = end.with_context(|| format!("{slots} uids from {uid_base} on are more than there are"))?;
    ensure!(uid_base > 0 && slots > 0, "--uid-base and --slots begin at 1: 0 is root");
    ensure!(!(uid_base..end).contains(&agent_uid), "the agent's own uid {agent_uid} is among the jails'");
    Ok(())
}

/// Every jail takes a descriptor of the jailer; the usual soft limit of 1,024 is for programs that use select.
fn raise_open_files() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
}

/// The parents an earlier jailer of this state directory used, if they are still there: a jailer started from another
/// cgroup must find what it left. Otherwise `now`, which is recorded.
fn recorded_or(state: &Path, now: CgroupFacts) -> anyhow::Result<CgroupFacts> {
    let file = state.join("cgroups.json");
    if let Some(recorded) = recorded(state)
        && recorded != now
        && recorded.parents.iter().all(|parent| Path::new(&parent.path).is_dir())
    {
        return Ok(recorded);
    }
    fs::write(&file, serde_json::to_vec_pretty(&now)?)?;
    Ok(now)
}

fn recorded(state: &Path) -> Option<CgroupFacts> {
    serde_json::from_slice(&fs::read(state.join("cgroups.json")).ok()?).ok()
}

/// The bound socket, not listening yet, and the folder it stands in.
fn bind_socket(path: &Path, agent_uid: u32) -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let new = || {
        socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
    };
    let address = SocketAddrUnix::new(path).with_context(|| format!("{} is too long", path.display()))?;
    if connect(&new()?, &address).is_ok() {
        bail!("another jailer serves {}", path.display());
    }
    if fs::symlink_metadata(path).is_ok_and(|it| std::os::unix::fs::FileTypeExt::is_socket(&it.file_type())) {
        fs::remove_file(path)?;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    trust::folder(folder)?;
    let folder = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let listener = new()?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = bind(&listener, &address);
    rustix::process::umask(before);
    bound.with_context(|| format!("cannot bind {}", path.display()))?;
    let (uid, gid) = (Uid::from_raw(agent_uid), Gid::from_raw(agent_uid));
    chown(path, Some(uid), Some(gid))
        .with_context(|| format!("cannot give {} to the agent", path.display()))?;
    Ok((listener, folder))
}

/// FNV-1a: tells state directories apart, nothing more.
fn hash(path: &Path) -> u32 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
