//! One Warren of a suite's own: started with the real CLI, used through it and through gRPC.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use serde_json::Value;
use std::{
    ops::Range,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tonic::Status;
use warren_client::{Client, Config};
use warren_proto::v1::{
    CreateFunctionRequest, DeleteFunctionRequest, Function, FunctionConfig, FunctionLimits, InvokeRequest,
    InvokeResponse, ListAllSandboxesRequest, Sandbox, SandboxState, SnapStart,
};

/// What an invocation gave.
pub type Answer = Result<InvokeResponse, Status>;

const READY_WITHIN: Duration = Duration::from_mins(2);
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a suite's Warren is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More arguments for `warren up`.
    pub arguments: &'static [&'static str],
    /// Number of the suite, for user ids of its own.
    pub number: u32,
    /// Put the data directory here instead of a fresh one.
    pub data: Option<PathBuf>,
    /// Run it as this user, on a machine prepared for him.
    pub user: Option<User>,
    /// Nothing that it or its services tell can be written anywhere: the disk of their logs is full.
    pub mute: bool,
}

/// What takes no byte at all.
const FULL: &str = "/dev/full";

/// A user without any privilege, and the machine he sees.
#[derive(Clone, Debug)]
pub struct User {
    /// Nobody's number.
    pub uid: u32,
    /// The programs he can reach.
    pub programs: PathBuf,
    /// Below which the machine was prepared.
    pub root: PathBuf,
    /// His home.
    pub home: PathBuf,
}

impl User {
    /// The CLI as he runs it: no group, no capability, no way to get one.
    #[must_use]
    pub fn warren(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.uid)]);
        command.args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]);
        command.arg(self.programs.join("warren")).env_clear().current_dir("/");
        command.env("HOME", &self.home).env("WARREN_HOST_ROOT", &self.root).stdin(Stdio::null());
        command
    }
}

/// What the services tell.
const LOGS: [&str; 3] = ["jailer.log", "control.log", "agent.log"];
/// Of each suite's Warren.
const UIDS: u32 = 5_000;

fn first_uid(options: &Options) -> u32 {
    100_000 + UIDS * options.number
}

/// Processes of users in this range.
fn processes_of(uids: &Range<u32>) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        // Not the owner of the directory: that is root for a process that is not dumpable.
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        let uid = line.split_whitespace().next().and_then(|uid| uid.parse::<u32>().ok());
        if let (Some(pid), Some(uid)) = (pid, uid)
            && uids.contains(&uid)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// How a function is deployed.
#[derive(Clone, Debug, Default)]
pub struct Deploy {
    /// MiB; 0 for the default.
    pub memory_mib: u32,
    /// Milliseconds; 0 for the default.
    pub timeout_ms: u32,
    /// Most at once.
    pub reserved: Option<u32>,
    /// The answer must be JSON.
    pub json_response: bool,
    /// Arguments.
    pub args: Vec<String>,
    /// Whether a snapshot is made before it is there.
    pub snap_start: SnapStart,
}

/// A running Warren.
pub struct Installation {
    up: tokio::sync::Mutex<Child>,
    data: PathBuf,
    config: PathBuf,
    /// gRPC.
    pub client: Client,
    counter: AtomicU32,
    /// User ids of its sandboxes, where they are this installation's alone.
    uids: Range<u32>,
}

impl Installation {
    /// Starts one and waits until it is ready.
    pub async fn start(name: &str, options: &Options) -> Result<Self> {
        let data = match &options.data {
            Some(data) => data.clone(),
            None => fresh_directory(name)?,
        };
        if options.mute {
            std::fs::create_dir_all(data.join("log"))?;
            for log in LOGS {
                std::os::unix::fs::symlink(FULL, data.join("log").join(log))?;
            }
        }
        let config = data.join("client.toml");
        let warren = || options.user.as_ref().map_or_else(|| Command::new(program("warren")), User::warren);
        let mut command = warren();
        command.args(["up", "--json", "--listen", "127.0.0.1:0"]).arg("--data").arg(&data);
        command.arg("--config").arg(&config);
        // Elsewhere the jailer is not this run's, and its user ids are what they are.
        if options.user.is_none() && rustix::process::geteuid().is_root() {
            command.arg(format!("--uid-base={}", first_uid(options)));
        }
        command.args(options.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        if options.mute {
            command.stderr(std::fs::File::options().write(true).open(FULL)?);
        }
        let mut up =
            command.spawn().context("start warren up; is target/warren built (cargo xtask build)?")?;
        let output = up.stdout.take().context("no output")?;
        let mut lines = BufReader::new(output).lines();
        let said =
            timeout(READY_WITHIN, lines.next_line()).await.context("warren up does not get ready")??;
        if said.as_deref().is_none_or(|line| !line.contains("\"ready\"")) {
            bail!("warren up ended: {:?}\n{}", up.wait().await?, tails(&data));
        }
        let client = Client::connect(&Config::load(&config)?).await?;
        let uids = first_uid(options)..first_uid(options) + UIDS;
        Ok(Self { up: tokio::sync::Mutex::new(up), data, config, client, counter: AtomicU32::new(0), uids })
    }

    /// Stops it as Ctrl-C would, and demands a clean end. Its directory goes with it.
    pub async fn stop(self) -> Result<()> {
        let mut up = self.up.into_inner();
        let pid = up.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        rustix::process::kill_process(pid.context("warren up has gone")?, rustix::process::Signal::TERM)?;
        let exit = timeout(SETTLED_WITHIN, up.wait()).await.context("warren up does not stop")??;
        ensure!(exit.success(), "warren up ended with {exit}\n{}", tails(&self.data));
        std::fs::remove_dir_all(&self.data).context("remove the data directory")
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The CLI with this installation's configuration, to its end.
    pub async fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program("warren"));
        command.arg("--config").arg(&self.config).args(arguments).stdin(Stdio::null());
        command.output().await.context("run warren")
    }

    /// The CLI's standard output as JSON.
    pub async fn cli_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let done = self.cli(&all).await?;
        ensure!(done.status.success(), "warren {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).context("the CLI's JSON")
    }

    /// A name no other case uses.
    #[must_use]
    pub fn name(&self, stem: &str) -> String {
        format!("{stem}-{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Deploys a module.
    pub async fn deploy(&self, name: &str, code: impl Into<Bytes>, how: Deploy) -> Result<Function, Status> {
        let limits = FunctionLimits {
            memory_mib: how.memory_mib,
            timeout_ms: how.timeout_ms,
            tmp_mib: 0,
            reserved_concurrency: how.reserved,
        };
        let request = CreateFunctionRequest {
            name: name.to_owned(),
            code: code.into(),
            task: Bytes::new(),
            config: Some(FunctionConfig {
                limits: Some(limits),
                env: Vec::new(),
                args: how.args,
                json_response: how.json_response,
                snap_start: how.snap_start.into(),
                ..FunctionConfig::default()
            }),
        };
        Ok(self.client.functions().create_function(request).await?.into_inner())
    }

    /// Deploys one of the project's functions under a name of its own.
    pub async fn deploy_built(&self, module: &str, how: Deploy) -> Result<String> {
        let name = self.name(module);
        self.deploy(&name, function(module)?, how).await.with_context(|| format!("deploy {name}"))?;
        Ok(name)
    }

    /// One call.
    pub async fn invoke(&self, name: &str, payload: impl Into<Bytes>) -> Answer {
        let request =
            InvokeRequest { function: name.to_owned(), payload: payload.into(), ..InvokeRequest::default() };
        Ok(self.client.invoke().invoke(request).await?.into_inner())
    }

    /// Removes a function.
    pub async fn remove(&self, name: &str) -> Result<(), Status> {
        let request = DeleteFunctionRequest { name: name.to_owned(), expected_revision: 0 };
        self.client.functions().delete_function(request).await.map(drop)
    }

    /// What `warren ps` shows of functions.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, Status> {
        Ok(self.listed().await?.0)
    }

    /// What `warren ps` shows that waits for one.
    pub async fn zygotes(&self) -> Result<Vec<Sandbox>, Status> {
        Ok(self.listed().await?.1)
    }

    async fn listed(&self) -> Result<(Vec<Sandbox>, Vec<Sandbox>), Status> {
        let request = ListAllSandboxesRequest::default();
        let all = self.client.admin().list_all_sandboxes(request).await?.into_inner().sandboxes;
        Ok(all.into_iter().partition(|sandbox| sandbox.state() != SandboxState::Zygote))
    }

    /// Waits until nothing is on its way: every sandbox is idle. Gives them.
    pub async fn settled(&self) -> Result<Vec<Sandbox>> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let sandboxes = self.sandboxes().await?;
            if sandboxes.iter().all(|sandbox| sandbox.state() == SandboxState::Idle) {
                return Ok(sandboxes);
            }
            ensure!(Instant::now() < deadline, "left over: {sandboxes:#?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Jailed processes of this installation: sandboxes, and what is compiled or written down.
    pub fn jailed(&self) -> Result<Vec<i32>> {
        processes_of(&self.uids)
    }

    /// Waits until the machine runs as many jailed processes of this installation as `warren ps` lists sandboxes: whatever
    /// was killed, nothing is left over that nobody knows.
    pub async fn no_strays(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            self.settled().await?;
            let (sandboxes, zygotes) = self.listed().await?;
            let mut listed: Vec<_> = sandboxes.iter().chain(&zygotes).map(|one| one.pid).collect();
            let mut there = self.jailed()?;
            listed.sort_unstable();
            there.sort_unstable();
            if listed == there {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "listed {listed:?}, running {there:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a function has no sandbox at all.
    pub async fn gone(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let sandboxes = self.sandboxes().await?;
            let left: Vec<_> = sandboxes.iter().filter(|sandbox| sandbox.function == name).collect();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "left over: {left:#?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Pid of one of the three services.
    pub async fn service(&self, name: &str) -> Result<i32> {
        let up = self.up.lock().await.id().context("warren up has gone")?;
        let children = std::fs::read_to_string(format!("/proc/{up}/task/{up}/children"))?;
        // Threads of the supervisor spawn: look through all of them.
        let threads = std::fs::read_dir(format!("/proc/{up}/task"))?.flatten();
        let more = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let all = std::iter::once(children).chain(more).collect::<Vec<_>>().join(" ");
        all.split_whitespace()
            .filter_map(|pid| pid.parse::<i32>().ok())
            .find(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is(&line, name))
            })
            .with_context(|| format!("no process {name}"))
    }

    /// The ends of the services' logs.
    #[must_use]
    pub fn log_tails(&self) -> String {
        tails(&self.data)
    }
}

/// The bytes of one of the project's functions.
pub fn function(module: &str) -> Result<Bytes> {
    let path = collected().join("functions").join(format!("{module}.wasm"));
    let bytes = std::fs::read(&path).with_context(|| format!("{}; cargo xtask build", path.display()))?;
    Ok(bytes.into())
}

/// A file of `tests/functions/data`.
pub fn sample(name: &str) -> Result<Bytes> {
    let path = root().join("tests/functions/data").join(name);
    Ok(std::fs::read(&path).with_context(|| path.display().to_string())?.into())
}

/// The root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or_else(|| Path::new("/")).to_owned()
}

/// What `cargo xtask build` collects: `bin`, `policies`, `functions`. On the lab host they lie elsewhere.
#[must_use]
pub fn collected() -> PathBuf {
    std::env::var_os("WARREN_COLLECTED").map_or_else(|| root().join("target/warren"), PathBuf::from)
}

fn program(name: &str) -> PathBuf {
    collected().join("bin").join(name)
}

fn is(command_line: &str, name: &str) -> bool {
    command_line.split('\0').next().is_some_and(|program| program.ends_with(&format!("/{name}")))
}

/// Somewhere the services' users can reach.
fn fresh_directory(name: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory =
        tempfile::Builder::new().prefix(&format!("warren-{name}-")).tempdir_in("/var/tmp")?.keep();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

fn tails(data: &Path) -> String {
    let tail = |name: &str| {
        let path = data.join("log").join(name);
        // Of a device there is no end to read.
        let text = if path.is_file() { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        format!(
            "{name}:\n  {}\n",
            lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n  ")
        )
    };
    LOGS.map(tail).concat()
}
