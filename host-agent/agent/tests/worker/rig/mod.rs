//! A worker host for tests: the real jailer, VMM, guest, compiler and agent, with the test in control's place.

mod caller;
mod control;
pub(crate) mod module;
mod process;

pub(crate) use caller::Caller;
pub(crate) use control::Control;

use process::Process;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use warren_identity::{HostId, Owners, Peer, Service, client_tls, ensure_local_at, give_files};
use warren_proto::{
    MAX_MESSAGE_BYTES,
    error::{Fault, WireError},
    v1::{self, worker_service_client::WorkerServiceClient},
};

/// The user the agent runs as: not root.
const AGENT_UID: u32 = 64_001;
/// Jails of one jailer, and their user ids.
const SLOTS: u32 = 256;
/// Everything a test waits for happens within this, on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Where the guest program of a later release is.
const UPGRADED: &str = "guest-upgraded";

/// Whether this is the full form, `cargo xtask soak worker`.
pub(crate) fn full_form() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}

pub(crate) type Client = WorkerServiceClient<Channel>;

/// Where artefacts go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Usual,
    /// 64 KiB, mounted in a namespace of the agent's own.
    Tiny,
}

/// One host; everything of it goes when it is dropped.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) control: Control,
    jailer: Process,
    pub(crate) agent: Process,
    pub(crate) address: String,
    pub(crate) host: HostId,
    arguments: Vec<String>,
    number: u32,
}

impl Rig {
    /// Starts it; `arguments` go to the agent.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_on(arguments, Disk::Usual).await
    }

    /// The same with a choice of disk.
    pub(crate) async fn start_on(arguments: &[&str], disk: Disk) -> Self {
        Self::start_as("h1", None, arguments, disk).await
    }

    /// Another host of this one's fleet: the same CA and secret, everything else its own.
    pub(crate) async fn start_beside(&self, host: &str, arguments: &[&str]) -> Self {
        Self::start_as(host, Some(self.dir.path()), arguments, Disk::Usual).await
    }

    async fn start_as(host: &str, fleet: Option<&Path>, arguments: &[&str], disk: Disk) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() % 1000 * 16 + NEXT.fetch_add(1, Ordering::Relaxed) % 16;
        let dir = tempfile::Builder::new().prefix("wa").tempdir().unwrap();
        let path = dir.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let host = HostId::new(host).unwrap();
        std::fs::create_dir(path.join("identity")).unwrap();
        for shared in
            fleet.into_iter().flat_map(|fleet| ["ca.pem", "ca.key", "fleet.key"].map(|name| (fleet, name)))
        {
            let (from, name) = shared;
            std::fs::copy(from.join("identity").join(name), path.join("identity").join(name)).unwrap();
        }
        let now = std::time::SystemTime::now();
        ensure_local_at(&path.join("identity"), Some(host.clone()), now).unwrap();
        let control = Control::start(&path.join("identity")).await;
        give_files(&path.join("identity"), Owners { control: 0, agent: AGENT_UID }).unwrap();
        for folder in ["run", "agent"] {
            std::fs::create_dir(path.join(folder)).unwrap();
        }
        // The jailer works in folders of root's alone.
        std::os::unix::fs::chown(path.join("agent"), Some(AGENT_UID), Some(AGENT_UID)).unwrap();
        let jailer = start_jailer(path, number);
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let agent = start_agent(path, &control.address, &arguments, disk);
        let address = agent.ready["listen"].clone();
        Self { dir, control, jailer, agent, address, host, arguments, number }
    }

    /// Control's connection to the agent.
    pub(crate) async fn client(&self) -> Client {
        let channel = self.reached_by(self, Service::Control).await.unwrap();
        WorkerServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A connection to the agent with a certificate of another host's folder, or its own.
    pub(crate) async fn reached_by(
        &self,
        from: &Self,
        service: Service,
    ) -> Result<Channel, tonic::transport::Error> {
        let identity = from.dir.path().join("identity");
        let tls = client_tls(&identity, service, &Peer::Worker(self.host.clone())).unwrap();
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address))?.tls_config(tls)?;
        endpoint.connect().await
    }

    /// As its fleet calls it.
    pub(crate) fn as_neighbour(&self) -> v1::Neighbour {
        v1::Neighbour { host_id: self.host.to_string(), address: self.address.clone() }
    }

    /// `kill -9`, then a new one in the same place.
    pub(crate) fn restart_agent(&mut self) {
        self.agent.kill();
        self.agent = start_agent(self.dir.path(), &self.control.address, &self.arguments, Disk::Usual);
        self.address = self.agent.ready["listen"].clone();
    }

    /// `kill -9` of the jailer, then a new one.
    pub(crate) fn restart_jailer(&mut self) {
        self.jailer.kill();
        self.jailer = start_jailer(self.dir.path(), self.number);
    }

    /// Another release of the guest program (which does the same): jailer and agent begin anew with it.
    pub(crate) fn upgrade_guest(&mut self) {
        let mut program = std::fs::read(binary("warren-guest")).unwrap();
        program.push(0);
        std::fs::write(self.dir.path().join(UPGRADED), program).unwrap();
        self.restart_jailer();
        self.restart_agent();
    }

    /// It ends, and with it every jail.
    pub(crate) fn stop_jailer(&mut self) {
        self.jailer.terminate();
    }

    pub(crate) fn jailer_pid(&self) -> i32 {
        self.jailer.pid()
    }

    pub(crate) fn jailer_rss_bytes(&self) -> u64 {
        self.jailer.rss_bytes()
    }

    pub(crate) fn kill_jailer(&mut self) {
        self.jailer.kill();
    }

    /// Files left in the directory of sockets and records.
    pub(crate) fn run_files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("agent/run")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// User ids of its jails.
    pub(crate) const fn uids(&self) -> std::ops::Range<u32> {
        let first = 1_000_000 + self.number * SLOTS;
        first..first + SLOTS
    }

    /// The cgroups below which its jails have theirs.
    pub(crate) fn cgroup_parents(&self) -> Vec<PathBuf> {
        let text = std::fs::read(self.dir.path().join("jailer/cgroups.json")).unwrap();
        let facts: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let parents = facts["parents"].as_array().unwrap().iter();
        parents.map(|parent| parent["path"].as_str().unwrap().into()).collect()
    }

    /// The first cgroup of the jail that has this user.
    pub(crate) fn cgroup_of(&self, uid: u32) -> PathBuf {
        self.cgroup_parents()[0].join(format!("{:04}", uid - self.uids().start))
    }

    /// Processes below this rig's jailer, the children among them that only wait in slots that are ready.
    pub(crate) fn jailers_processes(&self) -> Vec<i32> {
        process::descendants(self.jailer.pid())
    }

    /// VMM and compiler processes whose parent is this rig's jailer or its init's.
    pub(crate) fn jailed_processes(&self) -> Vec<i32> {
        let mut jailed = self.jailers_processes();
        jailed.retain(|pid| !process::waits_in_a_slot(*pid));
        jailed
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The agent first, politely: it destroys what it has; the jailer then has nothing left to hold.
        self.agent.terminate();
        self.jailer.terminate();
    }
}

fn start_jailer(dir: &Path, number: u32) -> Process {
    let mut command = Command::new(binary("warren-jailer"));
    command
        .arg("serve")
        .arg("--socket")
        .arg(dir.join("run/jailer.sock"))
        .arg("--state")
        .arg(dir.join("jailer"));
    command.arg("--agent-uid").arg(AGENT_UID.to_string());
    // Uids of its own, so that two test programs at once do not meet.
    command.arg("--uid-base").arg((1_000_000 + number * SLOTS).to_string());
    command.arg("--slots").arg(SLOTS.to_string());
    for (flag, name) in
        [("--vmm", "warren-vmm"), ("--compile", "warren-compile"), ("--pager", "warren-pager")]
    {
        command.arg(flag).arg(binary(name));
    }
    let upgraded = dir.join(UPGRADED);
    command.arg("--guest").arg(if upgraded.exists() { upgraded } else { binary("warren-guest") });
    Process::start("jailer", command)
}

fn start_agent(dir: &Path, control: &str, arguments: &[String], disk: Disk) -> Process {
    let mut command = Command::new("unshare");
    let mount = match disk {
        Disk::Usual => "",
        Disk::Tiny => {
            "mkdir -m 777 \"$0/artefacts\" && mount -t tmpfs -o size=64k,mode=777 none \"$0/artefacts\" && "
        }
    };
    let user = format!("exec setpriv --reuid={AGENT_UID} --regid={AGENT_UID} --clear-groups \"$@\"");
    command.args(["--mount", "sh", "-c", &format!("{mount}{user}")]).arg(dir.join("agent"));
    command.arg(env!("CARGO_BIN_EXE_warren-agent"));
    command.arg("--data").arg(dir.join("agent")).arg("--identity").arg(dir.join("identity"));
    command.args(["--listen", "127.0.0.1:0", "--control", control]);
    if !arguments.iter().any(|argument| argument.starts_with("--memory-mib")) {
        command.arg("--memory-mib=4096");
    }
    command.arg("--jailer").arg(dir.join("run/jailer.sock")).args(arguments);
    // Most cases count jails, memory and init to the last one: nothing is made beside what they ask for.
    if !arguments.iter().any(|argument| argument.starts_with("--snapshots-mib")) {
        command.arg("--snapshots-mib=0");
    }
    // So that what is jailed is a sandbox's.
    if !arguments.iter().any(|argument| argument.starts_with("--zygotes-mib")) {
        command.arg("--zygotes-mib=0");
    }
    Process::start("agent", command)
}

/// A program of this build: what `cargo xtask build` collected, or what cargo made.
fn binary(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let collected =
        std::env::var_os("WARREN_BIN").map_or_else(|| root.join("target/warren/bin"), PathBuf::from);
    let built = Path::new(env!("CARGO_BIN_EXE_warren-agent")).with_file_name(name);
    let guest = root.join("vmm/guest/target/x86_64-unknown-none/release").join(name);
    let places = [collected.join(name), built, guest];
    let found = places.iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built: run `cargo xtask build`")).clone()
}

/// A version of a module, as control would name it.
pub(crate) fn version(
    name: &str,
    module: &[u8],
    change: impl FnOnce(&mut v1::FunctionVersion),
) -> v1::FunctionVersion {
    let limits =
        v1::FunctionLimits { memory_mib: 128, timeout_ms: 2000, tmp_mib: 0, reserved_concurrency: None };
    let mut version = v1::FunctionVersion {
        name: name.to_owned(),
        version: 1,
        code_digest: blake3::hash(module).to_hex().to_string(),
        code_bytes: module.len() as u64,
        limits: Some(limits),
        ..v1::FunctionVersion::default()
    };
    change(&mut version);
    version
}

/// Demands this reason and fault; gives the error for more questions.
pub(crate) fn expect<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
    fault: Fault,
) -> WireError {
    let error = WireError::from_status(&result.unwrap_err());
    assert_eq!((error.code, error.reason.as_str(), error.fault), (code, reason, fault), "{}", error.message);
    assert!(!error.message.is_empty());
    error
}

/// Asks again and again until it is so; the pause only yields the processor.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(std::time::Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
